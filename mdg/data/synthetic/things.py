"""Standing objects, written in metres around their foot: classes person, bike, car, car_stop and color_cone.

Engine, wheels and lamps of a running car are hot, its body mirrors the cold sky.
"""

from __future__ import annotations

import numpy as np

from mdg.data.synthetic.canvas import Canvas, Frame, Glow, Paint, Point
from mdg.data.synthetic.layout import BIKE, CAR, CAR_STOP, COLOR_CONE, PERSON, Conditions, Placement, View

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


def _shade(rgb: tuple[int, int, int], factor: float) -> tuple[int, int, int]:
    red, green, blue = (min(255, int(value * factor)) for value in rgb)
    return red, green, blue


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


COATS = ((178, 44, 48), (40, 88, 170), (220, 196, 60), (226, 226, 226), (60, 130, 70), (112, 60, 130), (230, 120, 40))
TROUSERS = ((48, 54, 84), (70, 62, 52), (34, 36, 40), (96, 104, 116))
DARK = ((34, 34, 40), (40, 38, 34), (28, 34, 48))  # what is worn and ridden at night, so that RGB hardly shows it
BIKE_COLOURS = ((196, 36, 40), (236, 236, 234), (36, 78, 168), (30, 140, 90))


def paint_thing(canvas: Canvas, view: View, place: Placement, conditions: Conditions, rng: np.random.Generator) -> None:
    """Paint one standing object with its class's painter."""
    _, foot = view.ground(0.0, place.nearness)
    frame = Frame(canvas, place.x, foot, view.metre(place.nearness), int(rng.choice((-1, 1))))
    _PAINTERS[place.kind](frame, conditions, rng)


def _pick(rng: np.random.Generator, colours: tuple[tuple[int, int, int], ...]) -> tuple[int, int, int]:
    return colours[rng.integers(len(colours))]


def _person(frame: Frame, conditions: Conditions, rng: np.random.Generator) -> None:
    """Head, coat, arms and walking legs, 1.5 to 1.8 m."""
    frame = frame._replace(metre=frame.metre * rng.uniform(0.85, 1.02))
    heat = conditions.ground_heat + conditions.body_contrast
    night = conditions.night
    coat = Paint(_pick(rng, DARK if night else COATS), heat - 12, PERSON)
    trousers = Paint(_pick(rng, DARK if night else TROUSERS), heat - 18, PERSON)
    skin = Paint((90, 66, 54) if night else (216, 168, 138), heat + 14, PERSON)
    stride, swing = rng.uniform(0.1, 0.26), rng.uniform(-0.06, 0.1)
    frame.contact_shadow(0.32, conditions.ground_heat)
    for foot in (-stride, stride):
        hip = 0.35 * foot
        frame.fill(trousers, (foot - 0.08, 0), (foot + 0.12, 0), (hip + 0.12, 0.84), (hip - 0.12, 0.84))
    for side, reach in ((1, swing), (-1, -swing)):
        frame.stroke(coat, 0.12, (side * 0.2, 1.36), (side * 0.3, 1.08), (side * 0.27 + reach, 0.82))
    frame.fill(coat, (-0.19, 0.78), (0.19, 0.78), (0.25, 1.4), (0.1, 1.48), (-0.1, 1.48), (-0.25, 1.4))
    frame.disc(skin, (0, 1.62), 0.125, 0.16)


def _bike(frame: Frame, conditions: Conditions, rng: np.random.Generator) -> None:
    """Two wheels, frame, saddle, handlebar; 1.8 m long. The wheels' discs belong to the label, as MFNet has it."""
    night = conditions.night
    warmth = 75 if night else 22
    heat = conditions.ground_heat + warmth
    rgb = _pick(rng, DARK if night else BIKE_COLOURS)
    tube, saddle = Paint(rgb, heat + 20, BIKE), Paint((24, 22, 22), heat + 5, BIKE)
    tyre = Paint((22, 22, 24), heat, BIKE)
    spokes = Paint((60, 60, 60) if night else (128, 128, 130), conditions.ground_heat + 0.5 * warmth, BIKE)
    rear, front, crank, seat, head = (-0.56, 0.36), (0.56, 0.36), (0.02, 0.32), (-0.2, 0.78), (0.38, 0.8)
    for hub in (rear, front):
        frame.disc(spokes, hub, 0.34)
        frame.ring(tyre, hub, 0.34, 0.075)
    frame.fill(tube._replace(heat=heat + 10), seat, head, crank)
    frame.stroke(tube, 0.075, front, head, seat, rear, crank, head, (0.33, 1.05), (0.52, 1.08))
    frame.stroke(tube, 0.075, crank, (-0.24, 0.94))
    frame.box(saddle, -0.42, 0.9, -0.1, 1.02)


def _car_stop(frame: Frame, conditions: Conditions, rng: np.random.Generator) -> None:
    """Wheel stop: a low concrete block with yellow patches, 1.5 m wide, 0.4 m high, lit from above."""
    heat = conditions.ambient(rng)
    frame.contact_shadow(0.8, conditions.ground_heat)
    frame.box(Paint((158, 152, 138), heat, CAR_STOP), -0.75, 0, 0.75, 0.24)
    top = Paint((208, 204, 190), heat + 3, CAR_STOP)
    frame.fill(top, (-0.75, 0.24), (-0.66, 0.4), (0.66, 0.4), (0.75, 0.24))
    for side in (-1, 1):
        frame.box(Paint((226, 180, 30), heat, CAR_STOP), side * 0.4, 0.02, side * 0.62, 0.24)


def _color_cone(frame: Frame, conditions: Conditions, rng: np.random.Generator) -> None:
    """Orange cone with a white stripe on a square foot, 0.98 m; it reflects the own car's beam at night."""
    heat = conditions.ambient(rng)
    glint = 50 if conditions.night else 0
    frame.contact_shadow(0.42, conditions.ground_heat)
    frame.box(Paint((196, 66, 20), heat, COLOR_CONE), -0.36, 0, 0.36, 0.1)
    orange = Paint((244, 96, 26), heat, COLOR_CONE, emit=glint // 2)
    frame.fill(orange, (-0.27, 0.1), (0.27, 0.1), (0.06, 0.98), (-0.06, 0.98))
    white = Paint((246, 246, 240), heat, COLOR_CONE, emit=glint)
    frame.fill(white, (-0.2, 0.4), (0.2, 0.4), (0.14, 0.64), (-0.14, 0.64))


_PAINTERS = {CAR: paint_car, PERSON: _person, BIKE: _bike, CAR_STOP: _car_stop, COLOR_CONE: _color_cone}
