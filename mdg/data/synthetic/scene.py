"""Scene: one generated RGB-thermal picture with its label, a pure function of seed, index and size.

The two modalities disagree on purpose. By day RGB shows everything but what lies in deep shadow or glare, while thermal
hardly shows things at ambient temperature (cone, kerb, wheel stop, bump) and, at thermal crossover, people. At night
people and bikes are lost in RGB and bright in thermal. Posters fool RGB, manholes and heated windows fool thermal.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mdg.data.scenes.cameras import record_rgb, record_thermal
from mdg.data.scenes.street import paint_street_class
from mdg.data.synthetic.canvas import Canvas, Glow
from mdg.data.synthetic.layout import (
    BIKE,
    CAR,
    PERSON,
    Conditions,
    Placement,
    View,
    draw_conditions,
    draw_placements,
    draw_street_classes,
    draw_view,
)
from mdg.data.synthetic.street import paint_backdrop
from mdg.data.synthetic.things import paint_thing

MIN_SIDE = 32  # px; below this no object is recognisable
WARM_CLASSES = (PERSON, BIKE, CAR)


@dataclass(frozen=True)
class Scene:
    """``rgb`` [H, W, 3] uint8 in RGB order, ``thermal`` [H, W] uint8, ``label`` [H, W] uint8 with MFNet ids 0..8."""

    rgb: np.ndarray
    thermal: np.ndarray
    label: np.ndarray
    night: bool
    glare: bool


def render_scene(seed: int, index: int, height: int, width: int) -> Scene:
    """Render scene ``index`` of the endless set ``seed``. Odd indices are night, even ones day."""
    if min(height, width) < MIN_SIDE:
        raise ValueError(f"scene size got {height}x{width}, expected at least {MIN_SIDE}x{MIN_SIDE} pixels")
    rng = np.random.default_rng([seed, index])
    # One stream each, so that a different number of windows or pixels leaves the objects where they are.
    backdrop_rng, object_rng, camera_rng = rng.spawn(3)
    conditions = draw_conditions(rng, night=index % 2 == 1)
    view = draw_view(rng, height, width)
    canvas = Canvas(height, width)
    paint_backdrop(canvas, view, conditions, backdrop_rng)
    placements = _paint_objects(canvas, view, conditions, object_rng)
    if conditions.glare:
        canvas.glows.append(_glare(view, placements, object_rng))
    rgb = record_rgb(canvas, view, conditions, camera_rng)
    thermal = record_thermal(canvas, view, camera_rng)
    return Scene(rgb, thermal, canvas.label, conditions.night, conditions.glare)


def _paint_objects(canvas: Canvas, view: View, conditions: Conditions, rng: np.random.Generator) -> list[Placement]:
    """The street's own classes first, then standing objects from far to near: whatever is in front wins the label."""
    street_classes = draw_street_classes(rng)
    for kind in street_classes:
        paint_street_class(canvas, view, kind, conditions, rng)
    placements = draw_placements(rng, view, len(street_classes))
    for placement in placements:
        paint_thing(canvas, view, placement, conditions, rng)
    return placements


def _glare(view: View, placements: list[Placement], rng: np.random.Generator) -> Glow:
    """Bloom over a warm object where there is one, since thermal can still see that; else a low sun in the sky."""
    colour = (255, 240, 210)
    warm = [placement for placement in placements if placement.kind in WARM_CLASSES]
    if not warm:
        return Glow(view.width * rng.uniform(0.2, 0.8), 0.4 * view.horizon, 0.16 * view.height, colour, 1.3)
    target = warm[rng.integers(len(warm))]
    _, foot = view.ground(0.0, target.nearness)
    y = foot - 0.8 * view.metre(target.nearness)
    return Glow(target.x, y, rng.uniform(0.16, 0.22) * view.height, colour, 1.3)
