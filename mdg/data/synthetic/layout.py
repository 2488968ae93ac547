"""What a scene contains, before anything is painted: conditions, perspective, and which objects stand where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

CAR, PERSON, BIKE, CURVE, CAR_STOP, GUARDRAIL, COLOR_CONE, BUMP = range(1, 9)
STREET_CLASSES = (CURVE, GUARDRAIL, BUMP)  # part of the street: at most one of each
THING_CLASSES = (CAR, PERSON, BIKE, CAR_STOP, COLOR_CONE)
THING_WEIGHTS = (0.28, 0.28, 0.17, 0.14, 0.13)
STREET_CHANCE = {CURVE: 0.6, GUARDRAIL: 0.45, BUMP: 0.4}
CAMERA_HEIGHT_M = 1.5
# Nearness of an object's foot: 0 at the horizon, 1 at the lower image edge. Large things stay far enough to fit,
# small ones near enough to be seen.
NEARNESS = {CAR: (0.34, 0.58), PERSON: (0.4, 0.72), BIKE: (0.42, 0.7), CAR_STOP: (0.54, 0.92), COLOR_CONE: (0.5, 0.92)}


@dataclass(frozen=True)
class Conditions:
    """Light and temperature of a scene. Heats are 0..255, contrasts are added to ``ground_heat``."""

    night: bool
    glare: bool
    crossover: bool  # by day: people are as warm as the sunlit ground, thermal loses them
    shadow: bool  # by day: deep shadow over part of the street, RGB loses what stands in it
    ground_heat: float
    body_contrast: float

    def ambient(self, rng: np.random.Generator) -> float:
        """Heat of a thing without a source of its own: near the ground's, a little colder under a night sky."""
        return self.ground_heat + (rng.uniform(-14, -8) if self.night else rng.uniform(-8, 8))


class View(NamedTuple):
    """One-point perspective over a flat ground. Pixels throughout, except where a name ends in ``_m`` (metres)."""

    height: int
    width: int
    horizon: float
    vanish_x: float
    road_half_m: float

    def metre(self, nearness: float) -> float:
        """Pixels per metre at ``nearness``; limited by the width so that tall images do not crop every object."""
        depth_px = nearness * (self.height - self.horizon)
        return depth_px / CAMERA_HEIGHT_M * min(1.0, 1.1 * self.width / self.height)

    def ground(self, x_m: float, nearness: float) -> tuple[float, float]:
        """(x, y) px of the ground point ``x_m`` right of the road's axis."""
        return (
            self.vanish_x + x_m * self.metre(nearness),
            self.horizon + nearness * (self.height - self.horizon),
        )


class Placement(NamedTuple):
    """One standing object: class id, foot in px, nearness."""

    kind: int
    x: float
    nearness: float


def draw_conditions(rng: np.random.Generator, night: bool) -> Conditions:
    """Glare in 30 % of the scenes. Crossover never meets glare or shadow, so that one sensor always works."""
    glare = bool(rng.random() < 0.3)
    crossover = bool(not night and not glare and rng.random() < 0.3)
    shadow = bool(not night and not crossover and rng.random() < 0.5)
    if night:
        ground_heat, body_contrast = rng.uniform(55, 85), rng.uniform(105, 140)
    else:
        ground_heat, body_contrast = rng.uniform(95, 125), rng.uniform(50, 75)
    return Conditions(night, glare, crossover, shadow, ground_heat, 3.0 if crossover else body_contrast)


def draw_view(rng: np.random.Generator, height: int, width: int) -> View:
    """Camera pitch, heading and road width of a scene."""
    return View(
        height,
        width,
        horizon=height * rng.uniform(0.36, 0.46),
        vanish_x=width * rng.uniform(0.38, 0.62),
        road_half_m=rng.uniform(1.3, 1.9),
    )


def draw_street_classes(rng: np.random.Generator) -> list[int]:
    """Which of kerb, guardrail and speed bump the street has."""
    return [kind for kind in STREET_CLASSES if rng.random() < STREET_CHANCE[kind]]


def draw_placements(rng: np.random.Generator, view: View, street_count: int) -> list[Placement]:
    """Standing objects from far to near. With the street's own classes they make 3 to 7 objects.

    Every object gets its own column of the image, so that overlaps stay partial.
    """
    count = int(rng.integers(3, 8 - max(street_count, 2)))
    kinds = rng.choice(THING_CLASSES, size=count, p=THING_WEIGHTS)
    columns = (rng.permutation(count) + 0.5 + rng.uniform(-0.3, 0.3, count)) / count
    placements = [
        Placement(int(kind), float((0.04 + 0.92 * column) * view.width), rng.uniform(*NEARNESS[kind]))
        for kind, column in zip(kinds, columns, strict=True)
    ]
    return sorted(placements, key=lambda placement: placement.nearness)
