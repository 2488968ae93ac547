"""Resized windows and rotations against torchvision and against definitions spelt out in float64.

Shape suffixes: H, W are height and width in pixels, 4 the channels R, G, B, thermal.
"""

from __future__ import annotations

from fractions import Fraction

import cv2
import numpy as np
import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from mdg.data.reading.images import read_uint8
from mdg.data.transforms import resampling
from mdg.data.transforms.resampling import Window, resize_image_window, resize_label_window, rotate_image, rotate_label

SIZE = (60, 80)
# OpenCV 5 computes positions in floating point; OpenCV 4 rounds them to 1/32 px.
EXACT_POSITIONS = int(cv2.__version__.split(".")[0]) >= 5
NOISE_LEVELS, PHOTO_LEVELS = (1, 1) if EXACT_POSITIONS else (8, 4)
ENLARGED = [(120, 160), (61, 81), (60, 81), (90, 120), (97, 129), (119, 158)]
SHRUNK = [(30, 40), (59, 79), (45, 60), (60, 79), (7, 100), (1, 1)]


def image(size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*size, 4), dtype=np.uint8)


def label(size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 9, size, dtype=np.uint8)


def windows(size: tuple[int, int]) -> list[Window]:
    """All of the image, each of its corners, and something within."""
    height, width = min(size[0], SIZE[0]), min(size[1], SIZE[1])
    bottom, right = size[0] - height, size[1] - width
    corners = [Window(top, left, height, width) for top in {0, bottom} for left in {0, right}]
    return [Window.whole(size), *corners, Window(bottom // 2, right // 2, max(1, height - 7), max(1, width - 13))]


def resize_whole(image_HW4: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The straightforward way: all of the image by torchvision, planes as they come from a file."""
    image_4HW = torch.from_numpy(image_HW4).permute(2, 0, 1).contiguous()
    return F.resize(image_4HW, list(size), antialias=True).permute(1, 2, 0).numpy()


def largest_difference(ours: np.ndarray, theirs: np.ndarray) -> int:
    assert ours.dtype == theirs.dtype == np.uint8 and ours.shape == theirs.shape
    return int(np.abs(ours.astype(int) - theirs).max())


@pytest.mark.parametrize("size", ENLARGED)
def test_enlarged_window_is_resize_then_crop(size):
    whole_HW4 = resize_whole(image(), size)
    for window in windows(size):
        ours = resize_image_window(image(), size, window)
        assert largest_difference(ours, window.cut(whole_HW4)) <= NOISE_LEVELS, window


@pytest.mark.parametrize("size", SHRUNK)
def test_shrunk_image_is_that_of_torchvision(size):
    whole_HW4 = resize_whole(image(), size)
    for window in windows(size):
        np.testing.assert_array_equal(resize_image_window(image(), size, window), window.cut(whole_HW4))


@pytest.mark.parametrize("size", [(120, 160), (97, 129), (61, 81)])
def test_enlarged_window_is_bilinear_interpolation(size):
    exact_4HW = torch.nn.functional.interpolate(
        torch.from_numpy(image()).permute(2, 0, 1)[None].double(), size, mode="bilinear", align_corners=False
    )[0]
    for window in windows(size):
        error = resize_image_window(image(), size, window) - window.cut(exact_4HW.permute(1, 2, 0).numpy())
        if window != Window.whole(size):  # that is torchvision's, up to 1 level off
            assert np.abs(error).max() < (0.52 if EXACT_POSITIONS else NOISE_LEVELS) and abs(error.mean()) < 0.05


@pytest.mark.parametrize("size, top, left", [((720, 961), 240, 321), ((913, 1217), 77, 500), ((366, 488), 0, 0)])
def test_window_of_a_real_frame(size, top, left, mfnet_mini):
    window = Window(top, left, min(480, size[0]), min(640, size[1]))
    for file in sorted((mfnet_mini / "images").iterdir())[:3]:
        photo_HW4 = read_uint8(file)
        ours, theirs = resize_image_window(photo_HW4, size, window), window.cut(resize_whole(photo_HW4, size))
        assert largest_difference(ours, theirs) <= PHOTO_LEVELS


def test_same_size_is_the_same_image():
    np.testing.assert_array_equal(resize_image_window(image(), SIZE, Window.whole(SIZE)), image())
    np.testing.assert_array_equal(resize_image_window(image(), SIZE, Window(3, 5, 20, 30)), image()[3:23, 5:35])
    np.testing.assert_array_equal(resize_label_window(label(), SIZE, Window(3, 5, 20, 30)), label()[3:23, 5:35])


def test_enlarging_computes_the_window_only(monkeypatch):
    def refuse(*_):
        raise AssertionError("the whole image was resized")

    monkeypatch.setattr(resampling, "resize_image", refuse)
    assert resize_image_window(image(), (120, 160), Window(13, 17, *SIZE)).shape == (*SIZE, 4)


@pytest.mark.parametrize("size", [*ENLARGED, *SHRUNK, (480, 3)])
def test_label_takes_the_nearest_pixel_centre(size):
    rows, columns = (
        np.array([int((place + Fraction(1, 2)) * old / new) for place in range(new)])
        for old, new in zip(SIZE, size, strict=True)
    )
    expected_HW = label()[rows][:, columns]
    for window in windows(size):
        ours = resize_label_window(label(), size, window)
        assert ours.dtype == np.uint8 and ours.flags.c_contiguous
        np.testing.assert_array_equal(ours, window.cut(expected_HW))
    whole_1HW = F.resize(torch.from_numpy(label())[None], list(size), interpolation=InterpolationMode.NEAREST_EXACT)
    # torchvision's float32 may fall to the other side where a centre lies halfway between two pixels.
    assert (whole_1HW[0].numpy() != expected_HW).mean() < 0.01


@pytest.mark.parametrize("degrees", [-25.0, -3.3, 0.0, 0.01, 10.0, 90.0, 180.0])
def test_image_is_rotated_as_by_torchvision(degrees):
    image_4HW = torch.from_numpy(image()).permute(2, 0, 1)
    # fill=None, not 0: with a fill torchvision multiplies what blends into it by its weight twice.
    theirs = F.rotate(image_4HW, degrees, interpolation=InterpolationMode.BILINEAR, fill=None).permute(1, 2, 0).numpy()
    assert largest_difference(rotate_image(image(), degrees), theirs) <= NOISE_LEVELS


@pytest.mark.parametrize("degrees", [-25.0, -3.3, 0.0, 10.0, 180.0])
def test_label_is_rotated_to_the_nearest_pixel(degrees):
    ours = rotate_label(label(), degrees)
    (height, width), angle = SIZE, np.deg2rad(degrees)
    y_HW, x_HW = np.mgrid[:height, :width] - np.array([(height - 1) / 2, (width - 1) / 2])[:, None, None]
    x_old = np.cos(angle) * x_HW - np.sin(angle) * y_HW + (width - 1) / 2
    y_old = np.sin(angle) * x_HW + np.cos(angle) * y_HW + (height - 1) / 2
    column, row = np.rint(x_old).astype(int), np.rint(y_old).astype(int)
    seen = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    expected = np.where(seen, label()[row.clip(0, height - 1), column.clip(0, width - 1)], 255)
    # Halfway between two pixels rounding may go either way.
    halfway = (np.abs(np.abs(x_old - column) - 0.5) < 0.01) | (np.abs(np.abs(y_old - row) - 0.5) < 0.01)
    assert halfway.mean() < 0.06
    np.testing.assert_array_equal(ours[~halfway], expected[~halfway])
    theirs = F.rotate(torch.from_numpy(label())[None], degrees, fill=255)[0].numpy()
    np.testing.assert_array_equal(ours[~halfway], theirs[~halfway])
