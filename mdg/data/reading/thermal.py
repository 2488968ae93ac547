"""Thermal images as cameras write them, brought to 8 bits where brighter is warmer.

Shape suffixes: H, W are height and width in pixels.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from mdg.data.reading.images import count_channels, drop_opaque_alpha, read_image
from mdg.errors import KEYS, DataError, Wording
from mdg.options.files import AS_STORED, ThermalScaling

GREY_TOLERANCE = 4  # levels by which the three channels of a grey JPEG may differ after colour conversion
MIN_SPAN = 1e-6  # raw values; where both limits are one value, all that lies above it becomes white


def read_raw_thermal(file: Path, wording: Wording = KEYS) -> np.ndarray:
    """One channel as [H, W] in the dtype of the file (uint8, uint16, float32).

    Three equal channels count as one; so does an alpha channel that hides nothing. ``wording`` is that of messages.

    Raises:
        DataError: An unreadable file, a coloured image, a number that is not finite.
    """
    return raw_thermal(drop_opaque_alpha(read_image(file)), file, wording)


def raw_thermal(image: np.ndarray, file: Path | str, wording: Wording = KEYS) -> np.ndarray:
    """One channel ``[H, W]`` of an image ``[H, W]`` or ``[H, W, C]``; ``file`` names it in messages.

    Raises:
        DataError: A coloured image, a number that is not finite.
    """
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        raise DataError(f"{file}: holds values that are not finite; expected a temperature or a count at every pixel")
    return _single_channel(image, file, wording) if image.ndim == 3 else image


def _single_channel(image: np.ndarray, file: Path | str, wording: Wording) -> np.ndarray:
    if image.shape[2] != 3:
        raise DataError(
            f"{file}: got {count_channels(image)} channels, expected a thermal image with 1 (or 3 equal ones); the "
            f"fourth, transparency, hides a part of it: save it without. Or, {wording.four_channels}"
        )
    blue_HW, green_HW, red_HW = cv2.split(image)  # OpenCV compares them 50 times faster than NumPy along the last axis
    lowest_HW = cv2.min(cv2.min(blue_HW, green_HW), red_HW)
    highest_HW = cv2.max(cv2.max(blue_HW, green_HW), red_HW)
    if cv2.subtract(highest_HW, lowest_HW).max() > (GREY_TOLERANCE if image.dtype == np.uint8 else 0):
        raise DataError(
            f"{file}: got a colour image, expected a thermal image with 1 channel (or 3 equal ones). False colours "
            "cannot be turned back into temperatures: export the images from the camera in grey ('white hot') or as "
            "16-bit raw data"
        )
    return green_HW


def scale_thermal(raw_HW: np.ndarray, scaling: ThermalScaling, file: Path | str, wording: Wording = KEYS) -> np.ndarray:
    """[H, W] uint8, brighter is warmer.

    Args:
        raw_HW: Any numeric dtype.
        scaling: How values become 0..255.
        file, wording: For the message.

    Raises:
        DataError: More than 8 bits, and no scaling that says how they become 8.
    """
    if scaling.mode == "none":
        if raw_HW.dtype != np.uint8:
            raise DataError(
                f"{file}: got {raw_HW.dtype} values {raw_HW.min():g}..{raw_HW.max():g}, expected 8 bits, or the way to "
                f"them. Set {wording.option('thermal_scaling', '{mode: fixed, range: [LOW, HIGH]}')} to keep "
                "temperatures comparable between frames, or mode: percentile or minmax to stretch every frame"
            )
        scaled_HW = raw_HW
    else:
        low, high = _limits(raw_HW, scaling)
        factor = 255.0 / max(high - low, MIN_SPAN)
        scaled_HW = np.clip((raw_HW.astype(np.float32) - low) * factor + 0.5, 0, 255).astype(np.uint8)
    return 255 - scaled_HW if scaling.invert else scaled_HW


def _limits(raw_HW: np.ndarray, scaling: ThermalScaling) -> tuple[float, float]:
    if scaling.mode == "fixed":
        assert scaling.range is not None
        return scaling.range
    percentiles = scaling.percentiles if scaling.mode == "percentile" else (0.0, 100.0)
    low, high = np.percentile(raw_HW, percentiles)
    return float(low), float(high)


def read_thermal(file: Path, scaling: ThermalScaling = AS_STORED, wording: Wording = KEYS) -> np.ndarray:
    """Reads a thermal image as [H, W] uint8; see :func:`read_raw_thermal` and :func:`scale_thermal`."""
    return scale_thermal(read_raw_thermal(file, wording), scaling, file, wording)
