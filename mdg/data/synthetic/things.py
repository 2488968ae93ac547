"""Classes person, bike, car_stop and color_cone: standing objects written in metres around their foot."""

from __future__ import annotations

import numpy as np

from mdg.data.scenes.cars import paint_car
from mdg.data.scenes.frame import Frame
from mdg.data.synthetic.canvas import Canvas, Paint
from mdg.data.synthetic.layout import BIKE, CAR, CAR_STOP, COLOR_CONE, PERSON, Conditions, Placement, View

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
