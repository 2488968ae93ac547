"""What light and lens do to a picture: darkness, overexposure, glare, motion blur, defocus.

Exposure counts in stops of light. Pictures are taken to be gamma-encoded with 2.2, so a stop more is a factor of
``2 ** (1 / 2.2)`` in grey levels.

Shape suffixes: H, W are height and width in pixels, 3 the channels R, G, B, N a number of points, 2 their x and y.
"""

from __future__ import annotations

import cv2
import numpy as np

from mdg.data.corruptions.base import ImageCorruption, Images, as_levels, normal_noise, shorter_side

GAMMA = 2.2
READ_NOISE = 0.8  # grey levels a stop: amplification brings out the noise of the sensor
HENDRYCKS = "Hendrycks and Dietterich 2019, Benchmarking Neural Network Robustness to Common Corruptions"
DISC_POINTS = 2000
LINE_POINTS = 200


class Darkness(ImageCorruption):
    """Less light: levels times ``2 ** (-stops / 2.2)``, and noise of the sensor that grows with the stops."""

    cameras = ("rgb",)
    strengths = (1.0, 2.0, 3.0, 4.0, 6.0)
    unit = "stops below the picture"
    source = "exposure: definition of the stop; read noise as in Foi et al. 2008"

    def change(self, images: Images, strength: float, generator: np.random.Generator) -> np.ndarray:
        rgb_HW3 = images.of("rgb")
        noise_HW3 = normal_noise(rgb_HW3.shape, generator)
        noise_HW3 *= np.float32(READ_NOISE * strength)
        noise_HW3 += rgb_HW3.astype(np.float32) * np.float32(2 ** (-strength / GAMMA))
        return as_levels(noise_HW3)


class Overexposure(ImageCorruption):
    """More light than the sensor holds: levels times ``2 ** (stops / 2.2)``, cut off at white."""

    cameras = ("rgb",)
    strengths = (0.7, 1.4, 2.1, 2.8, 3.5)
    unit = "stops above the picture"
    source = "exposure: definition of the stop"

    def change(self, images: Images, strength: float, generator: np.random.Generator) -> np.ndarray:
        table = as_levels(np.arange(256) * 2 ** (strength / GAMMA))
        return cv2.LUT(images.of("rgb"), table)


class Glare(ImageCorruption):
    """A light that dazzles: a core that saturates, a skirt around it and a veil over the whole picture.

    ``rgb + 255 * strength * (exp(-d^2) + 0.35 * exp(-d / 3) + 0.04)``, d the distance to a light in the upper two
    thirds over 8 % of the shorter side, in a warm white.
    """

    cameras = ("rgb",)
    strengths = (0.4, 0.8, 1.3, 2.0, 3.0)
    unit = "light added in the centre, over white"
    source = "veiling glare: additive scattered light as in CIE 146:2002, with simpler fall-off"

    def change(self, images: Images, strength: float, generator: np.random.Generator) -> np.ndarray:
        rgb_HW3 = images.of("rgb")
        height, width = rgb_HW3.shape[:2]
        radius = max(0.08 * shorter_side(rgb_HW3), 0.5)
        place_x, place_y = generator.uniform(0.15, 0.85) * (width - 1), generator.uniform(0.1, 0.65) * (height - 1)
        x2_W = ((np.arange(width, dtype=np.float32) - np.float32(place_x)) / np.float32(radius)) ** 2
        y2_H = ((np.arange(height, dtype=np.float32) - np.float32(place_y)) / np.float32(radius)) ** 2
        distance2_HW = y2_H[:, None] + x2_W[None]
        light_HW = cv2.exp(-distance2_HW) + 0.35 * cv2.exp(-np.sqrt(distance2_HW) / 3) + 0.04
        light_HW3 = cv2.merge([light_HW * np.float32(255 * strength * part) for part in (1.0, 0.95, 0.85)])
        return as_levels(light_HW3 + rgb_HW3)


class MotionBlur(ImageCorruption):
    """The camera moved during the exposure: the mean along a line in a random direction."""

    cameras = ("rgb", "thermal")
    strengths = (0.01, 0.02, 0.035, 0.055, 0.08)
    unit = "length of the line, share of the shorter side"
    source = HENDRYCKS

    def change(self, images: Images, strength: float, generator: np.random.Generator) -> np.ndarray:
        image = images.of(self.camera)
        return _blurred(image, line_points(strength * shorter_side(image), generator.uniform(0, np.pi)))


class Defocus(ImageCorruption):
    """The lens is out of focus: the mean over a disc."""

    cameras = ("rgb", "thermal")
    strengths = (0.004, 0.007, 0.011, 0.016, 0.023)
    unit = "radius of the disc, share of the shorter side"
    source = HENDRYCKS

    def change(self, images: Images, strength: float, generator: np.random.Generator) -> np.ndarray:
        image = images.of(self.camera)
        return _blurred(image, disc_points(strength * shorter_side(image)))


def line_points(length: float, angle: float) -> np.ndarray:
    """[N, 2] points evenly along a line through 0, in pixels; the angle in radians."""
    along_N = (np.arange(LINE_POINTS) + 0.5) / LINE_POINTS - 0.5
    return length * np.outer(along_N, (np.cos(angle), np.sin(angle)))


def disc_points(radius: float) -> np.ndarray:
    """[N, 2] points evenly in a disc about 0, in pixels, along Vogel's spiral (1979)."""
    place_N = (np.arange(DISC_POINTS) + 0.5) / DISC_POINTS
    angle_N = np.arange(DISC_POINTS) * np.pi * (3 - 5**0.5)
    return radius * np.sqrt(place_N)[:, None] * np.column_stack([np.cos(angle_N), np.sin(angle_N)])


def kernel_of(points_N2: np.ndarray) -> np.ndarray:
    """The kernel that averages an image, linear between its pixels, over offsets: square, odd, sum 1.

    A blur of less than a pixel is then less of a blur, not none.
    """
    reach = int(np.ceil(np.abs(points_N2).max()))
    corner_N2 = np.floor(points_N2).astype(int)
    part_N2 = points_N2 - corner_N2
    kernel = np.zeros((2 * reach + 2, 2 * reach + 2))  # a row and column more for the corners at the far edge
    for step_x, step_y in ((0, 0), (1, 0), (0, 1), (1, 1)):
        weight_N = np.abs(1 - step_x - part_N2[:, 0]) * np.abs(1 - step_y - part_N2[:, 1])
        np.add.at(kernel, (corner_N2[:, 1] + reach + step_y, corner_N2[:, 0] + reach + step_x), weight_N)
    return kernel[:-1, :-1] / len(points_N2)


def _blurred(image: np.ndarray, points_N2: np.ndarray) -> np.ndarray:
    return cv2.filter2D(image, -1, kernel_of(points_N2), borderType=cv2.BORDER_REPLICATE)
