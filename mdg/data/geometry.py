"""Transforms that move pixels: one draw of random numbers moves RGB, thermal and label alike.

Images are interpolated bilinearly; labels take the nearest pixel, so that no id appears that was not there. Where
nothing was seen images are 0 and labels 255 (ignored).

Shape suffixes: H, W are height and width in pixels. Sizes are always [height, width].
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field, field_validator
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F

from mdg.data.pipeline import Size
from mdg.data.transforms import Sample
from mdg.registry import TRANSFORMS, Options

FILL = {tv_tensors.Image: 0, tv_tensors.Mask: 255}
Factor = Annotated[float, Field(gt=0, le=16)]


def resize_image(image: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Bilinear with antialiasing: [..., H, W] uint8 to [..., *size]."""
    return F.resize(image, list(size), interpolation=InterpolationMode.BILINEAR, antialias=True)


def resize_label(label_HW: torch.Tensor, size: tuple[int, int]) -> tv_tensors.Mask:
    """Nearest pixel centre: [H, W] ids to ``size``.

    torchvision's own kernel for masks takes the pixel nearest to the corner, half a pixel off the images.
    """
    plain_1HW = label_HW.as_subclass(torch.Tensor)[None]
    return tv_tensors.Mask(F.resize(plain_1HW, list(size), interpolation=InterpolationMode.NEAREST_EXACT)[0])


def _resize(sample: Sample, size: tuple[int, int]) -> Sample:
    return {
        "rgb": resize_image(sample["rgb"], size),
        "thermal": resize_image(sample["thermal"], size),
        "label": resize_label(sample["label"], size),
    }


class HorizontalFlipOptions(Options):
    """How often."""

    p: float = Field(0.5, ge=0, le=1)
    """Probability."""


@TRANSFORMS.register(HorizontalFlipOptions)
class HorizontalFlip:
    """Mirrors left and right."""

    def __init__(self, p: float = 0.5):
        self.transform = v2.RandomHorizontalFlip(p)

    def __call__(self, sample: Sample) -> Sample:
        return self.transform(sample)


class RotationOptions(Options):
    """How often and how far."""

    degrees: float = Field(10.0, ge=0, le=180)
    """Angle uniform in -degrees .. degrees, about the centre."""
    p: float = Field(0.2, ge=0, le=1)
    """Probability."""


@TRANSFORMS.register(RotationOptions)
class Rotation:
    """Rotates within the frame; corners that come in are 0 in the images and 255 in the label."""

    def __init__(self, degrees: float = 10.0, p: float = 0.2):
        rotation = v2.RandomRotation(degrees, interpolation=InterpolationMode.BILINEAR, fill=FILL)
        self.transform = v2.RandomApply([rotation], p)

    def __call__(self, sample: Sample) -> Sample:
        return self.transform(sample)


class ResizeOptions(Options):
    """Size to resize to."""

    size: Size
    """[height, width] in pixels."""


@TRANSFORMS.register(ResizeOptions)
class Resize:
    """Resizes to exactly ``size``; the aspect ratio changes where that of ``size`` is another."""

    def __init__(self, size: tuple[int, int]):
        self.size = size

    def __call__(self, sample: Sample) -> Sample:
        return _resize(sample, self.size)


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


@TRANSFORMS.register(RandomResizedCropOptions)
class RandomResizedCrop:
    """Resizes by a random factor at constant aspect ratio, pads to at least ``size``, crops ``size`` at random.

    The factor is drawn uniformly from ``scale`` and is relative to the size at which the image just covers the crop:
    an image of H x W is resized by ``factor * max(height / H, width / W)``. For images of the size of the crop, as in
    the published recipe, that is the factor itself. Padding goes to the right and below.
    """

    def __init__(self, size: tuple[int, int], scale: tuple[float, float] = (0.5, 2.0)):
        self.size, self.scale = size, scale

    def __call__(self, sample: Sample) -> Sample:
        (height, width), (old_height, old_width) = self.size, sample["label"].shape
        draws = torch.rand(3, dtype=torch.float64).tolist()
        factor = self.scale[0] + draws[0] * (self.scale[1] - self.scale[0])
        factor *= max(height / old_height, width / old_width)
        new_height, new_width = max(1, round(old_height * factor)), max(1, round(old_width * factor))
        resized = _resize(sample, (new_height, new_width))
        top = int(draws[1] * (max(new_height - height, 0) + 1))
        left = int(draws[2] * (max(new_width - width, 0) + 1))
        return {key: _window(part, top, left, height, width) for key, part in resized.items()}


def _window(part: torch.Tensor, top: int, left: int, height: int, width: int) -> torch.Tensor:
    cropped = F.crop(part, top, left, min(height, part.shape[-2]), min(width, part.shape[-1]))
    missing = [0, 0, width - cropped.shape[-1], height - cropped.shape[-2]]  # left, top, right, bottom
    return F.pad(cropped, missing, fill=FILL[type(part)]) if any(missing) else cropped
