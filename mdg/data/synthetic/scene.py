"""Scene: one generated RGB-thermal picture with its label, a pure function of seed, index and size.

Everything is painted once, then a colour camera and a thermal camera record it. The two disagree on purpose. By day RGB
shows everything but what lies in deep shadow or glare, while thermal hardly shows things at ambient temperature (cone,
kerb, wheel stop, bump) and, at thermal crossover, people. At night people and bikes are lost in RGB and bright in
thermal. Posters fool RGB, manholes and heated windows fool thermal.

Legend: H, W image size; light is the share of full daylight that reaches a surface (0..1).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

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
from mdg.data.synthetic.street import paint_backdrop, paint_street_class
from mdg.data.synthetic.things import paint_thing

COARSE = 4  # light and halos are smooth, so they are computed at 1 / COARSE of the size
NOISE_NIGHT, NOISE_DAY, NOISE_THERMAL = 7.0, 3.0, 2.5  # standard deviations in grey levels
BYTE_DIFFERENCE_STD = 256 / 6**0.5
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


def record_rgb(canvas: Canvas, view: View, conditions: Conditions, rng: np.random.Generator) -> np.ndarray:
    """[H, W, 3] uint8: lit surfaces, halos, colour cast, slight blur, and noise that is strong at night."""
    size = (view.width, view.height)
    emission_HW = canvas.look[..., 3] * np.float32(1 / 255)
    exposure_HW = cv2.resize(_light(view, conditions, rng), size) + emission_HW
    cast = rng.uniform(0.9, 1.1, 3) * rng.uniform(0.88, 1.1)
    exposure_HW3 = cv2.merge([exposure_HW * np.float32(gain) for gain in cast])
    image: np.ndarray = cv2.multiply(cv2.cvtColor(canvas.look, cv2.COLOR_RGBA2RGB), exposure_HW3, dtype=cv2.CV_32F)
    if canvas.glows:
        image += cv2.resize(_halos(view, canvas.glows), size)
    image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.35, 0.6) * view.height / 120 + 0.1)
    return cv2.add(image, _noise(rng, image.shape, NOISE_NIGHT if conditions.night else NOISE_DAY), dtype=cv2.CV_8U)


def record_thermal(canvas: Canvas, view: View, rng: np.random.Generator) -> np.ndarray:
    """[H, W] uint8: softer than RGB, with column noise and the drifting gain of an uncooled sensor."""
    heat = cv2.GaussianBlur(canvas.heat.astype(np.float32), (0, 0), 0.7 * view.height / 120 + 0.15)
    gain, offset = rng.uniform(0.88, 1.08), rng.uniform(-10, 10)
    columns = rng.normal(offset, 1.2, view.width).astype(np.float32)
    return cv2.add(heat * np.float32(gain) + columns, _noise(rng, heat.shape, NOISE_THERMAL), dtype=cv2.CV_8U)


def _noise(rng: np.random.Generator, shape: tuple[int, ...], sigma: float) -> np.ndarray:
    """float32 noise of triangular distribution: the difference of two bytes, far cheaper than normal deviates."""
    first, second = rng.integers(0, 256, (2, *shape), np.uint8)
    return cv2.subtract(first, second, dtype=cv2.CV_32F) * np.float32(sigma / BYTE_DIFFERENCE_STD)


def _coarse_grid(view: View) -> tuple[np.ndarray, np.ndarray]:
    """x [1, w] and y [h, 1] in px of the full image."""
    rows, columns = -(-view.height // COARSE), -(-view.width // COARSE)
    x = np.linspace(0, view.width, columns, dtype=np.float32)[None]
    y = np.linspace(0, view.height, rows, dtype=np.float32)[:, None]
    return x, y


def _light(view: View, conditions: Conditions, rng: np.random.Generator) -> np.ndarray:
    """Coarse [h, w] float32 light."""
    x, y = _coarse_grid(view)
    if conditions.night:
        return _night_light(view, x, y, rng)
    return _shadow_light(view, x, y, rng) if conditions.shadow else np.ones((y.size, x.size), np.float32)


def _night_light(view: View, x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Little ambient light, and the low beam of the own car on the ground ahead."""
    ambient = rng.uniform(0.07, 0.13)
    beam_x = view.vanish_x + rng.uniform(-0.05, 0.05) * view.width
    across = np.exp(-(((x - beam_x) / (0.45 * view.width)) ** 2))
    along = np.exp(-(((y - view.height) / (0.32 * view.height)) ** 2))
    return (ambient + rng.uniform(0.36, 0.5) * across * along).astype(np.float32)


def _shadow_light(view: View, x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Daylight with the soft-edged deep shadow that a building on one side casts over the street."""
    side = rng.choice((-1.0, 1.0))
    edge = view.width * (0.5 - side * rng.uniform(-0.15, 0.15)) - side * 0.5 * (y - view.horizon)
    shaded = 1 / (1 + np.exp((edge - x) * side / (0.015 * view.width)))
    below_roofs = 1 / (1 + np.exp((0.75 * view.horizon - y) / (0.03 * view.height)))
    return (1 - rng.uniform(0.7, 0.88) * shaded * below_roofs).astype(np.float32)


def _halos(view: View, glows: list[Glow]) -> np.ndarray:
    """Coarse [h, w, 3] float32 sum of the glows: a Gaussian core and a wide faint skirt."""
    x, y = _coarse_grid(view)
    total = np.zeros((y.size, x.size, 3), np.float32)
    for glow in glows:
        distance2 = ((x - glow.x) ** 2 + (y - glow.y) ** 2) / glow.radius**2
        falloff = glow.strength * (np.exp(-distance2) + 0.2 * np.exp(-0.12 * distance2))
        total += falloff[..., None] * np.array(glow.rgb, np.float32)
    return total
