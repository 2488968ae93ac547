"""Modalities of different sizes: refused with the files named, or resized by rule; labels never."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from layouts import custom_options as options
from layouts import write_custom, write_image

from mdg.data import build_dataset
from mdg.data.reading.pairs import align
from mdg.errors import FLAGS, DataError

NAMES = {"rgb": Path("rgb/7.jpg"), "thermal": Path("ir/7.tiff"), "label": Path("labels/7.png")}
RULES = ("refuse", "rgb", "thermal", "label")


def parts(rgb: tuple[int, int], thermal: tuple[int, int], label: tuple[int, int] | None):
    """Noise of the given sizes; None for no label."""
    rng = np.random.default_rng(0)
    rgb_HW3, thermal_HW = (rng.integers(0, 256, size, np.uint8) for size in ((*rgb, 3), thermal))
    return rgb_HW3, thermal_HW, None if label is None else np.zeros(label, np.uint8)


def error_of(*sizes, rule: str, names=NAMES) -> str:
    with pytest.raises(DataError) as caught:
        align(*parts(*sizes), rule, names)
    return str(caught.value)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("label", [(6, 8), None])
def test_equal_sizes_are_left_alone(rule, label):
    rgb_HW3, thermal_HW, label_HW = parts((6, 8), (6, 8), label)
    aligned = align(rgb_HW3, thermal_HW, label_HW, rule, NAMES)
    assert aligned[0] is rgb_HW3 and aligned[1] is thermal_HW


@pytest.mark.parametrize(
    "rule, label, size",
    [
        ("rgb", (12, 16), (12, 16)),
        ("rgb", None, (12, 16)),
        ("thermal", (6, 8), (6, 8)),
        ("thermal", None, (6, 8)),
        ("label", (9, 10), (9, 10)),
        ("label", (6, 8), (6, 8)),
        ("label", None, (12, 16)),  # nothing to follow: the size of RGB
    ],
)
def test_size_by_rule(rule, label, size):
    rgb_HW3, thermal_HW = align(*parts((12, 16), (6, 8), label), rule, NAMES)
    assert rgb_HW3.shape == (*size, 3) and thermal_HW.shape == size
    assert rgb_HW3.dtype == thermal_HW.dtype == np.uint8


@pytest.mark.parametrize("rule", ["rgb", "thermal"])
def test_label_of_another_size_is_an_error_under_a_rule_of_images(rule):
    label = {"rgb": (6, 8), "thermal": (12, 16)}[rule]
    assert "label is never resized" in error_of((12, 16), (6, 8), label, rule=rule)


REFUSALS = [
    # RGB, thermal, label, the advice and what must not be advised
    ((12, 16), (6, 8), (12, 16), "data.align: rgb resizes the images to the size of that part"),
    ((12, 16), (6, 8), (6, 8), "data.align: thermal resizes the images to the size of that part"),
    ((60, 80), (60, 80), (120, 160), "data.align: label resizes the images to the size of that part"),
    ((12, 16), (6, 8), None, "data.align: rgb resizes the images to the size of that part"),
    ((6, 8), (8, 6), (6, 8), "turned by 90 degrees"),
    ((60, 80), (40, 30), None, "turned by 90 degrees"),
    ((60, 80), (60, 80), (80, 60), "turned by 90 degrees"),
    ((64, 96), (64, 96), (64, 95), "differ by 0 pixels in height and 1 pixel in width"),
    ((64, 96), (62, 95), None, "differ by 2 pixels in height and 1 pixel in width"),
    ((60, 80), (60, 90), (60, 80), "Their proportions differ"),
    ((60, 80), (30, 50), (60, 80), "Their proportions differ"),
    ((60, 80), (30, 40), (60, 90), "Their proportions differ"),
]


@pytest.mark.parametrize("rgb, thermal, label, advice", REFUSALS)
def test_refusal_names_every_file_and_size_and_fits_the_difference(rgb, thermal, label, advice):
    message = error_of(rgb, thermal, label, rule="refuse")
    for name, size in zip(NAMES.values(), (rgb, thermal, label), strict=True):
        assert size is None or f"{name} is {size[0]}x{size[1]}" in message
    assert advice in message
    assert ("data.align" in message) == ("data.align" in advice), "resizing is advised where it would stretch"
    assert ("both cameras show the same view" in message) == ("data.align" in advice)


def test_a_message_without_a_data_set_names_the_flag():
    rgb_HW3, thermal_HW, _ = parts((12, 16), (6, 8), None)
    with pytest.raises(DataError, match="--align rgb resizes the images"):
        align(rgb_HW3, thermal_HW, None, "refuse", NAMES, FLAGS)


def test_a_file_of_two_modalities_is_named_once():
    names = {**NAMES, "thermal": NAMES["rgb"]}
    assert error_of((6, 8), (6, 8), (5, 8), rule="refuse", names=names).count(f"{NAMES['rgb']} is 6x8") == 1


def test_shrinking_averages_blocks():
    rgb_HW3, thermal_HW, _ = parts((8, 12), (4, 6), None)
    small_HW3, _ = align(rgb_HW3, thermal_HW, None, "thermal", NAMES)
    means = rgb_HW3.reshape(4, 2, 6, 2, 3).mean(axis=(1, 3))
    assert np.abs(small_HW3 - means).max() <= 0.5


def test_enlarging_interpolates_between_pixels():
    ramp_HW = np.tile(np.arange(0, 80, 10, dtype=np.uint8), (4, 1))
    _, wide_HW = align(np.zeros((8, 16, 3), np.uint8), ramp_HW, None, "rgb", NAMES)
    # Centres of pixels fall on quarters: 10 * (k / 2 - 1 / 4), held at both ends.
    expected = np.clip(5 * np.arange(16) - 2.5, 0, 70)
    assert np.abs(wide_HW - expected).max() <= 0.5


def test_arguments_stay_as_they_are():
    images = parts((12, 16), (6, 8), (9, 10))
    copies = [image.copy() for image in images]
    align(*images, "label", NAMES)
    for image, copy in zip(images, copies, strict=True):
        np.testing.assert_array_equal(image, copy)


# --- in a data set -----------------------------------------------------------------------------------------------


def test_data_set_aligns_by_its_option(tmp_path):
    root = write_custom(tmp_path, train=2, test=1, rgb_scale=2)
    with pytest.raises(DataError, match=r"000_day\.jpg is 96x128, .*000_day_ir\.tiff is 48x64, .*png is 48x64"):
        build_dataset(options(root), "test")[0]
    for rule in ("thermal", "label"):
        dataset = build_dataset(options(root, align=rule), "test")
        frame = dataset[0]
        assert frame.rgb_HW3.shape == (48, 64, 3) and frame.thermal_HW.shape == frame.label_HW.shape == (48, 64)
        assert f"images resized to the size of {rule} where sizes differ" in dataset.preparation()
    with pytest.raises(DataError, match="label is never resized"):
        build_dataset(options(root, align="rgb"), "test")[0]


def test_label_keeps_every_pixel_when_images_follow_it(tmp_path):
    root = write_custom(tmp_path, train=2, test=1)
    file = root / "test" / "masks" / "cam0" / "000_day.png"
    label_HW3 = cv2.imread(str(file))[..., ::-1].repeat(3, axis=0).repeat(3, axis=1)
    small_HW = build_dataset(options(root), "test")[0].label_HW
    write_image(file, label_HW3)
    frame = build_dataset(options(root, align="label"), "test")[0]
    np.testing.assert_array_equal(frame.label_HW, small_HW.repeat(3, axis=0).repeat(3, axis=1))
    assert frame.rgb_HW3.shape == (144, 192, 3)
