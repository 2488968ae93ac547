"""Transforms of brightness and colour. Thermal is a measurement: only ThermalJitter touches it, and nothing the label.

Each does to one image of the sample, with probability ``p``, what torchvision's transform of that name does.

Shape suffixes: H, W are height and width in pixels, 3 the channels R, G, B.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated

import numpy as np
import torch
from pydantic import Field, field_validator

from mdg.data import colour
from mdg.data.arrays import to_array, to_image
from mdg.data.transforms.chain import Sample, chance, uniform
from mdg.registry import TRANSFORMS, Options


class PhotometryOptions(Options):
    """How often."""

    p: float = Field(0.2, ge=0, le=1)
    """Probability."""


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


class ColorJitterOptions(PhotometryOptions):
    """Ranges of the factors; 0 leaves a property alone."""

    brightness: float = Field(0.5, ge=0, le=1)
    """Factor uniform in 1 - brightness .. 1 + brightness."""
    contrast: float = Field(0.5, ge=0, le=1)
    """Factor uniform in 1 - contrast .. 1 + contrast."""
    saturation: float = Field(0.5, ge=0, le=1)
    """Factor uniform in 1 - saturation .. 1 + saturation."""
    hue: float = Field(0.0, ge=0, le=0.5)
    """Shift uniform in -hue .. hue, in turns of the colour circle."""


@TRANSFORMS.register(ColorJitterOptions)
class ColorJitter(_RGBTransform):
    """Brightness, contrast, saturation and hue of RGB, in random order."""

    def __init__(self, options: ColorJitterOptions):
        super().__init__(options)
        # Change, middle and half width of the range of its factor.
        self.changes = [
            (colour.adjust_brightness, 1.0, options.brightness),
            (colour.adjust_contrast, 1.0, options.contrast),
            (colour.adjust_saturation, 1.0, options.saturation),
            (colour.adjust_hue, 0.0, options.hue),
        ]

    def change(self, rgb_HW3: np.ndarray) -> np.ndarray:
        for place in torch.randperm(len(self.changes)).tolist():
            adjust, middle, spread = self.changes[place]
            if spread:
                rgb_HW3 = adjust(rgb_HW3, uniform(middle - spread, middle + spread))
        return rgb_HW3


Sigma = Annotated[float, Field(gt=0, le=100)]


class GaussianBlurOptions(PhotometryOptions):
    """Kernel of the blur."""

    kernel_size: int = Field(3, ge=1, le=99)
    """Side of the kernel in pixels, odd."""
    sigma: tuple[Sigma, Sigma] = (0.1, 2.0)
    """Range of the standard deviation in pixels."""

    @field_validator("kernel_size")
    @classmethod
    def _check_odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError(f"expected an odd number, such as {value + 1}")
        return value

    @field_validator("sigma")
    @classmethod
    def _check_order(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] > value[1]:
            raise ValueError("expected [smallest, largest]")
        return value


@TRANSFORMS.register(GaussianBlurOptions)
class GaussianBlur(_RGBTransform):
    """Blurs RGB."""

    def __init__(self, options: GaussianBlurOptions):
        super().__init__(options)
        self.kernel_size, self.sigma = options.kernel_size, options.sigma

    def change(self, rgb_HW3: np.ndarray) -> np.ndarray:
        return colour.gaussian_blur(rgb_HW3, self.kernel_size, uniform(*self.sigma))


class SharpnessOptions(PhotometryOptions):
    """Strength."""

    factor: float = Field(2.0, ge=0, le=10)
    """0 blurs, 1 changes nothing, 2 doubles the sharpness."""


@TRANSFORMS.register(SharpnessOptions)
class Sharpness(_RGBTransform):
    """Sharpens RGB."""

    def __init__(self, options: SharpnessOptions):
        super().__init__(options)
        self.factor = options.factor

    def change(self, rgb_HW3: np.ndarray) -> np.ndarray:
        return colour.adjust_sharpness(rgb_HW3, self.factor)


@TRANSFORMS.register(PhotometryOptions)
class AutoContrast(_RGBTransform):
    """Stretches each channel of RGB to the full range."""

    def change(self, rgb_HW3: np.ndarray) -> np.ndarray:
        return colour.autocontrast(rgb_HW3)


class ThermalJitterOptions(PhotometryOptions):
    """Ranges of gain and offset, as a camera with another calibration would have them."""

    gain: float = Field(0.1, ge=0, le=1)
    """Factor uniform in 1 - gain .. 1 + gain."""
    offset: float = Field(10.0, ge=0, le=255)
    """Grey levels added, uniform in -offset .. offset."""


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
        return {**sample, "thermal": to_image(colour.scale_levels(thermal_HW, gain, offset))}
