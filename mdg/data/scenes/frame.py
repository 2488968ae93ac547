"""Drawing in metres around an object's foot."""

from __future__ import annotations

from typing import NamedTuple

from mdg.data.synthetic.canvas import Canvas, Paint

Point = tuple[float, float]


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
