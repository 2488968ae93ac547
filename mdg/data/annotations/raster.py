"""From outlines to pixels.

Coordinates are continuous, x to the right and y down, in pixels: the pixel of row r and column c covers [c, c + 1) x
[r, r + 1), as in labelme, CVAT and COCO. A pixel belongs to an outline where its centre (c + 0.5, r + 0.5) lies inside
by the even-odd rule; on an edge the left and the upper one counts. Outlines that share an edge share no pixel and leave
none between them.

Legend: H, W frame size; h, w size of a patch; N points of a ring.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

AT_ONCE = 1 << 14  # edges that are filled in one go: what is needed of memory


class Patch(NamedTuple):
    """The pixels of a shape: bool [h, w], with the row and the column of its first pixel in the frame."""

    top: int
    left: int
    mask_hw: np.ndarray

    def pixels(self) -> int:
        """How many pixels the shape has."""
        return int(self.mask_hw.sum())

    def paint(self, plane_HW: np.ndarray, value: int) -> None:
        """Sets the pixels of the shape."""
        h, w = self.mask_hw.shape
        plane_HW[self.top : self.top + h, self.left : self.left + w][self.mask_hw] = value


NONE = Patch(0, 0, np.zeros((0, 0), bool))


def fill_polygon(points_N2: np.ndarray, height: int, width: int) -> Patch:
    """The pixels inside a closed outline.

    Args:
        points_N2: float [N, 2], x and y, N >= 3; it may reach beyond the frame, of which only what is inside counts.
        height, width: Of the frame.
    """
    start, end = points_N2, np.roll(points_N2, -1, axis=0)
    first = np.ceil(np.minimum(start[:, 1], end[:, 1]) - 0.5).clip(0, height).astype(np.int64)
    last = np.ceil(np.maximum(start[:, 1], end[:, 1]) - 0.5).clip(0, height).astype(np.int64)  # not among the rows
    top, bottom = int(first.min()), int(last.max())
    left = int(np.ceil(points_N2[:, 0].min() - 0.5).clip(0, width))
    right = int(np.ceil(points_N2[:, 0].max() - 0.5).clip(0, width))
    if top >= bottom or left >= right:
        return NONE
    crossings = np.zeros((bottom - top, right - left + 1), np.int32)
    for at in range(0, len(start), AT_ONCE):
        edges = slice(at, at + AT_ONCE)
        count = last[edges] - first[edges]
        edge = np.repeat(np.arange(len(count)), count)
        row = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + first[edges][edge]
        (x0, y0), (x1, y1) = start[edges][edge].T, end[edges][edge].T
        x = x0 + (row + 0.5 - y0) / (y1 - y0) * (x1 - x0)
        column = np.ceil(x - 0.5).clip(left, right).astype(np.int64)
        np.add.at(crossings, (row - top, column - left), 1)
    return Patch(top, left, np.cumsum(crossings, axis=1)[:, :-1] % 2 == 1)


def fill_circle(x: float, y: float, radius: float, height: int, width: int) -> Patch:
    """The pixels whose centres are not farther than ``radius`` from a point."""
    rows = np.arange(max(int(y - radius), 0), min(int(y + radius) + 1, height))
    columns = np.arange(max(int(x - radius), 0), min(int(x + radius) + 1, width))
    if not len(rows) or not len(columns):
        return NONE
    inside = (rows[:, None] + 0.5 - y) ** 2 + (columns + 0.5 - x) ** 2 <= radius**2
    return Patch(int(rows[0]), int(columns[0]), inside)


def place_mask(mask_hw: np.ndarray, top: int, left: int, height: int, width: int) -> Patch:
    """A mask at a place of the frame, cut off where it reaches beyond."""
    h, w = mask_hw.shape
    rows = slice(max(-top, 0), max(min(height - top, h), 0))
    columns = slice(max(-left, 0), max(min(width - left, w), 0))
    cut = mask_hw[rows, columns].astype(bool)
    return Patch(max(top, 0), max(left, 0), cut) if cut.size else NONE


def corners(x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
    """[4, 2]: the outline of a rectangle given by two opposite corners."""
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], np.float64)
