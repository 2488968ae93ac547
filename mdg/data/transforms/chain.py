"""Samples, the chain of transforms over them, and the two orders in which their images lie in memory.

A sample is ``{"rgb": Image [3, H, W], "thermal": Image [1, H, W], "label": Mask [H, W]}``, torchvision tv_tensors of
uint8. A transform is a callable from sample to sample, registered in ``TRANSFORMS``. Geometry moves all three parts
alike (``geometry.py``); photometry changes one of the two images (``photometry.py``).

A transform draws random numbers from torch's default CPU generator and from nowhere else: it is seeded per sample, and
that is what makes augmentation independent of the number of loader processes. It never writes into the tensors it was
given.

RGB may lie in memory in any order. A frame lies interleaved (channels last), as OpenCV wants it, and its tensor is a
view of that; copies are made only where the order demands them. Geometry puts RGB and thermal into one image of four
channels: one call then moves both by the same amounts, and OpenCV and torch have vector code for four channels that
they lack for one.

Shape suffixes: H, W are height and width in pixels, C channels, 3 and 4 the channels R, G, B and R, G, B, thermal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch

from mdg.data.base import Frame
from mdg.errors import DataError
from mdg.registry import TRANSFORMS

if TYPE_CHECKING:
    from torchvision import tv_tensors


def to_array(image_CHW: torch.Tensor) -> np.ndarray:
    """[H, W, C] of a uint8 image, contiguous; a view where the image lies interleaved, to be read only."""
    plain_CHW = image_CHW.as_subclass(torch.Tensor)
    array_HWC = plain_CHW.permute(1, 2, 0).numpy()
    if array_HWC.flags.c_contiguous:
        return array_HWC
    merged = cv2.merge([np.ascontiguousarray(plane_HW) for plane_HW in plain_CHW.numpy()])
    return merged.reshape(array_HWC.shape)


def as_image(planes_CHW: torch.Tensor) -> tv_tensors.Image:
    """A plain tensor as an image of a sample."""
    from torchvision import tv_tensors  # saves a second where no image is augmented

    return tv_tensors.Image(planes_CHW)


def as_mask(label_HW: torch.Tensor) -> tv_tensors.Mask:
    """A plain tensor as the label of a sample."""
    from torchvision import tv_tensors  # see as_image

    return tv_tensors.Mask(label_HW)


def to_image(array: np.ndarray) -> tv_tensors.Image:
    """The image [C, H, W] that views [H, W, C] or, for one channel, [H, W] uint8."""
    return as_image(torch.from_numpy(np.atleast_3d(array)).permute(2, 0, 1))


def to_planes(image_CHW: torch.Tensor) -> torch.Tensor:
    """The image as a plain tensor, contiguous channel by channel, as batches are."""
    plain_CHW = image_CHW.as_subclass(torch.Tensor)
    if plain_CHW.is_contiguous():
        return plain_CHW
    planes_CHW = np.empty(plain_CHW.shape, np.uint8)
    cv2.split(to_array(plain_CHW), list(planes_CHW))  # six times as fast as torch's copy
    return torch.from_numpy(planes_CHW)


def pack(rgb_3HW: torch.Tensor, thermal_1HW: torch.Tensor) -> np.ndarray:
    """RGB and thermal as one new array [H, W, 4]."""
    thermal_HW = to_array(thermal_1HW)[..., 0]
    if rgb_3HW.is_contiguous():
        return cv2.merge([*rgb_3HW.as_subclass(torch.Tensor).numpy(), thermal_HW])
    image_HW4 = cv2.cvtColor(to_array(rgb_3HW), cv2.COLOR_RGB2RGBA)
    cv2.insertChannel(thermal_HW, image_HW4, 3)
    return image_HW4


def unpack(image_HW4: np.ndarray, size: tuple[int, int] | None = None) -> dict[str, tv_tensors.Image]:
    """``rgb`` and ``thermal`` of a packed image, continued with 0 to the right and below up to ``size``."""
    height, width = image_HW4.shape[:2]
    size = size or (height, width)
    planes_4HW = np.empty((4, *size), np.uint8) if size == (height, width) else np.zeros((4, *size), np.uint8)
    cv2.split(image_HW4, [plane_HW[:height, :width] for plane_HW in planes_4HW])
    planes = torch.from_numpy(planes_4HW)
    return {"rgb": as_image(planes[:3]), "thermal": as_image(planes[3:])}


Sample = dict[str, torch.Tensor]
Transform = Callable[[Sample], Sample]


def to_sample(frame: Frame) -> Sample:
    """The frame as a sample; copies, so that nothing a transform does can reach the data set."""
    return {
        "rgb": to_image(np.array(frame.rgb_HW3, order="C")),
        "thermal": to_image(np.array(frame.thermal_HW, order="C")),
        "label": as_mask(torch.from_numpy(np.array(frame.label_HW, order="C"))),
    }


def chance(p: float) -> bool:
    """True with probability ``p``."""
    return torch.rand(1).item() < p


def uniform(low: float, high: float) -> float:
    """A number drawn uniformly from ``low`` to ``high``."""
    return low + (high - low) * torch.rand(1, dtype=torch.float64).item()


def build_transforms(options: Sequence[Any]) -> list[Transform]:
    """Builds the transforms of ``pipeline.train``, to be applied in this order."""
    import torchvision  # noqa: F401  (once here, not in every loader process)

    return [TRANSFORMS.create(item) for item in options]


def apply_transforms(sample: Sample, transforms: Sequence[Transform]) -> Sample:
    """Applies the chain.

    Raises:
        DataError: A transform returned something that is no sample. Arithmetic on a tv_tensor gives a plain tensor,
            which the geometry after it would silently leave where it was.
    """
    from torchvision import tv_tensors  # see as_image

    kinds = {"rgb": tv_tensors.Image, "thermal": tv_tensors.Image, "label": tv_tensors.Mask}
    for transform in transforms:
        sample = transform(sample)
        for key, kind in kinds.items():
            part = sample.get(key)
            if not isinstance(part, kind) or part.dtype != torch.uint8 or part.shape[-2:] != sample["rgb"].shape[-2:]:
                got = f"{type(part).__name__} {getattr(part, 'dtype', '')} {list(getattr(part, 'shape', ()))}"
                raise DataError(
                    f"transform {type(transform).__name__}: returned '{key}' as {got}; expected a "
                    f"tv_tensors.{kind.__name__} of uint8 with the height and width of the other parts: "
                    f"wrap results as tv_tensors.{kind.__name__}(...)"
                )
    return sample
