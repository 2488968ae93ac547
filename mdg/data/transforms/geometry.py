"""Transforms that move pixels: one draw of random numbers moves RGB, thermal and label alike.

Images are interpolated bilinearly; labels take the nearest pixel, so that no id appears that was not there. Where
nothing was seen images are 0 and labels 255 (ignored).

Shape suffixes: H, W are height and width in pixels. Sizes are always [height, width].
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import torch

from mdg.data.transforms.chain import Sample, as_mask, chance, pack, to_array, to_image, uniform, unpack
from mdg.data.transforms.resampling import Window, resize_image_window, resize_label_window, rotate_image, rotate_label
from mdg.options.transforms import HorizontalFlipOptions, RandomResizedCropOptions, ResizeOptions, RotationOptions
from mdg.registry import TRANSFORMS

Move = Callable[[np.ndarray], np.ndarray]


def _moved(sample: Sample, images: Move, label: Move, size: tuple[int, int] | None = None) -> Sample:
    """The sample with ``images`` applied to RGB and thermal at once, as [H, W, 4], and ``label`` to the label [H, W].

    Args:
        size: What is missing to this size is added to the right and below, 0 in the images and 255 in the label.
    """
    label_HW = label(np.ascontiguousarray(sample["label"].as_subclass(torch.Tensor).numpy()))
    if size is not None and size != label_HW.shape:
        missing = size[0] - label_HW.shape[0], size[1] - label_HW.shape[1]
        label_HW = cv2.copyMakeBorder(label_HW, 0, missing[0], 0, missing[1], cv2.BORDER_CONSTANT, value=255)
    images_HW4 = images(pack(sample["rgb"], sample["thermal"]))
    return {**unpack(images_HW4, size), "label": as_mask(torch.from_numpy(label_HW))}


@TRANSFORMS.register(HorizontalFlipOptions)
class HorizontalFlip:
    """Mirrors left and right."""

    def __init__(self, options: HorizontalFlipOptions):
        self.p = options.p

    def __call__(self, sample: Sample) -> Sample:
        if not chance(self.p):
            return sample
        images = {key: to_image(cv2.flip(to_array(sample[key]), 1)) for key in ("rgb", "thermal")}
        label_HW = cv2.flip(sample["label"].as_subclass(torch.Tensor).numpy(), 1)
        return {**images, "label": as_mask(torch.from_numpy(label_HW))}


@TRANSFORMS.register(RotationOptions)
class Rotation:
    """Rotates within the frame; corners that come in are 0 in the images and 255 in the label."""

    def __init__(self, options: RotationOptions):
        self.degrees, self.p = options.degrees, options.p

    def __call__(self, sample: Sample) -> Sample:
        if not chance(self.p):
            return sample
        degrees = uniform(-self.degrees, self.degrees)
        return _moved(sample, lambda images: rotate_image(images, degrees), lambda label: rotate_label(label, degrees))


@TRANSFORMS.register(ResizeOptions)
class Resize:
    """Resizes to exactly ``size``; the aspect ratio changes where that of ``size`` is another."""

    def __init__(self, options: ResizeOptions):
        self.size = options.size

    def __call__(self, sample: Sample) -> Sample:
        return _resized(sample, self.size, Window.whole(self.size))


def _resized(sample: Sample, size: tuple[int, int], window: Window, final: tuple[int, int] | None = None) -> Sample:
    return _moved(
        sample,
        lambda images: resize_image_window(images, size, window),
        lambda label: resize_label_window(label, size, window),
        final,
    )


@TRANSFORMS.register(RandomResizedCropOptions)
class RandomResizedCrop:
    """Resizes by a random factor at constant aspect ratio, pads to at least ``size``, crops ``size`` at random.

    The factor is drawn uniformly from ``scale`` and is relative to the size at which the image just covers the crop:
    an image of H x W is resized by ``factor * max(height / H, width / W)``. For images of the size of the crop, as in
    the published recipe, that is the factor itself. Padding goes to the right and below.
    """

    def __init__(self, options: RandomResizedCropOptions):
        self.size, self.scale = options.size, options.scale

    def __call__(self, sample: Sample) -> Sample:
        (height, width), (old_height, old_width) = self.size, sample["label"].shape
        draws = torch.rand(3, dtype=torch.float64).tolist()
        factor = self.scale[0] + draws[0] * (self.scale[1] - self.scale[0])
        factor *= max(height / old_height, width / old_width)
        new_height, new_width = max(1, round(old_height * factor)), max(1, round(old_width * factor))
        top = int(draws[1] * (max(new_height - height, 0) + 1))
        left = int(draws[2] * (max(new_width - width, 0) + 1))
        window = Window(top, left, min(height, new_height), min(width, new_width))
        return _resized(sample, (new_height, new_width), window, final=self.size)
