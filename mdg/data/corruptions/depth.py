"""How far things are, guessed from the picture: a flat road below a level horizon, and what stands on it.

Nearness is the distance of the lowest row's ground over the distance, 0 at the horizon and 1 at the lower edge. Ground
gets nearer with its row; a thing is as near, all of it, as the ground at its lowest pixel. A thing is a connected
region of one class in the label. What spans more than half of the height or width of the image is no thing but ground,
wall or background, and is as near as its rows: so a label without classes, or none, leaves the rows alone.

Shape suffixes: H, W are height and width in pixels, 1 an axis of length one.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from mdg.fields import IGNORED

HORIZON = 0.4  # of the height, from above
NEAREST_M = 3.0  # distance of the ground at the lower edge: a camera 1.5 m above it, 45 degrees from top to bottom
FARTHEST_M = 80.0  # trees and houses along a street; its sky looks no different through fog from farther away
MOST_THINGS = 64  # the largest of a class; specks of a noisy label would take long and move nothing that counts
LEAST_PIXELS = 4


class Thing(NamedTuple):
    """Something upright: its nearness, the bounding box in pixels, and which pixels of the box are its own."""

    nearness: float
    left: int
    top: int
    mask_hw: np.ndarray


def row_nearness(height: int) -> np.ndarray:
    """[H, 1] float32 nearness of the ground, 0 above the horizon."""
    below_H = np.arange(height, dtype=np.float32) - horizon_row(height)
    return np.clip(below_H / max(height - 1 - horizon_row(height), 1e-6), 0, 1)[:, None]


def horizon_row(height: int) -> float:
    """Row of the horizon, in pixels."""
    return HORIZON * (height - 1)


def things(label_HW: np.ndarray) -> list[Thing]:
    """What stands on the ground, from far to near."""
    height, width = label_HW.shape
    nearness_H = row_nearness(height)[:, 0]
    found = []
    for class_id in np.flatnonzero(np.bincount(label_HW.ravel(), minlength=256)):
        if class_id == IGNORED:
            continue
        of_class_HW = (label_HW == class_id).astype(np.uint8)
        part_left, part_top, part_across, part_down = cv2.boundingRect(of_class_HW)
        part_hw = of_class_HW[part_top : part_top + part_down, part_left : part_left + part_across]
        _, regions_hw, stats, _ = cv2.connectedComponentsWithStats(part_hw)
        largest = 1 + np.argsort(-stats[1:, cv2.CC_STAT_AREA], kind="stable")[:MOST_THINGS]
        for region in largest:
            left, top, across, down, area = (int(number) for number in stats[region])
            if area >= LEAST_PIXELS and across <= width / 2 and down <= height / 2:
                mask_hw = regions_hw[top : top + down, left : left + across] == region
                top, left = top + part_top, left + part_left
                found.append(Thing(float(nearness_H[top + down - 1]), left, top, mask_hw))
    return sorted(found, key=lambda thing: thing.nearness)


def nearness_map(label_HW: np.ndarray) -> np.ndarray:
    """[H, W] float32 nearness of ground and things."""
    height, width = label_HW.shape
    map_HW = np.repeat(row_nearness(height), width, axis=1)
    for thing in things(label_HW):
        down, across = thing.mask_hw.shape
        map_HW[thing.top : thing.top + down, thing.left : thing.left + across][thing.mask_hw] = thing.nearness
    return map_HW


def distance_m(nearness: np.ndarray) -> np.ndarray:
    """Metres: ``1 / (nearness / NEAREST_M + 1 / FARTHEST_M)``, so that there is no step at the horizon."""
    return 1 / (nearness / np.float32(NEAREST_M) + np.float32(1 / FARTHEST_M))
