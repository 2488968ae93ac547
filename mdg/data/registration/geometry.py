"""Plane projective maps between images. Pixel centres lie at whole numbers, as in OpenCV; points are (x, y).

A matrix ``M`` maps a point by ``(u, v, w) = M (x, y, 1)``, ``x' = u / w``, ``y' = v / w``.

Legend: N points, H, W height and width in pixels, P parameters of a model.
"""

from __future__ import annotations

import numpy as np

Size = tuple[int, int]  # height, width
PARAMETERS = {"similarity": 4, "affine": 6, "homography": 8}
GRID = 9  # points along a side of the grid on which displacements are measured


def transform(matrix_33: np.ndarray, points_N2: np.ndarray) -> np.ndarray:
    """The points mapped, ``[N, 2]`` float64; what lies at infinity or behind the image becomes NaN."""
    mapped_N3 = np.column_stack([points_N2, np.ones(len(points_N2))]) @ matrix_33.T
    in_front_N1 = np.where(mapped_N3[:, 2:] > 1e-12, mapped_N3[:, 2:], np.nan)
    return mapped_N3[:, :2] / in_front_N1


def resizing(source: Size, target: Size) -> np.ndarray:
    """``[3, 3]``: pixels of an image to those of the same image resized, as OpenCV resizes (edges stay edges)."""
    y, x = target[0] / source[0], target[1] / source[1]
    return np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2], [0, 0, 1]])


def for_sizes(matrix_33: np.ndarray, known: tuple[Size, Size], wanted: tuple[Size, Size]) -> np.ndarray:
    """The map between two images after each was resized.

    Args:
        matrix_33: From the first image to the second.
        known: Sizes of the two images that ``matrix_33`` belongs to.
        wanted: Their other sizes.
    """
    return normal(resizing(known[1], wanted[1]) @ matrix_33 @ resizing(wanted[0], known[0]))


def normal(matrix_33: np.ndarray) -> np.ndarray:
    """The matrix with 1 in its last place."""
    return matrix_33 / matrix_33[2, 2]


def similarity(
    scale: float, degrees: float, shift: tuple[float, float], source: tuple[float, float], target: tuple[float, float]
) -> np.ndarray:
    """``[3, 3]``: turns by ``degrees`` (from x towards y) and scales about the point ``source``, which arrives at
    ``target`` plus ``shift``."""
    angle = np.deg2rad(degrees)
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    x, y = target[0] + shift[0], target[1] + shift[1]
    return np.array(
        [
            [cos, -sin, x - cos * source[0] + sin * source[1]],
            [sin, cos, y - sin * source[0] - cos * source[1]],
            [0, 0, 1],
        ]
    )


def centre(size: Size) -> tuple[float, float]:
    """(x, y) of the middle of an image."""
    return (size[1] - 1) / 2, (size[0] - 1) / 2


def grid(size: Size, side: int = GRID) -> np.ndarray:
    """``[side * side, 2]``: points evenly over an image, corners included."""
    ys, xs = np.meshgrid(np.linspace(0, size[0] - 1, side), np.linspace(0, size[1] - 1, side), indexing="ij")
    return np.column_stack([xs.ravel(), ys.ravel()])


def visible(matrix_33: np.ndarray, source: Size, target: Size) -> np.ndarray:
    """``[N, 2]``: the points of the target's grid that the source image covers."""
    points_N2 = grid(target, 2 * GRID - 1)
    found_N2 = transform(np.linalg.inv(matrix_33), points_N2)
    with np.errstate(invalid="ignore"):
        inside_N = ((found_N2 >= 0) & (found_N2 <= np.array(source[::-1]) - 1)).all(axis=1)
    return points_N2[inside_N]


def distance(one_33: np.ndarray, other_33: np.ndarray, source: Size, target: Size) -> float:
    """Mean distance in pixels of the target between where two maps bring one point of the source, over the points that
    ``one_33`` brings into the target; infinity where there are none or the other map breaks up."""
    points_N2 = visible(one_33, source, target)
    if not len(points_N2):
        return float("inf")
    moved_N2 = transform(other_33, transform(np.linalg.inv(one_33), points_N2))
    away = np.linalg.norm(moved_N2 - points_N2, axis=1)
    return float(away.mean()) if np.isfinite(away).all() else float("inf")


def sane(matrix_33: np.ndarray, source: Size, target: Size) -> bool:
    """Whether a map keeps the source in one piece: no fold, no mirror image, nowhere scaled beyond reason."""
    points_N2 = grid(source)
    matrix = normal(matrix_33)
    mapped_N3 = np.column_stack([points_N2, np.ones(len(points_N2))]) @ matrix.T
    if not np.isfinite(matrix).all() or (mapped_N3[:, 2] <= 0.2).any() or (mapped_N3[:, 2] >= 5).any():
        return False
    # The Jacobian determinant of a homography at a point is det(M) / w^3.
    areas_N = np.linalg.det(matrix) / mapped_N3[:, 2] ** 3
    expected = target[0] * target[1] / (source[0] * source[1])
    return bool((areas_N > expected / 30).all() and (areas_N < expected * 30).all())
