"""Resampling of images and labels: resized windows and rotations, for images of up to four channels.

Images are interpolated bilinearly, antialiased where they shrink. Labels take the id of the nearest pixel centre.

Shape suffixes: H, W are height and width in pixels, C channels. Sizes are always [height, width].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch


class Window(NamedTuple):
    """A rectangle of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int

    @classmethod
    def whole(cls, size: tuple[int, int]) -> Window:
        """All of an image of ``size``."""
        return cls(0, 0, *size)

    def cut(self, array: np.ndarray) -> np.ndarray:
        """View of the window in [H, W] or [H, W, C]."""
        return array[self.top : self.top + self.height, self.left : self.left + self.width]


def resize_image(image: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Bilinear with antialiasing: [..., H, W] uint8 to [..., *size]. Fastest where the channels lie interleaved."""
    from torchvision.transforms import InterpolationMode  # slow to import, see as_image in chain.py
    from torchvision.transforms.v2 import functional as F

    return F.resize(image, list(size), interpolation=InterpolationMode.BILINEAR, antialias=True)


def resize_image_window(image_HWC: np.ndarray, size: tuple[int, int], window: Window) -> np.ndarray:
    """What ``window`` shows of the image [H, W, C] after resizing it to ``size``.

    Where the image is enlarged only the window is computed, by OpenCV: within 1 grey level of torchvision's resizing of
    the whole. (OpenCV 4 rounds positions to 1/32 px: up to 4 levels off in photographs, 8 in noise.) Where it shrinks,
    or is wanted whole, this is torchvision's antialiased resizing, bit by bit.
    """
    old_size = image_HWC.shape[:2]
    if size == old_size:
        return window.cut(image_HWC)
    if window == Window.whole(size) or size[0] < old_size[0] or size[1] < old_size[1]:
        resized_CHW = resize_image(torch.from_numpy(image_HWC).permute(2, 0, 1), size)
        return window.cut(resized_CHW.permute(1, 2, 0).numpy())
    step_y, step_x = old_size[0] / size[0], old_size[1] / size[1]
    # Pixel centres lie at half pixels: the centre x + 0.5 of the enlarged image shows (x + 0.5) * step of the old one.
    to_old_23 = np.array(
        [
            [step_x, 0, (window.left + 0.5) * step_x - 0.5],
            [0, step_y, (window.top + 0.5) * step_y - 0.5],
        ]
    )
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(
        image_HWC, to_old_23, (window.width, window.height), flags=flags, borderMode=cv2.BORDER_REPLICATE
    )


def resize_label_window(label_HW: np.ndarray, size: tuple[int, int], window: Window) -> np.ndarray:
    """What ``window`` shows of the label [H, W] after resizing it to ``size``; exact, a new array.

    torchvision's own kernel for masks takes the pixel nearest to the corner, half a pixel off the images.
    """
    rows = _nearest(label_HW.shape[0], size[0], window.top, window.height)
    columns = _nearest(label_HW.shape[1], size[1], window.left, window.width)
    # Columns first, out of the rows that are needed: half the work of the other order where the label is enlarged.
    return label_HW[rows[0] : rows[-1] + 1].take(columns, axis=1).take(rows - rows[0], axis=0)


def _nearest(old: int, new: int, start: int, count: int) -> np.ndarray:
    # floor((x + 0.5) * old / new) without the rounding of floating-point numbers
    return (2 * np.arange(start, start + count) + 1) * old // (2 * new)


def rotate_image(image_HWC: np.ndarray, degrees: float) -> np.ndarray:
    """Rotates counter-clockwise about the centre, bilinearly; 0 comes in.

    Within 1 grey level of torchvision's ``rotate`` (OpenCV 4: 7, on noise); only where the image blends into what comes
    in do they differ by more, since torchvision weights it twice there.
    """
    return _rotate(image_HWC, degrees, cv2.INTER_LINEAR, 0)


def rotate_label(label_HW: np.ndarray, degrees: float) -> np.ndarray:
    """Rotates ids as :func:`rotate_image` does images, to the nearest pixel; 255 comes in."""
    return _rotate(label_HW, degrees, cv2.INTER_NEAREST, 255)


def _rotate(array: np.ndarray, degrees: float, interpolation: int, fill: int) -> np.ndarray:
    height, width = array.shape[:2]
    matrix_23 = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1)
    return cv2.warpAffine(array, matrix_23, (width, height), flags=interpolation, borderValue=(fill,) * 4)
