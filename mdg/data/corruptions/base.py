"""What every corruption is: one thing that goes wrong with a camera or a rig, at a severity from 0 to 5.

A corruption is a pure function of a pair of images, a severity and a generator of random numbers. It is computed on
uint8, as frames are. Severity 0 is the identity; 1 to 5 have the strengths of a table, and between them the strength is
interpolated. Sizes are shares of the shorter side of the image, so that a severity means the same at 96x128 and at
480x640. How many random numbers are drawn, and which, does not depend on the severity: with the same generator a
stronger one is the same accident, only worse.

Shape suffixes: H, W are height and width in pixels, 3 the channels R, G, B.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import cv2
import numpy as np

from mdg.errors import ConfigError

MOST_SEVERE = 5


class Images(NamedTuple):
    """``rgb_HW3``, ``thermal_HW`` and ``label_HW`` of a frame, uint8."""

    rgb_HW3: np.ndarray
    thermal_HW: np.ndarray
    label_HW: np.ndarray

    def of(self, camera: str) -> np.ndarray:
        """The image of a camera, contiguous."""
        return np.ascontiguousarray(self.rgb_HW3 if camera == "rgb" else self.thermal_HW)

    def with_image(self, camera: str, image: np.ndarray) -> Images:
        """The same with another image of that camera."""
        return self._replace(rgb_HW3=image) if camera == "rgb" else self._replace(thermal_HW=image)


Previous = Callable[[int], Images]
"""The frame so many places earlier."""


@dataclass(frozen=True)
class Corruption(ABC):
    """One accident of one camera.

    Args:
        camera: Whose image is changed: one of ``cameras``.

    Attributes:
        cameras: The cameras it can befall.
        strengths: Of the severities 1 to 5, rising; 0 stands for the identity.
        unit: What ``strengths`` count, the measure by which a severity is stronger than the last.
        source: Where the formula is from.
        of_camera: What is drawn belongs to the camera, so that it is the same in every frame.
        needs_previous: It shows an earlier frame.

    Raises:
        ConfigError: A camera that it cannot befall.
    """

    camera: str

    cameras: ClassVar[tuple[str, ...]]
    strengths: ClassVar[tuple[float, float, float, float, float]]
    unit: ClassVar[str]
    source: ClassVar[str]
    of_camera: ClassVar[bool] = False
    needs_previous: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.camera not in self.cameras:
            raise ConfigError(
                f"{type(self).__name__}: got camera '{self.camera}', expected one of: {', '.join(self.cameras)}"
            )

    @property
    def name(self) -> str:
        """Type and camera: ``MotionBlur of thermal``."""
        return f"{type(self).__name__} of {self.camera}"

    def strength(self, severity: float) -> float:
        """The strength at a severity, in ``unit``.

        Raises:
            ConfigError: A severity outside 0 .. 5.
        """
        if not 0 <= severity <= MOST_SEVERE:
            raise ConfigError(f"{type(self).__name__}: got severity {severity:g}, expected a number from 0 to 5")
        return float(np.interp(severity, range(MOST_SEVERE + 1), (0.0, *self.strengths)))

    @abstractmethod
    def corrupt(
        self, images: Images, severity: float, generator: np.random.Generator, previous: Previous | None = None
    ) -> Images:
        """The pair with this accident; what was given is not written to, and the label is always kept.

        Args:
            images: uint8 of one height and width.
            severity: 0 .. 5; 0 gives back ``images``.
            generator: Where all random numbers come from.
            previous: Gives earlier frames, for those that need them.

        Raises:
            ConfigError: A severity outside 0 .. 5, or no earlier frame where one is needed.
        """


class ImageCorruption(Corruption):
    """An accident that needs no other frame."""

    def corrupt(
        self, images: Images, severity: float, generator: np.random.Generator, previous: Previous | None = None
    ) -> Images:
        strength = self.strength(severity)
        if strength == 0:
            return images
        return images.with_image(self.camera, self.change(images, strength, generator))

    @abstractmethod
    def change(self, images: Images, strength: float, generator: np.random.Generator) -> np.ndarray:
        """A new image of ``camera``, uint8 of the same shape; ``strength`` is above 0."""


def shorter_side(image: np.ndarray) -> int:
    """In pixels; what shares of the image are shares of."""
    return min(image.shape[:2])


def as_levels(values: np.ndarray) -> np.ndarray:
    """Grey levels rounded to the nearest and clipped to 0 .. 255, uint8."""
    rounded = np.rint(values)
    return np.clip(rounded, 0, 255, out=rounded).astype(np.uint8)


def normal_noise(shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    """float32 noise of mean 0 and standard deviation 1, close to normal: the sum of four bytes, never beyond 3.5.

    Normal deviates cost ten times as much.
    """
    count = int(np.prod(shape))
    first, *others = np.frombuffer(generator.bytes(4 * count), np.uint8).reshape(4, count)
    total = first.astype(np.float32)
    for byte in others:
        total += byte
    total -= np.float32(4 * 127.5)
    total *= np.float32((4 * (256**2 - 1) / 12) ** -0.5)
    return total.reshape(shape)


def smooth_field(size: tuple[int, int], generator: np.random.Generator, knots: int = 4) -> np.ndarray:
    """A random field [H, W] float32 without fine detail: mean 0, largest magnitude 1; zeros for a single pixel."""
    coarse = generator.standard_normal((knots, knots)).astype(np.float32)
    field_HW: np.ndarray = cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)
    field_HW -= field_HW.mean()
    return field_HW / max(float(np.abs(field_HW).max()), 1e-6)


def sign(generator: np.random.Generator) -> int:
    """-1 or 1."""
    return 1 if generator.random() < 0.5 else -1
