"""A picture by which a person judges a rig: edges of heat on the photograph, and both in turn as on a chessboard."""

from __future__ import annotations

import cv2
import numpy as np

from mdg.data.registration.rig_file import map_views, thermal_on_rgb
from mdg.options.rig import Rig
from mdg.utils import visualization as vis

SQUARES = 8  # along the longer side
WIDTH = 640  # pixels of each picture
EDGE = (255, 60, 0)
ROWS = 4


def draw_preview(rig: Rig, rgb: dict[str, np.ndarray], thermal: dict[str, np.ndarray]) -> np.ndarray:
    """A row for each of a few pairs, ``[H, W, 3]`` uint8.

    Args:
        rig: That warps.
        rgb, thermal: Images by name of their pair, ``[H, W, 3]`` and ``[H, W]`` uint8.
    """
    names = list(rgb)
    places = np.unique(np.linspace(0, len(names) - 1, min(ROWS, len(names))).round().astype(int))
    return vis.stack([_row(names[place], rig, rgb[names[place]], thermal[names[place]]) for place in places])


def _row(name: str, rig: Rig, rgb_HW3: np.ndarray, thermal_HW: np.ndarray) -> np.ndarray:
    mapping = map_views(rig, rgb_HW3.shape[:2], thermal_HW.shape[:2])
    size = (WIDTH, round(rgb_HW3.shape[0] * WIDTH / rgb_HW3.shape[1]))
    warped_HW = thermal_on_rgb(thermal_HW, mapping)
    seen = cv2.resize(mapping.seen_HW.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
    photo, heat = (cv2.resize(image, size, interpolation=cv2.INTER_AREA) for image in (rgb_HW3, warped_HW))
    lit = vis.grey(np.clip(40 + 0.8 * cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY), 0, 255).astype(np.uint8))
    lit[_edges(heat) & cv2.erode(seen.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool)] = EDGE
    ys, xs = np.mgrid[: size[1], : size[0]] // (WIDTH // SQUARES)
    chess = np.where((((ys + xs) % 2 == 1) & seen)[..., None], vis.grey(heat), photo)
    return vis.panel([(f"{name}: edges of thermal on RGB", lit), ("RGB and thermal in turn", chess)], size[1])


def _edges(image_HW: np.ndarray) -> np.ndarray:
    smooth = cv2.GaussianBlur(image_HW, (0, 0), 1.2)
    x, y = (cv2.Sobel(smooth, cv2.CV_16S, *order) for order in ((1, 0), (0, 1)))
    strength = np.abs(x.astype(np.int32)) + np.abs(y.astype(np.int32))
    high = max(int(np.percentile(strength, 93)), 30)
    return cv2.Canny(x, y, high / 2, high) > 0
