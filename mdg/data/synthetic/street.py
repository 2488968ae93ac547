"""The street. Label 0: sky, facades, trees, road, lamps, and the distractors that fool one sensor each. Classes curve,
guardrail and bump: parts of it, written on the ground of the ``View``.
"""

from __future__ import annotations

from typing import TypeVar

import cv2
import numpy as np

from mdg.data.synthetic.canvas import Canvas, Glow, Paint
from mdg.data.synthetic.layout import BUMP, CURVE, GUARDRAIL, Conditions, View

FAR = 0.02  # nearness at which the road is cut off
SODIUM = (255, 190, 110)
FACADES = ((150, 92, 76), (168, 158, 140), (120, 126, 138), (186, 170, 138), (104, 92, 88), (140, 148, 150))
BOARD, TROUSERS, SKIN = (236, 232, 220), (44, 46, 66), (214, 170, 140)
COATS = ((178, 44, 48), (40, 88, 170), (220, 196, 60), (230, 230, 230), (60, 130, 70))


def paint_backdrop(canvas: Canvas, view: View, conditions: Conditions, rng: np.random.Generator) -> None:
    """The street without its objects, textured."""
    _sky(canvas, conditions, rng)
    for side in (-1, 1):
        _facades(canvas, view, conditions, rng, side)
    _trees(canvas, view, conditions, rng)
    _road(canvas, view, conditions, rng)
    _texture(canvas, rng)
    _manhole(canvas, view, conditions, rng)
    _poster(canvas, view, conditions, rng)
    _lamps(canvas, view, conditions, rng)


Side = TypeVar("Side", float, np.ndarray)


def _rectangle(x0: Side, y0: Side, x1: Side, y1: Side) -> list[tuple[Side, Side]]:
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def _sky(canvas: Canvas, conditions: Conditions, rng: np.random.Generator) -> None:
    """Vertical gradient; the sky is the coldest thing a thermal camera sees."""
    top, low = np.array([[92, 146, 214], [206, 220, 232]]) + rng.integers(-24, 24, (2, 1))
    rows = np.linspace(0, 1.8, canvas.height)[:, None]
    canvas.look[:] = np.pad(np.clip(top + (low - top) * rows, 0, 255), ((0, 0), (0, 1))).astype(np.uint8)[:, None]
    canvas.heat[:] = 18 if conditions.night else 34


def _facades(canvas: Canvas, view: View, conditions: Conditions, rng: np.random.Generator, side: int) -> None:
    """Two or three house fronts on one side, lower towards the vanishing point."""
    edge = 0.0 if side < 0 else float(view.width)
    reach = abs(view.vanish_x - edge)
    cuts = np.array([0.0, *np.sort(rng.uniform(0.25, 0.7, 2)), rng.uniform(0.72, 0.92)])
    for start, stop in zip(cuts[:-1], cuts[1:], strict=True):
        x0, x1 = sorted((edge - side * start * reach, edge - side * stop * reach))
        roof = view.horizon * rng.uniform(0.0, 0.35) + view.horizon * 0.5 * start
        red, green, blue = np.add(FACADES[rng.integers(len(FACADES))], rng.integers(-18, 18)).tolist()
        heat = conditions.ground_heat + rng.uniform(-25, 5)
        canvas.polygon(_rectangle(x0, roof, x1, view.height * 0.7), Paint((red, green, blue), heat))
        _windows(canvas, (x0, roof, x1, view.horizon), heat, conditions, rng)


Box = tuple[float, float, float, float]  # left, top, right, bottom in px


def _windows(canvas: Canvas, box: Box, heat: float, conditions: Conditions, rng: np.random.Generator) -> None:
    """Window grid; at night some are lit. Now and then one is warm, to fool thermal."""
    x0, y0, x1, y1 = box
    pitch = 0.105 * canvas.height
    left, top = np.meshgrid(
        np.arange(x0 + 0.25 * pitch, x1 - 0.6 * pitch, 0.9 * pitch),
        np.arange(y0 + 0.3 * pitch, y1 - 0.6 * pitch, pitch),
    )
    x, y = left.ravel(), top.ravel()
    panes = np.stack(_rectangle(x, y, x + 0.5 * pitch, y + 0.55 * pitch)).transpose(2, 0, 1)  # [windows, 4, 2]
    canvas.polygons(panes, Paint((66, 78, 92), heat - 8))
    if conditions.night:
        canvas.polygons(panes[rng.random(len(panes)) < 0.25], Paint((255, 226, 160), heat - 8, emit=170))
    canvas.polygons(panes[rng.random(len(panes)) < 0.05], Paint((96, 92, 88), heat + 40))


