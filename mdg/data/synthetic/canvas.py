"""The drawing surface of a scene, before any camera looks at it, and drawing in metres around an object's foot.

Legend: H, W image size in pixels; N number of points; colours are RGB 0..255; heat is apparent temperature 0..255.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import cv2
import numpy as np

SUBPIXEL_BITS = 4
Point = tuple[float, float]
Points = Sequence[Point] | np.ndarray  # [N, 2]
MIN_STROKE = 2.0  # px; thinner lines vanish in the sensors' blur while the label keeps them


class Paint(NamedTuple):
    """Surface of a shape. ``emit`` (0..255) is light it gives off by itself; ``label`` None keeps the label below."""

    rgb: tuple[int, int, int]
    heat: float
    label: int | None = None
    emit: int = 0


class Glow(NamedTuple):
    """A halo in the RGB camera only: centre and radius in px, colour, and strength (1 saturates the centre)."""

    x: float
    y: float
    radius: float
    rgb: tuple[int, int, int]
    strength: float


@dataclass
class Canvas:
    """Planes of equal size: ``look`` [H, W, 4] uint8 (RGB, emission), ``heat`` and ``label`` [H, W] uint8."""

    height: int
    width: int
    glows: list[Glow] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.look: np.ndarray = np.zeros((self.height, self.width, 4), np.uint8)
        self.heat: np.ndarray = np.zeros((self.height, self.width), np.uint8)
        self.label: np.ndarray = np.zeros((self.height, self.width), np.uint8)

    def polygon(self, points_N2: Points, paint: Paint) -> None:
        """Fill a polygon given in (x, y) px."""
        self.polygons([points_N2], paint)

    def polygons(self, outlines: Iterable[Points], paint: Paint) -> None:
        """Fill several polygons that do not overlap, in one call."""
        corners = [_fixed_point(points_N2) for points_N2 in outlines]
        for plane, value, edge in self._planes(paint):
            cv2.fillPoly(plane, corners, value, edge, SUBPIXEL_BITS)

    def line(self, points_N2: Points, width: float, paint: Paint) -> None:
        """Stroke an open polyline; ``width`` in px is raised to ``MIN_STROKE``."""
        path = [_fixed_point(points_N2)]
        stroke = round(max(width, MIN_STROKE))
        for plane, value, edge in self._planes(paint):
            cv2.polylines(plane, path, False, value, stroke, edge, SUBPIXEL_BITS)

    def ellipse(self, centre: Point, radii: tuple[float, float], paint: Paint, stroke: float | None = None) -> None:
        """Fill an axis-parallel ellipse, or draw its outline when ``stroke`` (px) is given."""
        centre_fixed = tuple(int(v) for v in _fixed_point([centre])[0])
        radii_fixed = tuple(int(v) for v in _fixed_point([radii])[0])
        thickness = -1 if stroke is None else max(1, round(stroke))
        for plane, value, edge in self._planes(paint):
            cv2.ellipse(plane, centre_fixed, radii_fixed, 0, 0, 360, value, thickness, edge, SUBPIXEL_BITS)

    def _planes(self, paint: Paint) -> Iterator[tuple[np.ndarray, tuple[int, ...] | float, int]]:
        """Yield (plane, value, line type); only the label is never antialiased."""
        yield self.look, (*paint.rgb, paint.emit), cv2.LINE_AA
        yield self.heat, min(max(float(paint.heat), 0.0), 255.0), cv2.LINE_AA
        if paint.label is not None:
            yield self.label, paint.label, cv2.LINE_8


def _fixed_point(points_N2: Points) -> np.ndarray:
    """(x, y) px -> int32 in units of 1 / 2**SUBPIXEL_BITS px, as OpenCV's ``shift`` wants them."""
    return np.rint(np.asarray(points_N2, np.float64) * (1 << SUBPIXEL_BITS)).astype(np.int32)


class Frame(NamedTuple):
    """A canvas seen from one object: x metres to the right of its foot, y metres up.

    ``x`` and ``y`` are the foot in px, ``metre`` the scale in px; ``facing`` is 1 or -1 and mirrors x.
    """

    canvas: Canvas
    x: float
    y: float
    metre: float
    facing: int = 1

    def pixel(self, point: Point) -> Point:
        """Metres -> px."""
        return self.x + self.facing * point[0] * self.metre, self.y - point[1] * self.metre

    def fill(self, paint: Paint, *points: Point) -> None:
        """Filled polygon."""
        self.canvas.polygon([self.pixel(point) for point in points], paint)

    def box(self, paint: Paint, x0: float, y0: float, x1: float, y1: float) -> None:
        """Filled upright rectangle."""
        self.fill(paint, (x0, y0), (x1, y0), (x1, y1), (x0, y1))

    def stroke(self, paint: Paint, width: float, *points: Point) -> None:
        """Open polyline, ``width`` in metres."""
        self.canvas.line([self.pixel(point) for point in points], width * self.metre, paint)

    def disc(self, paint: Paint, centre: Point, radius_x: float, radius_y: float | None = None) -> None:
        """Filled ellipse; a circle without ``radius_y``."""
        radii = (radius_x * self.metre, (radius_y or radius_x) * self.metre)
        self.canvas.ellipse(self.pixel(centre), radii, paint)

    def ring(self, paint: Paint, centre: Point, radius: float, width: float) -> None:
        """Circle outline, ``width`` in metres."""
        size = radius * self.metre
        self.canvas.ellipse(self.pixel(centre), (size, size), paint, stroke=width * self.metre)

    def contact_shadow(self, half_width: float, ground_heat: float) -> None:
        """Darkened ground under the object; it keeps the label below."""
        self.disc(Paint((42, 42, 46), ground_heat - 2), (0, 0), half_width, 0.09)
