"""From pixels to outlines, the way back of :mod:`mdg.data.annotations.raster`.

Outlines run along the edges of pixels, through whole coordinates, so that without simplification they hold exactly the
pixels that they came from. OpenCV follows the centres of border pixels; on a mask that is twice as large, half of those
centres rounded down are the edges.

Legend: H, W frame size; h, w size of a region's box; N points of a ring.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import cv2
import numpy as np


class Region(NamedTuple):
    """Pixels of one id that hang together by their sides.

    Attributes:
        id: Their id.
        top, left: Row and column of the first pixel of the box around them.
        mask_hw: bool, which pixels of the box they are.
        pixels: How many.
    """

    id: int
    top: int
    left: int
    mask_hw: np.ndarray
    pixels: int


def find_regions(mask_HW: np.ndarray, ids: Iterable[int], min_pixels: int = 1) -> list[Region]:
    """The regions of some ids, without those that are smaller than ``min_pixels``.

    By sides alone (4-connected): regions that touch at a corner would cross there, and neither would lie on top.
    """
    regions = []
    for id in ids:
        own = (mask_HW == id).astype(np.uint8)
        count, places_HW, boxes, _ = cv2.connectedComponentsWithStats(own, connectivity=4)
        for place in range(1, count):
            left, top, width, height, pixels = (int(number) for number in boxes[place])
            if pixels >= min_pixels:
                inside_hw = places_HW[top : top + height, left : left + width] == place
                regions.append(Region(id, top, left, inside_hw, pixels))
    return regions


def trace(mask_hw: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The outlines of a mask and those of its holes, each int32 [N, 2], x and y of its corners."""
    double = np.pad(mask_hw.astype(np.uint8).repeat(2, axis=0).repeat(2, axis=1), 1)
    contours, hierarchy = cv2.findContours(double, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    outlines: list[np.ndarray] = []
    holes: list[np.ndarray] = []
    for contour, links in zip(contours, [] if hierarchy is None else hierarchy[0], strict=True):
        (outlines if links[3] < 0 else holes).append(_corners(contour[:, 0] // 2))
    return outlines, holes


def _corners(ring_N2: np.ndarray) -> np.ndarray:
    """A closed ring of unit steps without what lies between its corners."""
    ring_N2 = ring_N2[np.any(ring_N2 != np.roll(ring_N2, 1, axis=0), axis=1)]
    before, after = ring_N2 - np.roll(ring_N2, 1, axis=0), np.roll(ring_N2, -1, axis=0) - ring_N2
    return ring_N2[np.any(before != after, axis=1)].astype(np.int32)


def simplify(ring_N2: np.ndarray, tolerance: float) -> np.ndarray:
    """A ring with fewer corners, none farther than ``tolerance`` pixels from it (Douglas and Peucker, 1973); as it is
    where nothing of an area would be left."""
    if tolerance <= 0:
        return ring_N2
    fewer = cv2.approxPolyDP(ring_N2.reshape(-1, 1, 2), tolerance, True)[:, 0]
    return fewer if len(fewer) >= 3 and area(fewer) > 0 else ring_N2


def area(ring_N2: np.ndarray) -> float:
    """What a ring encloses, in pixels (Gauss's formula of the shoelace)."""
    x, y = ring_N2.astype(np.float64).T
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


def split_holes(mask_hw: np.ndarray) -> list[np.ndarray]:
    """Outlines without holes that hold together exactly the pixels of a mask, which is cut through its holes."""
    rings = []
    waiting = [(0, mask_hw)]
    while waiting:
        left, piece_hw = waiting.pop()
        outlines, holes = trace(piece_hw)
        if not holes:
            rings += [ring + np.array([left, 0], np.int32) for ring in outlines]
            continue
        middles = [(int(hole[:, 0].min()) + int(hole[:, 0].max())) // 2 for hole in holes]
        cut = min(middles, key=lambda column: abs(2 * column - piece_hw.shape[1]))  # the most even halves
        waiting += [(left, piece_hw[:, :cut]), (left + cut, piece_hw[:, cut:])]
    return rings
