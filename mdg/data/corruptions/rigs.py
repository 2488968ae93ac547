"""What befalls the pair: a camera that gives nothing, the same picture again, or looks elsewhere than the other.

Where the cameras no longer see the same, thermal is what moves: RGB and the label stay together. Thermal is
interpolated bilinearly, and 0 where it does not reach, as under ``align: {mode: rig}``.

Shape suffixes: H, W are height and width in pixels, 1 an axis of length one.
"""

from __future__ import annotations

from abc import abstractmethod

import cv2
import numpy as np

from mdg.data.corruptions.base import Corruption, ImageCorruption, Images, Previous, shorter_side, sign
from mdg.data.corruptions.depth import NEAREST_M, horizon_row, row_nearness
from mdg.data.corruptions.moving import grid, seen_from_elsewhere, shifted, turned
from mdg.errors import ConfigError


class _Missing(ImageCorruption):
    """The lower rows of a picture were lost on the way; all of them at severity 5."""

    cameras = ("rgb", "thermal")
    strengths = (0.2, 0.4, 0.6, 0.8, 1.0)
    unit = "share of the rows that are lost"
    source = "a transmission that breaks off"

    def change(self, images: Images, strength: float, generator: np.random.Generator) -> np.ndarray:
        image = images.of(self.camera).copy()
        lost = int(np.ceil(strength * len(image)))
        image[len(image) - lost :] = self.fill(image)
        return image

    @abstractmethod
    def fill(self, image: np.ndarray) -> np.ndarray | int:
        """What stands where nothing came."""


class MissingBlack(_Missing):
    """The lower rows of a picture are lost, and black; all of them at severity 5."""

    def fill(self, image: np.ndarray) -> int:
        return 0


class MissingMean(_Missing):
    """The lower rows of a picture are lost, and filled with its mean per channel; all of them at severity 5."""

    def fill(self, image: np.ndarray) -> np.ndarray:
        return np.rint(cv2.mean(image)[: 3 if image.ndim == 3 else 1]).astype(np.uint8)


class Frozen(Corruption):
    """A camera goes on to show an earlier frame. Of another size, that is resized."""

    cameras = ("rgb", "thermal")
    strengths = (1.0, 2.0, 4.0, 8.0, 16.0)
    unit = "age of the picture, frames"
    source = "a grabber that repeats its buffer"
    needs_previous = True

    def corrupt(
        self, images: Images, severity: float, generator: np.random.Generator, previous: Previous | None = None
    ) -> Images:
        age = round(self.strength(severity))
        if age == 0:
            return images
        if previous is None:
            raise ConfigError("Frozen: shows an earlier frame, so it needs a data set; expected `previous`, got none")
        now, earlier = images.of(self.camera), previous(age).of(self.camera)
        if earlier.shape != now.shape:
            earlier = cv2.resize(earlier, now.shape[1::-1], interpolation=cv2.INTER_AREA)
        return images.with_image(self.camera, earlier)


class _ThermalMoved(ImageCorruption):
    """Thermal looks elsewhere; RGB and label stay."""

    cameras = ("thermal",)


class ThermalShift(_ThermalMoved):
    """Thermal is shifted in a random direction."""

    strengths = (0.01, 0.02, 0.035, 0.055, 0.08)
    unit = "shift, share of the shorter side"
    source = "a bent bracket"

    def change(self, images: Images, strength: float, generator: np.random.Generator) -> np.ndarray:
        thermal_HW = images.of("thermal")
        angle, length = generator.uniform(0, 2 * np.pi), strength * shorter_side(thermal_HW)
        return shifted(thermal_HW, length * np.cos(angle), length * np.sin(angle))


class ThermalRotation(_ThermalMoved):
    """Thermal is turned about its centre, one way or the other."""

    strengths = (1.0, 2.0, 4.0, 6.0, 9.0)
    unit = "degrees"
    source = "a bent bracket"

    def change(self, images: Images, strength: float, generator: np.random.Generator) -> np.ndarray:
        return turned(images.of("thermal"), sign(generator) * strength, 1.0)


class ThermalScale(_ThermalMoved):
    """Thermal shows a wider or narrower view about its centre: another lens, or another focus."""

    strengths = (0.02, 0.04, 0.07, 0.11, 0.16)
    unit = "larger by this share, or smaller by as much"
    source = "another focal length"

    def change(self, images: Images, strength: float, generator: np.random.Generator) -> np.ndarray:
        return turned(images.of("thermal"), 0.0, (1 + strength) ** sign(generator))


class Parallax(_ThermalMoved):
    """The cameras stand side by side: thermal is shifted along x, near things more, what is far not at all.

    The shift is the strength times the nearness of ``depth.py``. What a thing hid is filled from beside it.
    """

    strengths = (0.01, 0.02, 0.035, 0.055, 0.08)
    unit = "shift of the nearest ground, share of the shorter side"
    source = "disparity of two parallel cameras: Hartley and Zisserman 2004, Multiple View Geometry, chapter 9"

    def change(self, images: Images, strength: float, generator: np.random.Generator) -> np.ndarray:
        thermal_HW = images.of("thermal")
        shift = sign(generator) * strength * shorter_side(thermal_HW)
        x_HW, y_HW = grid(thermal_HW.shape)
        x_HW -= np.float32(shift) * row_nearness(len(thermal_HW))
        return seen_from_elsewhere(
            thermal_HW,
            images.label_HW,
            (x_HW, y_HW),
            lambda nearness: np.array([[1.0, 0.0, shift * nearness], [0.0, 1.0, 0.0]]),
            border=cv2.BORDER_CONSTANT,
        )


class TimeLag(_ThermalMoved):
    """Thermal is late: it shows the scene as it was when the car, driving straight on, was some way farther back.

    What is at distance Z is seen ``Z / (Z + strength)`` as far from the middle of the horizon as it is now. What had
    not yet left the picture by its lower edge is continued from there. Things do not move of themselves.
    """

    strengths = (0.15, 0.3, 0.6, 0.9, 1.5)
    unit = "metres driven meanwhile"
    source = "optical flow of a translating camera: Longuet-Higgins and Prazdny 1980"

    def change(self, images: Images, strength: float, generator: np.random.Generator) -> np.ndarray:
        thermal_HW = images.of("thermal")
        height, width = thermal_HW.shape
        back = strength / NEAREST_M
        middle_x, middle_y = (width - 1) / 2, horizon_row(height)
        x_HW, y_HW = grid(thermal_HW.shape)
        # Ground seen at nearness n then has nearness n / (1 - back * n) now.
        stretch_H1 = 1 / (1 - np.float32(back) * row_nearness(height))
        x_HW = middle_x + (x_HW - middle_x) * stretch_H1
        y_HW = middle_y + (y_HW - middle_y) * stretch_H1

        def then(nearness: float) -> np.ndarray:
            scale = 1 / (1 + back * nearness)
            return np.array([[scale, 0.0, (1 - scale) * middle_x], [0.0, scale, (1 - scale) * middle_y]])

        return seen_from_elsewhere(thermal_HW, images.label_HW, (x_HW, y_HW), then, border=cv2.BORDER_REPLICATE)
