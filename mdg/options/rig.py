"""A rig: two cameras that are fixed to each other, and where a pixel of one lies in the other."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, FiniteFloat, NonNegativeFloat

from mdg.fields import Count, Size
from mdg.registry import Options

Row = tuple[FiniteFloat, FiniteFloat, FiniteFloat]
Matrix = tuple[Row, Row, Row]
Model = Literal["similarity", "affine", "homography"]
DISTORTIONS = (4, 5, 8, 12, 14)  # numbers of coefficients that OpenCV knows


def _known_count(coefficients: tuple[float, ...]) -> tuple[float, ...]:
    if len(coefficients) not in DISTORTIONS:
        raise ValueError(f"got {len(coefficients)} coefficients, expected {', '.join(map(str, DISTORTIONS))}")
    return coefficients


def _invertible(matrix: Matrix) -> Matrix:
    (a, b, c), (d, e, f), (g, h, i) = matrix
    if not abs(a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)) > 1e-12:
        raise ValueError("expected a matrix that can be inverted: this one brings an image onto a line or a point")
    return matrix


def _pinhole(matrix: Matrix) -> Matrix:
    (x, _, _), (skew, y, _), (left, up, one) = matrix
    if not (x > 0 and y > 0 and skew == left == up == 0 and one == 1):
        raise ValueError("expected [[fx, 0, cx], [0, fy, cy], [0, 0, 1]] with focal lengths above 0, in pixels")
    return matrix


class Lens(Options):
    """What a calibration with OpenCV found of a camera, in pixels of its full image."""

    camera_matrix: Annotated[Matrix, AfterValidator(_pinhole)]
    """[[fx, 0, cx], [0, fy, cy], [0, 0, 1]]."""
    distortion: Annotated[tuple[FiniteFloat, ...], AfterValidator(_known_count)]
    """k1, k2, p1, p2 and so on, as OpenCV orders them."""


class Rig(Options):
    """How thermal pixels come onto the grid of RGB. `tools/register.py` writes it."""

    thermal_to_rgb: Annotated[Matrix, AfterValidator(_invertible)]
    """Maps a pixel (x, y, 1) of the thermal image to RGB: divide the result by its third number. Pixel centres lie at
    whole numbers. Where there are lenses it maps what they would show without distortion."""
    thermal_size: Size
    """[height, width] of the thermal images it belongs to."""
    rgb_size: Size
    """[height, width] of the RGB images it belongs to."""
    thermal_lens: Lens | None = None
    """Distortion of the thermal camera."""
    rgb_lens: Lens | None = None
    """Distortion of the RGB camera."""
    model: Model = "homography"
    """What the matrix was allowed to be."""
    found_by: Literal["edges", "points", "hand"] = "hand"
    """What it was found by."""
    pairs: Count | None = None
    """How many pairs it was found from."""
    expected_error: NonNegativeFloat | None = None
    """Pixels of RGB by which it may be wrong, on the average of the view that both cameras share."""
