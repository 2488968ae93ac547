"""Modalities of different sizes: refused, or resized as the configuration says, never silently.

Resizing brings two images of the *same view* to one grid. It cannot undo a parallax or another field of view; such
pairs must be registered before.

Shape suffixes: H, W are height and width in pixels, 3 the channels R, G, B.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import cv2
import numpy as np

from mdg.errors import DataError

Alignment = Literal["refuse", "rgb", "thermal", "label"]


def align(
    rgb_HW3: np.ndarray,
    thermal_HW: np.ndarray,
    label_HW: np.ndarray | None,
    rule: Alignment,
    names: Mapping[str, object],
) -> tuple[np.ndarray, np.ndarray]:
    """The two images at one size. The label is never resized.

    Args:
        rgb_HW3, thermal_HW: uint8.
        label_HW: uint8, or None for images without one.
        rule: ``refuse`` wants equal sizes; ``rgb``, ``thermal`` and ``label`` name the part whose size the images take
            (``label`` without a label: the size of RGB).
        names: File of every part ("rgb", "thermal", "label"), for the message.

    Raises:
        DataError: Sizes differ under ``refuse``, or the label does not have the size that the rule gives.
    """
    parts = {"rgb": rgb_HW3, "thermal": thermal_HW} | ({} if label_HW is None else {"label": label_HW})
    target = parts.get("rgb" if rule == "refuse" else rule, rgb_HW3).shape[:2]
    wrong = [part for part in parts if parts[part].shape[:2] != target]
    if (wrong and rule == "refuse") or "label" in wrong:
        sizes = [f"{names[part]} is {image.shape[0]}x{image.shape[1]}" for part, image in parts.items()]
        # RGB and thermal may come from one file, which is then named once.
        raise DataError(
            f"sizes (height x width) differ: {', '.join(dict.fromkeys(sizes))}; expected an aligned pair with a "
            "label of equal size. data.align: rgb, thermal or label resizes the images to the size of that part (the "
            "label is never resized); that is right only where both cameras show the same view"
        )
    return _resize(rgb_HW3, target), _resize(thermal_HW, target)


def _resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    if image.shape[:2] == size:
        return image
    shrinks = size[0] < image.shape[0] or size[1] < image.shape[1]
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
