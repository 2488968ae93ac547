"""A rig in use: frames of data sets, what is ignored and counted, pairs to infer, and how it is spelt."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from layouts import SIZE, custom_options, write_custom, write_image, write_mfnet_packed
from pydantic import ValidationError

from mdg.config import load_config
from mdg.data import build_dataset
from mdg.data.class_pixels import count_classes
from mdg.data.reading.in_memory import pair_of
from mdg.data.reading.pairs import align, read_pair, seen_by_both
from mdg.data.registration.rig_file import write_rig
from mdg.engine.predictor import parse_choices
from mdg.errors import ConfigError, DataError, UserError
from mdg.options.files import PairOptions, RigAlignment
from mdg.options.rig import Rig

SHIFT = (5, 3)  # thermal pixel (0, 0) lies at this RGB pixel (x, y)
RULES = "'refuse', 'rgb', 'thermal' or 'label'"


@pytest.fixture
def rig(tmp_path):
    """The file of a rig that shifts."""
    matrix = [[1, 0, SHIFT[0]], [0, 1, SHIFT[1]], [0, 0, 1]]
    file = tmp_path / "rig.yaml"
    write_rig(file, Rig.model_validate({"thermal_to_rgb": matrix, "thermal_size": SIZE, "rgb_size": SIZE}))
    return file


def test_frames_of_a_data_set(rig, tmp_path):
    """Thermal is moved, RGB stays, and labels are ignored where thermal does not reach."""
    root = write_custom(tmp_path / "custom", train=2, test=1)
    plain = build_dataset(custom_options(root), "test")[0]
    dataset = build_dataset(custom_options(root, align={"mode": "rig", "file": str(rig)}), "test")
    frame = dataset[0]
    x, y = SHIFT
    np.testing.assert_array_equal(frame.rgb_HW3, plain.rgb_HW3)
    np.testing.assert_array_equal(frame.thermal_HW[y:, x:], plain.thermal_HW[:-y, :-x])
    assert not frame.thermal_HW[:y].any() and not frame.thermal_HW[:, :x].any()
    np.testing.assert_array_equal(frame.label_HW[y:, x:], plain.label_HW[y:, x:])
    assert (frame.label_HW[:y] == 255).all() and (frame.label_HW[:, :x] == 255).all()
    assert frame.label_HW.dtype == frame.thermal_HW.dtype == np.uint8
    assert "thermal warped onto RGB by a rig (SHA-256 " in dataset.preparation()
    seen = np.zeros(SIZE, bool)
    seen[y:, x:] = True
    pixels = np.bincount(plain.label_HW[seen], minlength=4)[:4]
    np.testing.assert_array_equal(count_classes(dataset)[0], pixels)


@pytest.mark.parametrize("cache", ["ram", "packed"])
def test_another_rig_is_another_frame(cache, rig, tmp_path):
    """The rig is one of the files that a frame is made of: hashes tell two rigs apart, and caches are renewed."""
    root = write_custom(tmp_path / "custom", train=2, test=1)
    options = custom_options(root, align=str(rig), cache=cache)
    before = build_dataset(options, "test")
    states = before.content_state(), before.content_hash(), before.preparation()
    assert rig in before.sources(0)
    values = {"thermal_to_rgb": [[1, 0, 9], [0, 1, 0], [0, 0, 1]], "thermal_size": SIZE, "rgb_size": SIZE}
    write_rig(rig, Rig.model_validate(values))
    after = build_dataset(options, "test")
    assert (after[0].label_HW[:, :9] == 255).all() and (after[0].label_HW[3, 9:] != 255).any()
    assert after.content_hash() != states[1] and after.preparation() != states[2]
    assert after.content_state()["names"] == states[0]["names"]


def test_pairs_in_one_file_and_mirrored_frames(rig, tmp_path):
    root = write_mfnet_packed(tmp_path / "mfnet")
    (root / "train.txt").write_text("00000D\n00000D_flip\n")
    options = {"type": "MFNet", "root": str(root), "align": str(rig)}
    straight, mirrored = build_dataset(options, "train")
    for part in ("rgb_HW3", "thermal_HW", "label_HW"):
        np.testing.assert_array_equal(getattr(mirrored, part), getattr(straight, part)[:, ::-1])
    assert (straight.label_HW[:, : SHIFT[0]] == 255).all()


def test_labels_must_have_the_size_of_rgb(rig):
    names = {"rgb": "a.png", "thermal": "b.png", "label": "c.png"}
    rule = RigAlignment(file=rig)
    rgb, thermal, label = np.zeros((*SIZE, 3), np.uint8), np.zeros(SIZE, np.uint8), np.zeros((24, 32), np.uint8)
    with pytest.raises(DataError, match=r"c\.png is 24x32 and a\.png is 48x64 .*labels belong to the RGB images"):
        align(rgb, thermal, label, rule, names)
    with pytest.raises(DataError, match=r"a\.png, b\.png: the thermal image is 48x48 .*measured on 48x64.*rig\.yaml"):
        align(rgb, np.zeros((48, 48), np.uint8), None, rule, names)
    assert seen_by_both(SIZE, SIZE, "rgb") is None
    assert seen_by_both(SIZE, SIZE, rule).sum() == (SIZE[0] - SHIFT[1]) * (SIZE[1] - SHIFT[0])


def test_pairs_to_infer(rig, tmp_path):
    """Files and arrays come to the same; a thermal image of half the size is scaled."""
    rng = np.random.default_rng(0)
    rgb, thermal = rng.integers(0, 256, (*SIZE, 3), np.uint8), rng.integers(1, 256, SIZE, np.uint8)
    files = write_image(tmp_path / "rgb.png", rgb), write_image(tmp_path / "thermal.png", thermal)
    options = PairOptions.model_validate({"align": str(rig)})
    of_files, of_arrays = read_pair(*files, options), pair_of(rgb, thermal, options)
    for one, other in zip(of_files, of_arrays, strict=True):
        np.testing.assert_array_equal(one, other)
    x, y = SHIFT
    np.testing.assert_array_equal(of_files[1][y:, x:], thermal[:-y, :-x])
    small = cv2.resize(thermal, (32, 24), interpolation=cv2.INTER_AREA)
    assert pair_of(rgb, small, options)[1].shape == SIZE


# --- how it is spelt ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["rig.yaml", "{mode: rig, file: rig.yaml}", "{file: rig.yaml}"])
def test_ways_to_name_a_rig(text):
    chosen = parse_choices(align=text)["align"]
    assert chosen == PairOptions.model_validate({"align": {"mode": "rig", "file": "rig.yaml"}}).align
    assert PairOptions(align=chosen).model_dump(mode="json")["align"] == {"mode": "rig", "file": "rig.yaml"}


@pytest.mark.parametrize("rule", ["refuse", "rgb", "thermal", "label"])
def test_the_rules_are_what_they_were(rule):
    assert parse_choices(align=rule) == {"align": rule}


@pytest.mark.parametrize(
    "value, message",
    [
        ("left", f"--align: got 'left'; Input should be {RULES}, or a file that ends in .yaml"),
        ("{mode: rgb, file: a.yaml}", "--align: mode: got 'rgb'; Input should be 'rig'"),
        ("{mode: rig}", "--align: file: got {'mode': 'rig'}; Field required"),
        ("{fil: a.yaml}", "Did you mean 'file'"),
    ],
)
def test_mistakes_on_the_command_line(value, message):
    with pytest.raises(ConfigError) as caught:
        parse_choices(align=value)
    assert message in str(caught.value)


@pytest.mark.parametrize("value", [3, None, True, ["rgb"]])
def test_other_values_are_refused(value):
    with pytest.raises(ValidationError, match=RULES):
        PairOptions.model_validate({"align": value})


def test_a_configuration_names_a_rig(rig, tmp_path, repository):
    opts = [f"data.align={{mode: rig, file: {rig}}}"]
    config = load_config(repository / "configs" / "mfnet" / "mdg_b2.yaml", opts)
    assert config.data.align == RigAlignment(file=rig)
    with pytest.raises(ConfigError, match=r"data\.align: got 'left'; expected 'refuse', .*a file that ends in \.yaml"):
        load_config(repository / "configs" / "mfnet" / "mdg_b2.yaml", ["data.align=left"])


def test_a_rig_that_is_missing_is_said_before_frames(tmp_path):
    root = write_custom(tmp_path / "custom", train=2, test=1)
    with pytest.raises(UserError, match=r"gone\.yaml: No such file"):
        build_dataset(custom_options(root, align=str(tmp_path / "gone.yaml")), "test")
