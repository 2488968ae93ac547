"""The two sensors: what a colour camera and a thermal camera record of a painted canvas.

Legend: H, W image size; light is the share of full daylight that reaches a surface (0..1).
"""

from __future__ import annotations

import cv2
import numpy as np

from mdg.data.synthetic.canvas import Canvas, Glow
from mdg.data.synthetic.layout import Conditions, View

COARSE = 4  # light and halos are smooth, so they are computed at 1 / COARSE of the size
NOISE_NIGHT, NOISE_DAY, NOISE_THERMAL = 7.0, 3.0, 2.5  # standard deviations in grey levels
BYTE_DIFFERENCE_STD = 256 / 6**0.5


def record_rgb(canvas: Canvas, view: View, conditions: Conditions, rng: np.random.Generator) -> np.ndarray:
    """[H, W, 3] uint8: lit surfaces, halos, colour cast, slight blur, and noise that is strong at night."""
    size = (view.width, view.height)
    emission_HW = canvas.look[..., 3] * np.float32(1 / 255)
    exposure_HW = cv2.resize(_light(view, conditions, rng), size) + emission_HW
    cast = rng.uniform(0.9, 1.1, 3) * rng.uniform(0.88, 1.1)
    exposure_HW3 = cv2.merge([exposure_HW * np.float32(gain) for gain in cast])
    image = cv2.multiply(cv2.cvtColor(canvas.look, cv2.COLOR_RGBA2RGB), exposure_HW3, dtype=cv2.CV_32F)
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
