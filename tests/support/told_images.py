"""Images to corrupt whose corrupted form can be told, and one corruption of them.

Shape suffixes: H, W are height and width in pixels, 3 the channels R, G, B.
"""

from __future__ import annotations

import numpy as np

from mdg.data.corruptions import CORRUPTIONS, Images

SIZE = 60, 80


def flat(level: int = 100, size: tuple[int, int] = SIZE) -> Images:
    return Images(np.full((*size, 3), level, np.uint8), np.full(size, level, np.uint8), np.zeros(size, np.uint8))


def ramp() -> Images:
    levels_HW = np.arange(256, dtype=np.uint8).reshape(16, 16)
    return Images(np.dstack([levels_HW] * 3), levels_HW, np.zeros((16, 16), np.uint8))


def noise_HW(size: tuple[int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)


def after(name: str, images: Images, severity: float, camera: str = "thermal", seed: int = 0) -> np.ndarray:
    return CORRUPTIONS[name](camera).corrupt(images, severity, np.random.default_rng(seed)).of(camera)
