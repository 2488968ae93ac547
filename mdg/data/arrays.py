"""Between torch's images [C, H, W] and OpenCV's [H, W, C], copying only where the order in memory demands it.

A frame lies interleaved in memory (channels last), as OpenCV wants it, and its tensor is a view of that. Geometry puts
RGB and thermal into one image of four channels: one call then moves both by the same amounts, and OpenCV and torch have
vector code for four channels that they lack for one.

Shape suffixes: H, W are height and width in pixels, C channels, 3 and 4 the channels R, G, B and R, G, B, thermal.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torchvision import tv_tensors


def to_array(image_CHW: torch.Tensor) -> np.ndarray:
    """[H, W, C] of a uint8 image, contiguous; a view where the image lies interleaved, to be read only."""
    plain_CHW = image_CHW.as_subclass(torch.Tensor)
    array_HWC = plain_CHW.permute(1, 2, 0).numpy()
    if array_HWC.flags.c_contiguous:
        return array_HWC
    merged = cv2.merge([np.ascontiguousarray(plane_HW) for plane_HW in plain_CHW.numpy()])
    return merged.reshape(array_HWC.shape)


def to_image(array: np.ndarray) -> tv_tensors.Image:
    """The image [C, H, W] that views [H, W, C] or, for one channel, [H, W] uint8."""
    return tv_tensors.Image(torch.from_numpy(np.atleast_3d(array)).permute(2, 0, 1))


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
    grows = size is not None and size != (height, width)
    planes_4HW = np.zeros((4, *size), np.uint8) if grows else np.empty((4, height, width), np.uint8)
    cv2.split(image_HW4, [plane_HW[:height, :width] for plane_HW in planes_4HW])
    planes = torch.from_numpy(planes_4HW)
    return {"rgb": tv_tensors.Image(planes[:3]), "thermal": tv_tensors.Image(planes[3:])}
