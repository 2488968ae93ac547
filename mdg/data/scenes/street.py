"""Classes curve, guardrail and bump: parts of the street, written on the ground of the ``View``."""

from __future__ import annotations

import numpy as np

from mdg.data.synthetic.canvas import Canvas, Paint
from mdg.data.synthetic.layout import BUMP, CURVE, GUARDRAIL, Conditions, View

BUMP_STRIPES = 10
YELLOW, BLACK = (232, 190, 36), (36, 34, 32)


def paint_street_class(canvas: Canvas, view: View, kind: int, conditions: Conditions, rng: np.random.Generator) -> None:
    """Paint kerb, guardrail or bump."""
    _PAINTERS[kind](canvas, view, conditions, rng)


def _strip(canvas: Canvas, view: View, x_m: tuple[float, float], span: tuple[float, float], paint: Paint) -> None:
    """Ground between two lines parallel to the road; ``span`` is (far, near) nearness."""
    (left, right), (far, near) = x_m, span
    canvas.polygon([view.ground(x, n) for x, n in ((left, far), (right, far), (right, near), (left, near))], paint)


def _curve(canvas: Canvas, view: View, conditions: Conditions, rng: np.random.Generator) -> None:
    """Kerb stones along one edge of the road: darker face, light top, at ground temperature."""
    side = int(rng.choice((-1, 1)))
    heat = conditions.ambient(rng)
    span = (rng.uniform(0.14, 0.22), rng.uniform(0.85, 1.1))
    edge = view.road_half_m
    _strip(canvas, view, (side * edge, side * (edge + 0.12)), span, Paint((120, 116, 108), heat, CURVE))
    _strip(canvas, view, (side * (edge + 0.1), side * (edge + 0.34)), span, Paint((226, 222, 208), heat, CURVE))


def _guardrail(canvas: Canvas, view: View, conditions: Conditions, rng: np.random.Generator) -> None:
    """Two rails on posts beside the road. The label fills the gap between the rails, as MFNet has it."""
    x_m = int(rng.choice((-1, 1))) * (view.road_half_m + rng.uniform(0.5, 0.8))
    heat = conditions.ground_heat - (32 if conditions.night else 18)
    far, near = rng.uniform(0.16, 0.24), rng.uniform(0.6, 0.9)

    def point(nearness: float, height_m: float) -> tuple[float, float]:
        x, y = view.ground(x_m, nearness)
        return x, y - height_m * view.metre(nearness)

    for nearness in np.geomspace(far, near, 6):
        post = [point(nearness, 0.0), point(nearness, 0.75)]
        canvas.line(post, 0.1 * view.metre(nearness), Paint((150, 154, 158), heat, GUARDRAIL))
    gap = Paint((96, 102, 106), conditions.ground_heat - 8, GUARDRAIL)
    steel = Paint((212, 216, 218), heat, GUARDRAIL)
    for low, high, paint in ((0.3, 0.8, gap), (0.3, 0.48, steel), (0.6, 0.8, steel)):
        canvas.polygon([point(far, low), point(far, high), point(near, high), point(near, low)], paint)


def _bump(canvas: Canvas, view: View, conditions: Conditions, rng: np.random.Generator) -> None:
    """Speed bump: a band across the road, striped yellow and black, at ground temperature."""
    far = rng.uniform(0.36, 0.62)
    span = (far, far * rng.uniform(1.2, 1.3))
    heat = conditions.ambient(rng)
    edges = np.linspace(-0.97, 0.97, BUMP_STRIPES + 1) * view.road_half_m
    for number in range(BUMP_STRIPES):
        rgb = YELLOW if number % 2 else BLACK
        _strip(canvas, view, (edges[number], edges[number + 1]), span, Paint(rgb, heat, BUMP))


_PAINTERS = {CURVE: _curve, GUARDRAIL: _guardrail, BUMP: _bump}