def _trees(canvas: Canvas, view: View, conditions: Conditions, rng: np.random.Generator) -> None:
    """Crowns of overlapping discs around a trunk, and a hedge along the horizon."""
    heat = conditions.ground_heat - 14
    size = 0.1 * view.height
    for centre in rng.uniform(0, view.width, rng.integers(1, 4)):
        foot = view.horizon + 0.06 * view.height
        canvas.line([(centre, foot), (centre, foot - 2.6 * size)], 0.22 * size, Paint((74, 58, 44), heat + 4))
        for dx, dy in rng.uniform(-1, 1, (9, 2)):
            green = int(rng.integers(62, 116))
            disc = (centre + dx * size, foot - 3 * size + dy * size)
            radius = size * rng.uniform(0.45, 0.75)
            canvas.ellipse(disc, (radius, radius), Paint((green // 2, green, green // 3), heat + rng.uniform(-6, 6)))


def _road(canvas: Canvas, view: View, conditions: Conditions, rng: np.random.Generator) -> None:
    """Pavement below the horizon, the road's trapezoid on it, dashes along its axis."""
    base = rng.integers(-14, 14)
    pavement = Paint((int(146 + base), int(140 + base), int(132 + base)), conditions.ground_heat - 7)
    asphalt = Paint((int(84 + base), int(86 + base), int(90 + base)), conditions.ground_heat)
    canvas.polygon(_rectangle(0, view.horizon + 0.035 * view.height, view.width, view.height), pavement)
    half = view.road_half_m
    canvas.polygon([view.ground(x, n) for x, n in ((-half, FAR), (half, FAR), (half, 1.1), (-half, 1.1))], asphalt)
    white = Paint((206, 206, 200), conditions.ground_heat + 2)
    for near in (0.12, 0.22, 0.4, 0.72):
        far = near * 0.8
        canvas.polygon([view.ground(x, n) for x, n in ((-0.06, far), (0.06, far), (0.06, near), (-0.06, near))], white)


def _texture(canvas: Canvas, rng: np.random.Generator) -> None:
    """Blotches, of unrelated pattern in colour and heat."""
    luma_HW, heat_HW = _blotches(canvas, 9.0, rng), _blotches(canvas, 4.0, rng)
    no_emission_HW = np.zeros_like(luma_HW)
    canvas.look = cv2.add(canvas.look, cv2.merge([luma_HW, luma_HW, luma_HW, no_emission_HW]), dtype=cv2.CV_8U)
    canvas.heat = cv2.add(canvas.heat, heat_HW, dtype=cv2.CV_8U)


def _blotches(canvas: Canvas, strength: float, rng: np.random.Generator) -> np.ndarray:
    """[H, W] int16 noise of two scales, standard deviation about ``strength``."""
    coarse = cv2.resize(rng.normal(0, strength, (12, 16)), (64, 48))
    both = np.rint(coarse + rng.normal(0, 0.6 * strength, (48, 64))).astype(np.int16)
    return cv2.resize(both, (canvas.width, canvas.height))


def _manhole(canvas: Canvas, view: View, conditions: Conditions, rng: np.random.Generator) -> None:
    """A warm disc in thermal that RGB shows to be flat iron."""
    if rng.random() < 0.5:
        nearness = rng.uniform(0.35, 0.8)
        centre = view.ground(rng.uniform(-0.7, 0.7) * view.road_half_m, nearness)
        radius = 0.32 * view.metre(nearness)
        canvas.ellipse(centre, (radius, 0.33 * radius), Paint((62, 60, 58), conditions.ground_heat + 55))


def _poster(canvas: Canvas, view: View, conditions: Conditions, rng: np.random.Generator) -> None:
    """A printed person on a board: RGB sees a person, thermal an even board. Lit from behind at night."""
    if rng.random() > 0.4:
        return
    unit = 0.055 * view.height
    x = view.width * rng.choice((rng.uniform(0.06, 0.25), rng.uniform(0.75, 0.94)))
    foot = view.horizon + 0.5 * unit
    emit = 110 if conditions.night else 0
    heat = conditions.ground_heat - 10
    coat = COATS[rng.integers(len(COATS))]
    for half, top, bottom, rgb in ((1.5, 5.4, 0.0, BOARD), (0.7, 3.6, 1.7, coat), (0.5, 1.8, 0.2, TROUSERS)):
        box = _rectangle(x - half * unit, foot - top * unit, x + half * unit, foot - bottom * unit)
        canvas.polygon(box, Paint(rgb, heat, emit=emit))
    canvas.ellipse((x, foot - 4.3 * unit), (0.5 * unit, 0.6 * unit), Paint(SKIN, heat, emit=emit))


def _lamps(canvas: Canvas, view: View, conditions: Conditions, rng: np.random.Generator) -> None:
    """Street lamps; at night each has a halo in RGB and a hot bulb in thermal."""
    for side in (-1, 1):
        if rng.random() < 0.4:
            continue
        nearness = rng.uniform(0.15, 0.3)
        x, foot = view.ground(side * (view.road_half_m + 0.6), nearness)
        top = foot - 3.4 * view.metre(nearness)
        bulb = (x - side * 0.5 * view.metre(nearness), top)
        canvas.line([(x, foot), (x, top), bulb], 0.008 * view.height, Paint((70, 74, 78), conditions.ground_heat - 10))
        heat = conditions.ground_heat + (90 if conditions.night else 0)
        radius = 0.014 * view.height
        canvas.ellipse(bulb, (1.5 * radius, radius), Paint((250, 240, 214), heat, emit=255 if conditions.night else 0))
        if conditions.night:
            canvas.glows.append(Glow(*bulb, 0.09 * view.height, SODIUM, 0.8))


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
