"""Transforms of brightness and colour. Thermal is a measurement: only ThermalJitter touches it, and nothing the label.

Each does to one image of the sample, with probability ``p``, what torchvision's transform of that name does. The
functions they are made of are torchvision's definitions, computed by OpenCV: they take and give uint8 and leave their
argument alone. Results are rounded to the nearest grey level and clipped to 0..255. torchvision cuts off the fraction
instead, which darkens by half a level a step: that is why results may lie 1 level above its own. Each function states
how far it was found to be off, with OpenCV 5 and 4.10.

Shape suffixes: H, W are height and width in pixels, 3 the channels R, G, B, 4 these and a constant.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import cv2
import numpy as np
import torch

from mdg.data.transforms.chain import Sample, chance, to_array, to_image, uniform
from mdg.options.transforms import (
    ColorJitterOptions,
    GaussianBlurOptions,
    PhotometryOptions,
    SharpnessOptions,
    ThermalJitterOptions,
)
from mdg.registry import TRANSFORMS

GREY_3 = np.array([0.2989, 0.587, 0.114])  # torchvision's weights of R, G, B in grey


def adjust_brightness(rgb_HW3: np.ndarray, factor: float) -> np.ndarray:
    """``factor * rgb``; within 1 level of torchvision's ``adjust_brightness``."""
    return _mix(rgb_HW3, factor * np.eye(3))


def adjust_contrast(rgb_HW3: np.ndarray, factor: float) -> np.ndarray:
    """Moves values away from the mean grey by ``factor``; within 1 level of torchvision's ``adjust_contrast``."""
    mean = GREY_3 @ cv2.mean(rgb_HW3)[:3]
    return _mix(rgb_HW3, factor * np.eye(3), np.full(3, (1 - factor) * mean))


def adjust_saturation(rgb_HW3: np.ndarray, factor: float) -> np.ndarray:
    """Moves values away from the grey of their pixel by ``factor``; within 2 levels of ``adjust_saturation``."""
    return _mix(rgb_HW3, factor * np.eye(3) + (1 - factor) * GREY_3)


def adjust_hue(rgb_HW3: np.ndarray, turns: float) -> np.ndarray:
    """Turns the colour circle by ``turns``; within 1 level of torchvision's ``adjust_hue``."""
    hsv_HW3: np.ndarray = cv2.cvtColor(rgb_HW3.astype(np.float32), cv2.COLOR_RGB2HSV)
    hsv_HW3[..., 0] += 360 * (turns % 1)  # OpenCV wraps angles from 0 to 720 degrees, not negative ones
    return cv2.cvtColor(hsv_HW3, cv2.COLOR_HSV2RGB).round().astype(np.uint8)


def gaussian_blur(rgb_HW3: np.ndarray, kernel_size: int, sigma: float) -> np.ndarray:
    """Gaussian of ``kernel_size`` x ``kernel_size`` px, mirrored at the edges; within 1 level of torchvision's."""
    # Not cv2.GaussianBlur, which rounds its kernel so that values are up to 2 levels off.
    kernel = cv2.getGaussianKernel(kernel_size, sigma, cv2.CV_32F)
    return cv2.sepFilter2D(rgb_HW3, -1, kernel, kernel, borderType=cv2.BORDER_REFLECT_101)


def adjust_sharpness(rgb_HW3: np.ndarray, factor: float) -> np.ndarray:
    """``factor * rgb + (1 - factor) * blurred``; the outermost pixels stay as they are.

    Within 1 level of torchvision's ``adjust_sharpness`` at the factor 2. Further off at large factors, since
    torchvision rounds the blurred image before multiplying it.
    """
    kernel = np.full((3, 3), (1 - factor) / 13)
    kernel[1, 1] = factor + (1 - factor) * 5 / 13
    sharpened_HW3 = cv2.filter2D(rgb_HW3, -1, kernel)
    for edge in np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1]:
        sharpened_HW3[edge] = rgb_HW3[edge]
    return sharpened_HW3


