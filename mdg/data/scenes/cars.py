"""Class car: side and front views. Engine, wheels and lamps of a running car are hot, its body mirrors the cold sky."""

from __future__ import annotations

import numpy as np

from mdg.data.scenes.frame import Frame, Point
from mdg.data.synthetic.canvas import Glow, Paint
from mdg.data.synthetic.layout import CAR, Conditions

COLOURS = (
    (196, 36, 40),
    (240, 240, 238),
    (36, 78, 168),
    (40, 42, 46),
    (222, 178, 40),
    (150, 156, 162),
    (32, 116, 84),
)
GLASS, RUBBER, RIM, HEADLIGHT = (52, 66, 80), (24, 24, 26), (150, 150, 154), (255, 246, 226)
ENGINE_HEAT = {True: 75.0, False: 14.0}  # running, parked


def paint_car(frame: Frame, conditions: Conditions, rng: np.random.Generator) -> None:
    """One car, 3.6 m long or 1.9 m wide; lamps of a running one shine at night."""
    running = bool(rng.random() < 0.6)
    rgb = COLOURS[rng.integers(len(COLOURS))]
    draw = _front if rng.random() < 0.45 else _side
    lamps = draw(frame, conditions, rgb, ENGINE_HEAT[running])
    _headlights(frame, conditions, lamps, running)


def _body_heat(conditions: Conditions) -> float:
    return conditions.ground_heat - (16 if conditions.night else 30)


def _shade(rgb: tuple[int, int, int], factor: float) -> tuple[int, ...]:
    return tuple(min(255, int(value * factor)) for value in rgb)


def _side(frame: Frame, conditions: Conditions, rgb: tuple[int, int, int], engine: float) -> tuple[Point, ...]:
    """Side view; returns the lamps' places."""
    heat, ground = _body_heat(conditions), conditions.ground_heat
    body, glass = Paint(rgb, heat, CAR), Paint(GLASS, heat - 8, CAR)
    hood = Paint(_shade(rgb, 1.1), heat + engine, CAR)
    frame.contact_shadow(1.8, ground)
    lower = ((1.0, 0.93), (1.7, 0.8), (1.8, 0.25), (-1.8, 0.25), (-1.8, 0.82), (-1.35, 0.92))
    frame.fill(body, *lower, (-0.85, 1.45), (0.5, 1.45))
    frame.fill(glass, (-1.1, 0.95), (-0.76, 1.34), (-0.2, 1.34), (-0.2, 0.95))
    frame.fill(glass, (-0.08, 0.95), (-0.08, 1.34), (0.45, 1.34), (0.82, 0.95))
    frame.fill(hood, (0.9, 0.55), (0.98, 0.9), (1.68, 0.78), (1.76, 0.5))
    frame.box(Paint(_shade(rgb, 0.55), heat + 0.4 * engine, CAR), -1.8, 0.25, 1.8, 0.38)
    for hub in ((-1.12, 0.33), (1.12, 0.33)):
        frame.disc(Paint(RUBBER, ground + 0.6 * engine, CAR), hub, 0.34)
        frame.disc(Paint(RIM, ground + engine, CAR), hub, 0.16)
    return ((1.74, 0.66),)


def _front(frame: Frame, conditions: Conditions, rgb: tuple[int, int, int], engine: float) -> tuple[Point, ...]:
    """Seen from ahead; returns the lamps' places."""
    heat, ground = _body_heat(conditions), conditions.ground_heat
    frame.contact_shadow(1.0, ground)
    for side in (-1, 1):
        frame.box(Paint(RUBBER, ground + 0.7 * engine, CAR), side * 0.58, 0, side * 0.88, 0.5)
    left = ((-0.95, 0.22), (-0.95, 0.85), (-0.66, 1.42), (-0.5, 1.5))
    right = tuple((-x, y) for x, y in reversed(left))
    frame.fill(Paint(rgb, heat, CAR), *left, *right)
    frame.fill(Paint(GLASS, heat - 8, CAR), (-0.78, 0.92), (-0.58, 1.38), (0.58, 1.38), (0.78, 0.92))
    frame.box(Paint(_shade(rgb, 1.12), heat + engine, CAR), -0.82, 0.62, 0.82, 0.86)
    frame.box(Paint((34, 34, 38), heat + 1.2 * engine, CAR), -0.45, 0.36, 0.45, 0.58)
    return ((-0.7, 0.62), (0.7, 0.62))


def _headlights(frame: Frame, conditions: Conditions, lamps: tuple[Point, ...], running: bool) -> None:
    shining = running and conditions.night
    paint = Paint(HEADLIGHT, conditions.ground_heat + ENGINE_HEAT[running], CAR, emit=255 if shining else 0)
    for lamp in lamps:
        frame.disc(paint, lamp, 0.13, 0.11)
        if shining:
            frame.canvas.glows.append(Glow(*frame.pixel(lamp), 0.42 * frame.metre, HEADLIGHT, 0.7))
