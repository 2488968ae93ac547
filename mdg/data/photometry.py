"""Transforms of brightness and colour. Thermal is a measurement: only ThermalJitter touches it, and nothing the label.

Each is torchvision's transform of that name, applied to one image of the sample with probability ``p``.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field, field_validator
from torchvision import tv_tensors
from torchvision.transforms import v2

from mdg.data.transforms import Sample
from mdg.registry import TRANSFORMS, Options


class PhotometryOptions(Options):
    """How often."""

    p: float = Field(0.2, ge=0, le=1)
    """Probability."""


class _RGBTransform:
    """Applies a torchvision transform to RGB with probability ``p``; thermal and label pass."""

    def __init__(self, transform: v2.Transform, p: float):
        self.transform = v2.RandomApply([transform], p)

    def __call__(self, sample: Sample) -> Sample:
        return {**sample, "rgb": self.transform(sample["rgb"])}


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

    def __init__(
        self, p: float = 0.2, brightness: float = 0.5, contrast: float = 0.5, saturation: float = 0.5, hue: float = 0.0
    ):
        super().__init__(v2.ColorJitter(brightness, contrast, saturation, hue), p)


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

    def __init__(self, p: float = 0.2, kernel_size: int = 3, sigma: tuple[float, float] = (0.1, 2.0)):
        super().__init__(v2.GaussianBlur(kernel_size, sigma), p)


class SharpnessOptions(PhotometryOptions):
    """Strength."""

    factor: float = Field(2.0, ge=0, le=10)
    """0 blurs, 1 changes nothing, 2 doubles the sharpness."""


@TRANSFORMS.register(SharpnessOptions)
class Sharpness(_RGBTransform):
    """Sharpens RGB."""

    def __init__(self, p: float = 0.2, factor: float = 2.0):
        super().__init__(v2.RandomAdjustSharpness(factor, p=1.0), p)


@TRANSFORMS.register(PhotometryOptions)
class AutoContrast(_RGBTransform):
    """Stretches each channel of RGB to the full range."""

    def __init__(self, p: float = 0.2):
        super().__init__(v2.RandomAutocontrast(p=1.0), p)


class ThermalJitterOptions(PhotometryOptions):
    """Ranges of gain and offset, as a camera with another calibration would have them."""

    gain: float = Field(0.1, ge=0, le=1)
    """Factor uniform in 1 - gain .. 1 + gain."""
    offset: float = Field(10.0, ge=0, le=255)
    """Grey levels added, uniform in -offset .. offset."""


@TRANSFORMS.register(ThermalJitterOptions)
class ThermalJitter:
    """Gain and offset of thermal, clipped to 0..255. Not part of the published recipe."""

    def __init__(self, p: float = 0.2, gain: float = 0.1, offset: float = 10.0):
        self.p, self.gain, self.offset = p, gain, offset

    def __call__(self, sample: Sample) -> Sample:
        if torch.rand(1) >= self.p:
            return sample
        gain, offset = (torch.rand(2) * 2 - 1) * torch.tensor([self.gain, self.offset])
        thermal_1HW = sample["thermal"].as_subclass(torch.Tensor).float() * (1 + gain) + offset
        return {**sample, "thermal": tv_tensors.Image(thermal_1HW.round().clamp(0, 255).to(torch.uint8))}