def autocontrast(rgb_HW3: np.ndarray) -> np.ndarray:
    """Stretches each channel to 0..255, a constant one excepted; within 1 level of torchvision's ``autocontrast``."""
    lowest_3, highest_3 = np.array([cv2.minMaxLoc(plane_HW)[:2] for plane_HW in cv2.split(rgb_HW3)]).T
    constant_3 = lowest_3 == highest_3
    gain_3 = np.where(constant_3, 1, 255 / np.where(constant_3, 1, highest_3 - lowest_3))
    return _mix(rgb_HW3, np.diag(gain_3), np.where(constant_3, 0, -lowest_3 * gain_3))


def scale_levels(grey_HW: np.ndarray, gain: float, offset: float) -> np.ndarray:
    """``gain * grey + offset``; within 1 level."""
    return cv2.transform(grey_HW, np.array([[gain, offset]]))


def _mix(rgb_HW3: np.ndarray, matrix_33: np.ndarray, offset_3: np.ndarray | None = None) -> np.ndarray:
    """``matrix @ rgb + offset`` at every pixel; in OpenCV faster than a look-up table."""
    offset_3 = np.zeros(3) if offset_3 is None else offset_3
    return cv2.transform(rgb_HW3, np.column_stack([matrix_33, offset_3]))


class _RGBTransform(ABC):
    """Changes RGB with probability ``p``; thermal and label pass."""

    def __init__(self, options: PhotometryOptions):
        self.p = options.p

    def __call__(self, sample: Sample) -> Sample:
        if not chance(self.p):
            return sample
        return {**sample, "rgb": to_image(self.change(to_array(sample["rgb"])))}

    @abstractmethod
    def change(self, rgb_HW3: np.ndarray) -> np.ndarray:
        """A new image, changed; draws what it needs."""


@TRANSFORMS.register(ColorJitterOptions)
class ColorJitter(_RGBTransform):
    """Brightness, contrast, saturation and hue of RGB, in random order."""

    def __init__(self, options: ColorJitterOptions):
        super().__init__(options)
        # Change, middle and half width of the range of its factor.
        self.changes = [
            (adjust_brightness, 1.0, options.brightness),
            (adjust_contrast, 1.0, options.contrast),
            (adjust_saturation, 1.0, options.saturation),
            (adjust_hue, 0.0, options.hue),
        ]

    def change(self, rgb_HW3: np.ndarray) -> np.ndarray:
        for place in torch.randperm(len(self.changes)).tolist():
            adjust, middle, spread = self.changes[place]
            if spread:
                rgb_HW3 = adjust(rgb_HW3, uniform(middle - spread, middle + spread))
        return rgb_HW3


@TRANSFORMS.register(GaussianBlurOptions)
class GaussianBlur(_RGBTransform):
    """Blurs RGB."""

    def __init__(self, options: GaussianBlurOptions):
        super().__init__(options)
        self.kernel_size, self.sigma = options.kernel_size, options.sigma

    def change(self, rgb_HW3: np.ndarray) -> np.ndarray:
        return gaussian_blur(rgb_HW3, self.kernel_size, uniform(*self.sigma))


@TRANSFORMS.register(SharpnessOptions)
class Sharpness(_RGBTransform):
    """Sharpens RGB."""

    def __init__(self, options: SharpnessOptions):
        super().__init__(options)
        self.factor = options.factor

    def change(self, rgb_HW3: np.ndarray) -> np.ndarray:
        return adjust_sharpness(rgb_HW3, self.factor)


@TRANSFORMS.register(PhotometryOptions)
class AutoContrast(_RGBTransform):
    """Stretches each channel of RGB to the full range."""

    def change(self, rgb_HW3: np.ndarray) -> np.ndarray:
        return autocontrast(rgb_HW3)


@TRANSFORMS.register(ThermalJitterOptions)
class ThermalJitter:
    """Gain and offset of thermal, clipped to 0..255. Not part of the published recipe."""

    def __init__(self, options: ThermalJitterOptions):
        self.p, self.gain, self.offset = options.p, options.gain, options.offset

    def __call__(self, sample: Sample) -> Sample:
        if not chance(self.p):
            return sample
        gain, offset = uniform(1 - self.gain, 1 + self.gain), uniform(-self.offset, self.offset)
        thermal_HW = to_array(sample["thermal"])[..., 0]
        return {**sample, "thermal": to_image(scale_levels(thermal_HW, gain, offset))}
