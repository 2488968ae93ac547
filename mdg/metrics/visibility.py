"""Which modality shows an object: measured on the images, so that it holds for any data set.

An object is a connected region of one class other than the background. A modality shows it where a grey level, or the
level of one colour channel, tells its pixels from those around it: the best rule of a single level is right with a
chance of ``(1 + v) / 2``, ``v`` the total variation distance of the two histograms.

Legend: H, W image size; C channels.
"""

from __future__ import annotations

import cv2
import numpy as np

SHOWN_IN = ("objects in RGB only", "objects in thermal only", "objects in both", "objects in neither")
UNJUDGED, NO_OBJECT = 254, 255
SHOWN = 0.5  # total variation distance: one level is right on three of four pixels
MIN_PIXELS = 20  # of an object and of what surrounds it; histograms of fewer say nothing
SMOOTHING = 6.0  # grey levels; sensor noise and few pixels would make histograms differ that are alike


def visibility(
    rgb_HW3: np.ndarray,
    thermal_HW: np.ndarray,
    label_HW: np.ndarray,
    background: int | None = 0,
    ignored: int = 255,
) -> np.ndarray:
    """What shows every object.

    Args:
        rgb_HW3: uint8.
        thermal_HW: uint8.
        label_HW: uint8 class ids.
        background: Class that is no object, if there is one.
        ignored: Id of pixels that belong to nothing.

    Returns:
        uint8 ``[H, W]``: the place in :data:`SHOWN_IN`; 254 for objects that are too small or have nothing around them,
        255 for what is no object.
    """
    kinds_HW = np.full(label_HW.shape, UNJUDGED, np.uint8)
    kinds_HW[(label_HW == ignored) | (label_HW == (ignored if background is None else background))] = NO_OBJECT
    for k in np.unique(label_HW):
        if k in (background, ignored):
            continue
        _, regions_HW, stats, _ = cv2.connectedComponentsWithStats((label_HW == k).astype(np.uint8), connectivity=8)
        for region, (left, top, width, height, pixels) in enumerate(stats[1:], start=1):
            margin = max(2, round(pixels**0.5 / 4))
            rows = slice(max(top - margin, 0), top + height + margin)
            columns = slice(max(left - margin, 0), left + width + margin)
            object_hw = regions_HW[rows, columns] == region
            grown_hw = cv2.dilate(object_hw.astype(np.uint8), np.ones((2 * margin + 1, 2 * margin + 1), np.uint8)) > 0
            around_hw = grown_hw & (label_HW[rows, columns] != k) & (label_HW[rows, columns] != ignored)
            if pixels < MIN_PIXELS or np.count_nonzero(around_hw) < MIN_PIXELS:
                continue
            planes = [rgb_HW3[rows, columns], thermal_HW[rows, columns, None]]
            in_rgb, in_thermal = (_contrast(plane, object_hw, around_hw) >= SHOWN for plane in planes)
            kind = {(True, False): 0, (False, True): 1, (True, True): 2, (False, False): 3}[in_rgb, in_thermal]
            kinds_HW[rows, columns][object_hw] = kind
    return kinds_HW


def _contrast(image_HWC: np.ndarray, object_HW: np.ndarray, around_HW: np.ndarray) -> float:
    """The largest total variation distance of a channel, in [0, 1]."""
    inside_NC, outside_MC = image_HWC[object_HW], image_HWC[around_HW]
    return max(
        0.5 * float(np.abs(_histogram(inside_N) - _histogram(outside_M)).sum())
        for inside_N, outside_M in zip(inside_NC.T, outside_MC.T, strict=True)
    )


def _histogram(levels_N: np.ndarray) -> np.ndarray:
    counts = np.bincount(levels_N, minlength=256).astype(np.float64)
    smooth = cv2.GaussianBlur(counts[None], (0, 0), SMOOTHING, borderType=cv2.BORDER_REFLECT)[0]
    return smooth / smooth.sum()
