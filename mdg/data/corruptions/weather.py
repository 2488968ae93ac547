"""What is between the camera and the scene: fog, rain, snow. They befall RGB.

How much of it long-wave infrared passes depends on the size of the drops; what thermal loses is not modelled.

Shape suffixes: H, W are height and width in pixels, 3 the channels R, G, B, N a number of strokes.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from mdg.data.corruptions.base import ImageCorruption, Images, as_levels, smooth_field
from mdg.data.corruptions.depth import distance_m, nearness_map

SUBPIXEL_BITS = 4


class Fog(ImageCorruption):
    """Koschmieder's law: ``rgb * t + airlight * (1 - t)`` with ``t = exp(-extinction * distance)``.

    Distances are those of ``depth.py``; the fog is thinner and denser by up to 30 % in drifts. The airlight follows the
    light of the picture, so that fog at night is dark.
    """

    cameras = ("rgb",)
    strengths = (8.0, 16.0, 32.0, 64.0, 128.0)
    unit = "extinction per km"
    source = "Koschmieder 1924; as Sakaridis et al. 2018, Semantic Foggy Scene Understanding with Synthetic Data"

    def change(self, images: Images, strength: float, generator: np.random.Generator) -> np.ndarray:
        rgb_HW3 = images.of("rgb")
        drifts_HW = 1 + 0.3 * smooth_field(rgb_HW3.shape[:2], generator, knots=6)
        # Edges of things are softened as if by the air around them, and a rough label shows less.
        distance_HW = cv2.blur(distance_m(nearness_map(images.label_HW)), (3, 3))
        passed_HW = cv2.exp(distance_HW * drifts_HW * np.float32(-strength / 1000))
        passed_HW3 = cv2.merge([passed_HW] * 3)
        air = np.float32(airlight(rgb_HW3))
        return as_levels((rgb_HW3.astype(np.float32) - air) * passed_HW3 + air)


class Stroke(NamedTuple):
    """Drops or flakes at one distance: lengths and width as shares of the shorter side, opacity, share of all."""

    length: float
    width: float
    opacity: float
    share: float


class _Falling(ImageCorruption):
    """Strokes that fall, and a veil of those too far to be told apart."""

    cameras = ("rgb",)
    unit = "strokes in the picture"
    layers: tuple[Stroke, ...]
    slant: float  # largest angle to the vertical in radians
    veil: float  # share of the contrast lost to the veil at the strongest
    brightness: float  # of a stroke, over the airlight

    def change(self, images: Images, strength: float, generator: np.random.Generator) -> np.ndarray:
        rgb_HW3 = images.of("rgb")
        cover_HW = np.zeros(rgb_HW3.shape[:2], np.float32)
        angle = generator.uniform(-self.slant, self.slant)
        for layer in self.layers:
            cover_HW = np.maximum(cover_HW, self._drawn(layer, rgb_HW3.shape[:2], strength, angle, generator))
        air = airlight(rgb_HW3)
        veil = self.veil * strength / self.strengths[-1]
        veiled_HW3 = rgb_HW3.astype(np.float32) * np.float32(1 - veil) + np.float32(veil * air)
        colour = np.float32(min(255.0, self.brightness * air))
        return as_levels(veiled_HW3 + cv2.merge([cover_HW] * 3) * (colour - veiled_HW3))

    def _drawn(
        self, layer: Stroke, size: tuple[int, int], strength: float, angle: float, generator: np.random.Generator
    ) -> np.ndarray:
        """[H, W] float32 in 0 .. 1: how much of a pixel the strokes of a layer cover."""
        side, (height, width) = min(size), size
        most = round(layer.share * self.strengths[-1])
        x_N, y_N, turn_N, stretch_N = generator.random((4, most))
        count = min(most, max(1, round(layer.share * strength)))
        angles_N = angle + 0.08 * (turn_N - 0.5)
        half_N = 0.5 * layer.length * side * (0.6 + 0.8 * stretch_N)
        step_N2 = half_N[:, None] * np.column_stack([np.sin(angles_N), np.cos(angles_N)])
        middle_N2 = np.column_stack([x_N * width, y_N * height])
        ends_N22 = np.stack([middle_N2 - step_N2, middle_N2 + step_N2], axis=1)[:count]
        points = np.rint(ends_N22 * 2**SUBPIXEL_BITS).astype(np.int32)
        drawn_HW: np.ndarray = np.zeros(size, np.uint8)
        thickness = layer.width * side
        drawn = int(np.ceil(thickness))
        # Smooth lines take ten times as long where they are thick; a blur softens those as well.
        kind = cv2.LINE_AA if drawn == 1 else cv2.LINE_8
        cv2.polylines(drawn_HW, list(points), False, 255, drawn, kind, SUBPIXEL_BITS)
        if kind == cv2.LINE_8:
            drawn_HW = cv2.blur(drawn_HW, (drawn // 2 * 2 + 1,) * 2)
        # Lines are whole pixels wide: what is too wide is drawn fainter.
        return drawn_HW.astype(np.float32) * np.float32(layer.opacity * thickness / drawn / 255)


class Rain(_Falling):
    """Streaks brighter than what is behind them, near ones long and wide, and a veil."""

    strengths = (150.0, 350.0, 650.0, 1100.0, 1800.0)
    source = "Garg and Nayar 2007, Vision and Rain: drops are brighter than the background; drawn as streaks"
    layers = (Stroke(0.05, 0.0016, 0.45, 0.6), Stroke(0.1, 0.0026, 0.45, 0.3), Stroke(0.2, 0.0042, 0.4, 0.1))
    slant, veil, brightness = 0.35, 0.45, 1.5


class Snow(_Falling):
    """Flakes, near ones large and blurred by their fall, and a bright veil."""

    strengths = (200.0, 450.0, 850.0, 1500.0, 2500.0)
    source = "drawn; the veil as fog"
    layers = (Stroke(0.004, 0.005, 0.8, 0.65), Stroke(0.008, 0.01, 0.8, 0.27), Stroke(0.016, 0.018, 0.7, 0.08))
    slant, veil, brightness = 0.8, 0.4, 1.9


def airlight(rgb_HW3: np.ndarray) -> float:
    """Grey level of lit air: brighter in a bright picture, 40 in a black one and 230 in a white one."""
    return 40 + 190 * min(1.0, 1.35 * float(np.mean(cv2.mean(rgb_HW3)[:3])) / 255)
