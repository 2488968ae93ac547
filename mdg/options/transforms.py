"""Options of the augmentation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from mdg.fields import Size
from mdg.registry import TRANSFORMS, Options

Factor = Annotated[float, Field(gt=0, le=16)]


class HorizontalFlipOptions(Options):
    """How often."""

    p: float = Field(0.5, ge=0, le=1)
    """Probability."""


class RotationOptions(Options):
    """How often and how far."""

    degrees: float = Field(10.0, ge=0, le=180)
    """Angle uniform in -degrees .. degrees, about the centre."""
    p: float = Field(0.2, ge=0, le=1)
    """Probability."""


class ResizeOptions(Options):
    """Size to resize to."""

    size: Size
    """[height, width] in pixels."""


class RandomResizedCropOptions(Options):
    """Size of the crop and range of the scale."""

    size: Size
    """[height, width] of the crop in pixels."""
    scale: tuple[Factor, Factor] = (0.5, 2.0)
    """Range of the factor; at 1 the image just covers the crop, below it is padded, above it is cut."""

    @field_validator("scale")
    @classmethod
    def _check_order(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] > value[1]:
            raise ValueError("expected [smallest, largest]")
        return value


class PhotometryOptions(Options):
    """How often."""

    p: float = Field(0.2, ge=0, le=1)
    """Probability."""


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


class SharpnessOptions(PhotometryOptions):
    """Strength."""

    factor: float = Field(2.0, ge=0, le=10)
    """0 blurs, 1 changes nothing, 2 doubles the sharpness."""


class ThermalJitterOptions(PhotometryOptions):
    """Ranges of gain and offset, as a camera with another calibration would have them."""

    gain: float = Field(0.1, ge=0, le=1)
    """Factor uniform in 1 - gain .. 1 + gain."""
    offset: float = Field(10.0, ge=0, le=255)
    """Grey levels added, uniform in -offset .. offset."""


Severity = Annotated[float, Field(ge=0, le=5)]


class CorruptionOptions(Options):
    """How often and how badly (docs/robustness.md has a picture and the strengths of each)."""

    p: float = Field(0.2, ge=0, le=1)
    """Probability."""
    severity: tuple[Severity, Severity] = (1.0, 3.0)
    """Range of the severity; 0 changes nothing, 5 is the worst."""

    @field_validator("severity")
    @classmethod
    def _check_order(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] > value[1]:
            raise ValueError("expected [lowest, highest]")
        return value


class CameraCorruptionOptions(CorruptionOptions):
    """How often, how badly, and to which camera (docs/robustness.md has a picture and the strengths of each)."""

    camera: Literal["rgb", "thermal"] = "rgb"
    """The camera it happens to."""


class ReversedPolarityOptions(CorruptionOptions):
    """How often: `p` times the share of the severity, which is all at 5."""

    severity: tuple[Severity, Severity] = (5.0, 5.0)
    """Range of the severity; 1 reverses a fifth of the frames, 5 every one."""


TRANSFORMS.declare(
    HorizontalFlip=HorizontalFlipOptions,
    Rotation=RotationOptions,
    Resize=ResizeOptions,
    RandomResizedCrop=RandomResizedCropOptions,
    ColorJitter=ColorJitterOptions,
    GaussianBlur=GaussianBlurOptions,
    Sharpness=SharpnessOptions,
    AutoContrast=PhotometryOptions,
    ThermalJitter=ThermalJitterOptions,
    MissingBlack=CameraCorruptionOptions,
    MissingMean=CameraCorruptionOptions,
    Darkness=CorruptionOptions,
    Glare=CorruptionOptions,
    Overexposure=CorruptionOptions,
    Fog=CorruptionOptions,
    Rain=CorruptionOptions,
    Snow=CorruptionOptions,
    MotionBlur=CameraCorruptionOptions,
    Defocus=CameraCorruptionOptions,
    SensorNoise=CorruptionOptions,
    JPEG=CameraCorruptionOptions,
    LowContrast=CameraCorruptionOptions,
    ThermalNoise=CorruptionOptions,
    ThermalOffset=CorruptionOptions,
    ThermalDrift=CorruptionOptions,
    FixedPattern=CorruptionOptions,
    DeadPixels=CorruptionOptions,
    DeadRows=CorruptionOptions,
    ShutterFrame=CorruptionOptions,
    ReversedPolarity=ReversedPolarityOptions,
    OtherScaling=CorruptionOptions,
    TimeLag=CorruptionOptions,
    ThermalShift=CorruptionOptions,
    ThermalRotation=CorruptionOptions,
    ThermalScale=CorruptionOptions,
    Parallax=CorruptionOptions,
)
