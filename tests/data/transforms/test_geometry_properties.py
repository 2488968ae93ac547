"""Laws of the geometry, on sizes, factors, windows and angles that nobody chose.

Shape suffixes: H, W are height and width in pixels, 3 the channels R, G, B. Sizes are [height, width].
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from mdg.data import build_transforms
from mdg.data.base import Frame
from mdg.data.transforms.chain import apply_transforms, to_sample
from mdg.data.transforms.geometry import HorizontalFlip, RandomResizedCrop, Resize, Rotation
from mdg.data.transforms.resampling import Window, resize_image_window, resize_label_window, rotate_image, rotate_label
from mdg.options.transforms import HorizontalFlipOptions, RandomResizedCropOptions, ResizeOptions, RotationOptions

STEP = 5  # grey levels per pixel of the ramps
sides = st.integers(2, 48)
sizes = st.tuples(sides, sides)
seeds = st.integers(0, 2**32 - 1)


def ramps(size: tuple[int, int]) -> Frame:
    """Red and thermal grow along x, green along y; the label is x in pixels, so that it says where a pixel was."""
    y_HW, x_HW = np.mgrid[: size[0], : size[1]].astype(np.uint8)
    return Frame(np.dstack([STEP * x_HW, STEP * y_HW, STEP * x_HW]), STEP * x_HW, x_HW, "ramps")


def noise(size: tuple[int, int], seed: int) -> Frame:
    draw = np.random.default_rng(seed)
    label_HW = draw.choice(np.array([0, 1, 7, 200, 255], np.uint8), size)
    return Frame(
        draw.integers(0, 256, (*size, 3), dtype=np.uint8),
        draw.integers(0, 256, size, dtype=np.uint8),
        label_HW,
        "noise",
    )


def moved(transform, frame: Frame, seed: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return apply_transforms(to_sample(frame), [transform])


def inside(label_HW: torch.Tensor, margin: int) -> torch.Tensor:
    """[H, W] bool: seen, as are all neighbours up to ``margin`` px away; the outermost ones count as unseen."""
    unseen = torch.nn.functional.pad((label_HW == 255).float()[None], [margin] * 4, value=1.0)
    return torch.nn.functional.max_pool2d(unseen, 2 * margin + 1, 1)[0] == 0


def assert_aligned(sample: dict[str, torch.Tensor], margin: int, tolerance: float) -> None:
    """Wherever a pixel and its neighbours were seen, images and label come from the same place, to ``tolerance`` px."""
    label_HW = sample["label"].as_subclass(torch.Tensor)
    seen = inside(label_HW, margin)
    for plane_HW in (sample["rgb"][0], sample["rgb"][2], sample["thermal"][0]):
        off = (plane_HW.as_subclass(torch.Tensor)[seen] / STEP - label_HW[seen]).abs()
        assert off.numel() == 0 or off.max() <= tolerance


@given(old=sizes, crop=sizes, low=st.floats(0.3, 1.5), more=st.floats(0, 1.5), seed=seeds)
def test_a_random_crop_keeps_all_parts_aligned(old, crop, low, more, seed):
    sample = moved(RandomResizedCrop(RandomResizedCropOptions(size=crop, scale=(low, low + more))), ramps(old), seed)
    assert [part.shape[-2:] for part in sample.values()] == [torch.Size(crop)] * 3
    # The label takes the nearest pixel of the old image: half a pixel of it; a pixel that shrinks shows the mean of its
    # surroundings, which at the edge of the image lies further inside.
    shrink = max(1.0, 1 / (low * max(crop[0] / old[0], crop[1] / old[1])))
    assert_aligned(sample, margin=2, tolerance=0.5 + 0.5 * shrink + 1 / STEP)


@given(old=sizes, crop=sizes, low=st.floats(0.3, 1.5), more=st.floats(0, 1.5), seed=seeds)
def test_a_random_crop_invents_no_id_and_fills_right_and_below(old, crop, low, more, seed):
    sample = moved(RandomResizedCrop(RandomResizedCropOptions(size=crop, scale=(low, low + more))), ramps(old), seed)
    label_HW = sample["label"].as_subclass(torch.Tensor)
    unseen_HW = label_HW == 255
    assert set(label_HW.unique().tolist()) <= {*range(old[1]), 255}
    height, width = int((~unseen_HW).any(1).sum()), int((~unseen_HW).any(0).sum())
    assert height and width, "nothing of the image is left"
    assert not unseen_HW[:height, :width].any() and unseen_HW[height:].all() and unseen_HW[:, width:].all()
    for part in ("rgb", "thermal"):
        assert not sample[part].as_subclass(torch.Tensor)[:, unseen_HW].any()


@given(size=sizes, seed=seeds)
def test_a_crop_of_the_same_size_at_factor_one_changes_nothing(size, seed):
    frame = noise(size, seed)
    sample = moved(RandomResizedCrop(RandomResizedCropOptions(size=size, scale=(1.0, 1.0))), frame, seed)
    assert np.array_equal(sample["rgb"].permute(1, 2, 0), frame.rgb_HW3)
    assert np.array_equal(sample["thermal"][0], frame.thermal_HW)
    assert np.array_equal(sample["label"], frame.label_HW)


@given(size=sizes, seed=seeds)
def test_a_flip_is_its_own_inverse_and_mirrors_every_part(size, seed):
    frame = noise(size, seed)
    once = moved(HorizontalFlip(HorizontalFlipOptions(p=1.0)), frame, seed)
    assert np.array_equal(once["rgb"].permute(1, 2, 0), frame.rgb_HW3[:, ::-1])
    assert np.array_equal(once["thermal"][0], frame.thermal_HW[:, ::-1])
    assert np.array_equal(once["label"], frame.label_HW[:, ::-1])
    twice = apply_transforms(once, [HorizontalFlip(HorizontalFlipOptions(p=1.0))])
    assert all(torch.equal(twice[key], value) for key, value in to_sample(frame).items())


@given(old=sizes, new=sizes)
def test_a_resize_keeps_all_parts_aligned(old, new):
    sample = moved(Resize(ResizeOptions(size=new)), ramps(old), 0)
    shrink = max(1.0, old[0] / new[0], old[1] / new[1])
    assert_aligned(sample, margin=1, tolerance=0.5 + 0.5 * shrink + 1 / STEP)


@given(size=st.tuples(st.integers(8, 48), st.integers(8, 48)), degrees=st.floats(0, 180), seed=seeds)
def test_a_rotation_keeps_all_parts_aligned_and_ignores_what_comes_in(size, degrees, seed):
    sample = moved(Rotation(RotationOptions(degrees=degrees, p=1.0)), ramps(size), seed)
    # OpenCV 4 rounds positions to 1/32 px, and the label to the nearest pixel along both axes.
    assert_aligned(sample, margin=1, tolerance=0.6 + 1 / STEP)
    label_HW = sample["label"].as_subclass(torch.Tensor)
    assert set(label_HW.unique().tolist()) <= {*range(size[1]), 255}
    # Two pixels into what came in, nothing of the image is left to blend with.
    far_HW = torch.nn.functional.max_pool2d((label_HW != 255).float()[None], 5, 1, padding=2)[0] == 0
    assert not sample["rgb"].as_subclass(torch.Tensor)[:, far_HW].any()
    assert not sample["thermal"].as_subclass(torch.Tensor)[:, far_HW].any()


@given(size=sizes, seed=seeds)
def test_rotations_by_nothing_and_by_half_a_turn(size, seed):
    frame = noise(size, seed)
    assert np.array_equal(rotate_label(frame.label_HW, 0.0), frame.label_HW)
    assert np.array_equal(rotate_label(frame.label_HW, 180.0), frame.label_HW[::-1, ::-1])
    half = rotate_image(frame.rgb_HW3, 180.0).astype(int) - frame.rgb_HW3[::-1, ::-1]
    assert np.abs(half).max() <= 1


@st.composite
def windows(draw, within=sizes) -> tuple[tuple[int, int], Window]:
    """A size and a window that lies inside of it."""
    height, width = draw(within)
    top, left = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
    return (height, width), Window(top, left, draw(st.integers(1, height - top)), draw(st.integers(1, width - left)))


@given(old=sizes, new=windows(), seed=seeds)
def test_a_window_of_a_resized_label_is_the_pixel_under_its_centre(old, new, seed):
    (size, window), label_HW = new, noise(old, seed).label_HW
    rows = [int((Fraction(2 * y + 1, 2)) * old[0] / size[0]) for y in range(window.top, window.top + window.height)]
    columns = [int(Fraction(2 * x + 1, 2) * old[1] / size[1]) for x in range(window.left, window.left + window.width)]
    expected = [[label_HW[y, x] for x in columns] for y in rows]
    assert np.array_equal(resize_label_window(label_HW, size, window), expected)


@given(old=sizes, new=windows(), seed=seeds)
def test_a_window_of_a_resized_image_is_part_of_the_whole(old, new, seed):
    size, window = new
    image_HW4 = ramps(old).rgb_HW3[..., [0, 1, 2, 0]].copy()
    part = resize_image_window(image_HW4, size, window)
    whole = resize_image_window(image_HW4, size, Window.whole(size))
    assert part.shape == (window.height, window.width, 4)
    # OpenCV 4 rounds positions to 1/32 px of a ramp, and both round to whole levels.
    assert np.abs(part.astype(int) - window.cut(whole)).max() <= 2


@given(size=sizes, seed=seeds, flip=st.booleans())
def test_a_chain_repeats_itself_from_its_seed(size, seed, flip):
    chain = build_transforms(
        [
            {"type": "HorizontalFlip", "p": float(flip)},
            {"type": "Rotation", "p": 0.5, "degrees": 30},
            {"type": "RandomResizedCrop", "size": [16, 24], "scale": [0.5, 2.0]},
        ]
    )
    frame = noise(size, seed)
    torch.manual_seed(seed)
    first = apply_transforms(to_sample(frame), chain)
    torch.manual_seed(seed)
    second = apply_transforms(to_sample(frame), chain)
    assert all(torch.equal(first[key], second[key]) for key in first)
