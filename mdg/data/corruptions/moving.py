"""Thermal as seen from elsewhere: moved as a whole, or as a ground with things that stand on it.

Thermal is interpolated bilinearly, and 0 where nothing was seen.

Shape suffixes: H, W are height and width in pixels, h, w those of a part, 1 an axis of length one, 23 a matrix that
maps (x, y, 1) to (x, y).
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from mdg.data.corruptions.depth import Thing, things


def shifted(thermal_HW: np.ndarray, right: float, down: float) -> np.ndarray:
    """Moved by so many pixels."""
    return _warped(thermal_HW, np.array([[1.0, 0.0, right], [0.0, 1.0, down]]))


def turned(thermal_HW: np.ndarray, degrees: float, scale: float) -> np.ndarray:
    """Turned counter-clockwise and enlarged about the centre."""
    height, width = thermal_HW.shape
    return _warped(thermal_HW, cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, scale))


def _warped(thermal_HW: np.ndarray, matrix_23: np.ndarray) -> np.ndarray:
    return cv2.warpAffine(thermal_HW, matrix_23, thermal_HW.shape[::-1], flags=cv2.INTER_LINEAR)


def grid(size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """x and y of every pixel, [H, W] float32 each."""
    y_HW, x_HW = np.indices(size, dtype=np.float32)
    return x_HW, y_HW


def seen_from_elsewhere(
    thermal_HW: np.ndarray,
    label_HW: np.ndarray,
    ground: tuple[np.ndarray, np.ndarray],
    place_of: Callable[[float], np.ndarray],
    *,
    border: int,
) -> np.ndarray:
    """The ground from its new places, and over it the things at theirs, near ones last.

    Args:
        thermal_HW, label_HW: uint8; the label says what are things.
        ground: [H, W] float32 x and y, where each pixel of the new picture lies in the old one.
        place_of: From the nearness of a thing to the [2, 3] matrix that maps its old places to new ones.
        border: How the ground continues beyond the picture, as OpenCV counts.
    """
    found = things(label_HW)
    bare_HW = _without(thermal_HW, found)
    seen_HW = cv2.remap(bare_HW, *ground, cv2.INTER_LINEAR, borderMode=border)
    for thing in found:
        _put(seen_HW, thermal_HW, thing, place_of(thing.nearness))
    return seen_HW


def _without(thermal_HW: np.ndarray, found: list[Thing]) -> np.ndarray:
    """Where things are, the row's nearest pixel to the left that is none, or to the right where there is none."""
    if not found:
        return thermal_HW
    covered_HW = np.zeros(thermal_HW.shape, np.uint8)
    for thing in found:
        down, across = thing.mask_hw.shape
        covered_HW[thing.top : thing.top + down, thing.left : thing.left + across] |= thing.mask_hw
    # Pixels at the edge of a thing hold some of its heat.
    covered_HW = cv2.dilate(covered_HW, np.ones((3, 3), np.uint8))
    columns_W = np.arange(thermal_HW.shape[1], dtype=np.int32)
    left_HW = np.maximum.accumulate(np.where(covered_HW, np.int32(-1), columns_W), axis=1)
    first_H1 = np.argmin(covered_HW, axis=1)[:, None]
    return np.take_along_axis(thermal_HW, np.where(left_HW < 0, first_H1, left_HW), axis=1)


def _put(seen_HW: np.ndarray, thermal_HW: np.ndarray, thing: Thing, matrix_23: np.ndarray) -> None:
    """Writes a thing of the old picture at its new place into the new one."""
    (height, width), (down, across) = seen_HW.shape, thing.mask_hw.shape
    corners = np.array([[thing.left - 1, thing.top - 1, 1], [thing.left + across, thing.top + down, 1]]).T
    (x_low, x_high), (y_low, y_high) = matrix_23 @ corners
    left, right = max(0, int(np.floor(x_low))), min(width, int(np.ceil(x_high)) + 1)
    top, bottom = max(0, int(np.floor(y_low))), min(height, int(np.ceil(y_high)) + 1)
    if left >= right or top >= bottom:
        return
    to_box = matrix_23.copy()
    to_box[:, 2] -= (left, top)
    size = (right - left, bottom - top)
    heat_hw = cv2.warpAffine(thermal_HW, to_box, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    from_mask = to_box @ np.array([[1, 0, thing.left], [0, 1, thing.top], [0, 0, 1]])
    mask_hw = cv2.warpAffine(thing.mask_hw.astype(np.uint8), from_mask, size, flags=cv2.INTER_NEAREST)
    cv2.copyTo(heat_hw, mask_hw, seen_HW[top:bottom, left:right])
