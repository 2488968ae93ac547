"""Changes of colour against torchvision's functions of the same names, and against their formulas in float64.

Shape suffixes: H, W are height and width in pixels, 3 the channels R, G, B.
"""

from __future__ import annotations

from functools import partial

import cv2
import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as F

from mdg.data.reading.images import read_uint8
from mdg.data.transforms import photometry

GREY_3 = np.array([0.2989, 0.587, 0.114])
FACTORS = [0.0, 0.5, 1.0, 1.27, 2.0]
# Name, arguments, and how many grey levels torchvision may be away.
CASES = [
    *[("adjust_brightness", (factor,), 1) for factor in FACTORS],
    *[("adjust_contrast", (factor,), 1) for factor in FACTORS],
    *[("adjust_saturation", (factor,), 2) for factor in FACTORS],
    *[("adjust_hue", (turns,), 1) for turns in (-0.5, -0.2, 0.05, 0.33, 0.5)],
    *[("gaussian_blur", args, 1) for args in ((3, 0.1), (3, 0.7), (3, 2.0), (5, 1.0), (15, 4.0), (31, 100.0))],
    *[("adjust_sharpness", (factor,), 1) for factor in (0.0, 0.5, 1.0, 2.0)],
    ("autocontrast", (), 1),
]


def noise(low: int = 0, high: int = 256) -> np.ndarray:
    return np.random.default_rng(0).integers(low, high, (60, 80, 3), dtype=np.uint8)


def ramps() -> np.ndarray:
    y_HW, x_HW = np.mgrid[:60, :80]
    return np.dstack([3 * x_HW, 4 * y_HW, 255 - 3 * x_HW]).astype(np.uint8)


IMAGES = {
    "noise": noise(),
    "dark noise": noise(0, 60),
    "black and white": ((noise() > 127) * 255).astype(np.uint8),
    "ramps": ramps(),
    "one constant channel": noise(30, 220) * np.array([1, 0, 1], np.uint8) + np.array([0, 77, 0], np.uint8),
    "one colour": np.full((60, 80, 3), (10, 200, 90), np.uint8),
    "two pixels": noise()[:1, :2].copy(),
}


def difference(name: str, args: tuple, rgb_HW3: np.ndarray) -> int:
    rgb_3HW = torch.from_numpy(rgb_HW3.copy()).permute(2, 0, 1)
    theirs = (
        F.gaussian_blur(rgb_3HW, [args[0]] * 2, [args[1]] * 2)
        if name == "gaussian_blur"
        else getattr(F, name)(rgb_3HW, *args)
    )
    before = rgb_HW3.copy()
    ours_HW3 = getattr(photometry, name)(rgb_HW3, *args)
    assert ours_HW3.dtype == np.uint8 and ours_HW3.shape == rgb_HW3.shape
    np.testing.assert_array_equal(rgb_HW3, before)  # the argument is left alone
    return int(np.abs(ours_HW3.astype(int) - theirs.permute(1, 2, 0).numpy()).max())


@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize("name, args, levels", CASES)
def test_as_torchvision(name, args, levels, image):
    if name == "gaussian_blur" and image == "two pixels":
        return  # torchvision cannot mirror an image smaller than the kernel
    assert difference(name, args, IMAGES[image]) <= levels


def test_as_torchvision_on_real_frames(mfnet_mini):
    files = sorted((mfnet_mini / "images").iterdir())
    for file in (files[0], files[-1]):
        rgb_HW3 = np.ascontiguousarray(read_uint8(file)[..., 2::-1])
        off = {(name, *args): difference(name, args, rgb_HW3) - levels for name, args, levels in CASES}
        assert not {case: levels for case, levels in off.items() if levels > 0}


def grey_of(rgb_HW3: np.ndarray) -> np.ndarray:
    return (rgb_HW3 @ GREY_3)[..., None]


@pytest.mark.parametrize("factor", [0.53, 0.77, 1.31, 1.47])
def test_linear_changes_round_to_the_nearest_level(factor):
    rgb_HW3 = noise()
    mean = grey_of(rgb_HW3).mean()
    exact = {
        "adjust_brightness": factor * rgb_HW3,
        "adjust_contrast": factor * rgb_HW3 + (1 - factor) * mean,
        "adjust_saturation": factor * rgb_HW3 + (1 - factor) * grey_of(rgb_HW3),
    }
    for name, values in exact.items():
        error = getattr(photometry, name)(rgb_HW3, factor) - np.clip(values, 0, 255)
        assert np.abs(error).max() < 1 and abs(error.mean()) < 0.15, name  # cutting off would give a mean of -0.5


@pytest.mark.parametrize("factor", [0.0, 0.5, 3.0, 10.0])
def test_sharpness_of_the_unrounded_blur(factor):
    rgb_HW3 = noise(100, 130)
    kernel = np.ones((3, 3)) / 13
    kernel[1, 1] = 5 / 13
    blurred = cv2.filter2D(rgb_HW3.astype(np.float64), -1, kernel)
    exact = np.clip(factor * rgb_HW3 + (1 - factor) * blurred, 0, 255)
    ours = photometry.adjust_sharpness(rgb_HW3, factor)
    assert np.abs(ours - exact)[1:-1, 1:-1].max() < 1
    frame = np.ones(rgb_HW3.shape[:2], bool)
    frame[1:-1, 1:-1] = False
    np.testing.assert_array_equal(ours[frame], rgb_HW3[frame])


def test_autocontrast_reaches_black_and_white():
    stretched = photometry.autocontrast(IMAGES["one constant channel"])
    assert stretched.reshape(-1, 3).min(axis=0).tolist() == [0, 77, 0]
    assert stretched.reshape(-1, 3).max(axis=0).tolist() == [255, 77, 255]
    np.testing.assert_array_equal(photometry.autocontrast(stretched), stretched)


@pytest.mark.parametrize("gain, offset", [(1.0, 0.0), (1.1, -7.3), (0.9, 9.9), (2.0, 255.0), (0.0, 0.0)])
def test_levels_are_scaled_and_clipped(gain, offset):
    grey_HW = np.arange(256, dtype=np.uint8).reshape(16, 16)
    error = photometry.scale_levels(grey_HW, gain, offset) - np.clip(gain * grey_HW + offset, 0, 255)
    assert error.shape == (16, 16) and np.abs(error).max() < 1


@pytest.mark.parametrize(
    "change",
    [
        partial(photometry.adjust_brightness, factor=1),
        partial(photometry.adjust_contrast, factor=1),
        partial(photometry.adjust_saturation, factor=1),
        partial(photometry.adjust_sharpness, factor=1),
        partial(photometry.adjust_hue, turns=0),
        partial(photometry.gaussian_blur, kernel_size=1, sigma=1),
    ],
)
def test_nothing_changes_at_the_neutral_factor(change):
    np.testing.assert_array_equal(change(noise()), noise())
