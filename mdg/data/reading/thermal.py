"""Thermal images as cameras write them, brought to 8 bits where brighter is warmer.

Whole numbers are taken as they are stored, and so are floating-point ones; a radiometric JPEG of a FLIR camera gives
degrees Celsius. What the numbers mean matters to the mode ``celsius`` alone.

Shape suffixes: H, W are height and width in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from mdg.data.reading.images import count_channels, decode, drop_opaque_alpha, open_image
from mdg.data.reading.radiometric import describe_origin, read_celsius
from mdg.errors import KEYS, DataError, Wording
from mdg.options.files import AS_STORED, ThermalScaling

GREY_TOLERANCE = 4  # levels by which the three channels of a grey JPEG may differ after colour conversion
MIN_SPAN = 1e-6  # raw values; where both limits are one value, all that lies above it becomes white
ZERO_CELSIUS = 273.15  # kelvin
# Raw values per degree, and the raw value of 0 degrees Celsius.
UNITS = {
    "celsius": (1.0, 0.0),
    "kelvin": (1.0, ZERO_CELSIUS),
    "centikelvin": (100.0, 100 * ZERO_CELSIUS),
    "decikelvin": (10.0, 10 * ZERO_CELSIUS),
}
COLDEST, HOTTEST = -60.0, 700.0  # degrees Celsius between which the median of a picture lies


def read_raw_thermal(file: Path, wording: Wording = KEYS) -> np.ndarray:
    """One channel as [H, W] in the dtype of the file (uint8, uint16, float32); degrees Celsius as float32 of a
    radiometric JPEG of a FLIR camera, whatever its picture shows.

    Three equal channels count as one; so does an alpha channel that hides nothing. ``wording`` is that of messages.

    Raises:
        DataError: An unreadable file, a coloured image, a number that is not finite.
    """
    data, header = open_image(file)
    celsius_HW = read_celsius(data, header, file) if header.kind == "JPEG" else None
    if celsius_HW is not None:
        return celsius_HW
    return raw_thermal(drop_opaque_alpha(decode(data, header, file)), file, wording, data)


def raw_thermal(image: np.ndarray, file: Path | str, wording: Wording = KEYS, data: bytes = b"") -> np.ndarray:
    """One channel ``[H, W]`` of an image ``[H, W]`` or ``[H, W, C]``; ``file`` names it in messages, ``data`` is what
    the file holds.

    Raises:
        DataError: A coloured image, a number that is not finite.
    """
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        raise DataError(f"{file}: holds values that are not finite; expected a temperature or a count at every pixel")
    return _single_channel(image, file, wording, data) if image.ndim == 3 else image


def _single_channel(image: np.ndarray, file: Path | str, wording: Wording, data: bytes) -> np.ndarray:
    if image.shape[2] != 3:
        raise DataError(
            f"{file}: got {count_channels(image)} channels, expected a thermal image with 1 (or 3 equal ones); the "
            f"fourth, transparency, hides a part of it: save it without. Or, {wording.four_channels}"
        )
    blue_HW, green_HW, red_HW = cv2.split(image)  # OpenCV compares them 50 times faster than NumPy along the last axis
    lowest_HW = cv2.min(cv2.min(blue_HW, green_HW), red_HW)
    highest_HW = cv2.max(cv2.max(blue_HW, green_HW), red_HW)
    if cv2.subtract(highest_HW, lowest_HW).max() > (GREY_TOLERANCE if image.dtype == np.uint8 else 0):
        origin = describe_origin(data)
        raise DataError(
            f"{file}: got a colour image, expected a thermal image with 1 channel (or 3 equal ones). "
            + (
                "False colours cannot be turned back into temperatures: export the images from the camera in grey "
                "('white hot') or as 16-bit raw data"
                if origin is None
                else f"It is {origin}"
            )
        )
    return green_HW


def scale_thermal(raw_HW: np.ndarray, scaling: ThermalScaling, file: Path | str, wording: Wording = KEYS) -> np.ndarray:
    """[H, W] uint8, brighter is warmer.

    Args:
        raw_HW: Any numeric dtype.
        scaling: How values become 0..255.
        file, wording: For the message.

    Raises:
        DataError: More than 8 bits, and no scaling that says how they become 8; no temperatures where the scaling
            wants some.
    """
    if scaling.mode == "none":
        if raw_HW.dtype != np.uint8:
            raise DataError(
                f"{file}: got {raw_HW.dtype} values {raw_HW.min():g}..{raw_HW.max():g}, expected 8 bits, or the way to "
                f"them. Set {wording.option('thermal_scaling', '{mode: fixed, range: [LOW, HIGH]}')} to keep "
                "temperatures comparable between frames (mode: celsius takes the range in degrees), or mode: "
                "percentile or minmax to stretch every frame"
            )
        scaled_HW = raw_HW
    elif scaling.quantiles is not None:
        # Turned round first: the quantiles are those of images whose brighter pixels are warmer.
        return _match(raw_HW.max() - raw_HW if scaling.invert else raw_HW, scaling.quantiles)
    else:
        low, high = _limits(raw_HW, scaling, file, wording)
        factor = 255.0 / max(high - low, MIN_SPAN)
        scaled_HW = np.clip((raw_HW.astype(np.float32) - low) * factor + 0.5, 0, 255).astype(np.uint8)
    return 255 - scaled_HW if scaling.invert else scaled_HW


def _limits(raw_HW: np.ndarray, scaling: ThermalScaling, file: Path | str, wording: Wording) -> tuple[float, float]:
    """The raw values that become black and white."""
    if scaling.range is not None:
        if scaling.mode == "fixed":
            return scaling.range
        per_degree, zero = UNITS[_unit(raw_HW, scaling, scaling.range, file, wording)]
        return scaling.range[0] * per_degree + zero, scaling.range[1] * per_degree + zero
    percentiles = scaling.percentiles if scaling.mode == "percentile" else (0.0, 100.0)
    low, high = np.percentile(raw_HW, percentiles)
    return float(low), float(high)


def _match(raw_HW: np.ndarray, quantiles: Sequence[float]) -> np.ndarray:
    """[H, W] uint8: the increasing, piecewise linear curve by which the quantiles of the image become ``quantiles``
    (histogram matching; Gonzalez and Woods, Digital Image Processing, section 3.3)."""
    few = raw_HW.dtype.kind == "u" and raw_HW.dtype.itemsize <= 2  # values: a table of them is twenty times as fast
    if few:
        counts_N = np.bincount(raw_HW.ravel())
        own, values_N = count_quantiles(counts_N, len(quantiles)), np.arange(len(counts_N))
    else:
        own, values_N = np.percentile(raw_HW, np.linspace(0, 100, len(quantiles)), method="inverted_cdf"), raw_HW
    values, place = np.unique(own, return_inverse=True)  # many pixels may have one value, which then has one target
    targets = np.bincount(place, quantiles) / np.bincount(place)
    curve = (np.interp(values_N, values, targets) + 0.5).astype(np.uint8)
    return curve[raw_HW] if few else curve


def count_quantiles(counts_N: np.ndarray, number: int) -> np.ndarray:
    """``[number]`` int64: the smallest values that evenly spaced shares of what was counted, from none to all, do not
    exceed; ``counts_N`` holds how often 0, 1, 2, ... occur."""
    cumulated_N = np.cumsum(counts_N)
    ranks = np.maximum(np.ceil(np.linspace(0, 1, number) * cumulated_N[-1]), 1)
    return np.searchsorted(cumulated_N, ranks)


def _unit(
    raw_HW: np.ndarray, scaling: ThermalScaling, limits: tuple[float, float], file: Path | str, wording: Wording
) -> str:
    """The unit of temperatures; raises DataError where the numbers can hardly be temperatures in it."""
    if raw_HW.dtype == np.uint8:
        raise DataError(
            f"{file}: got 8 bits, which hold no temperatures, expected them for mode: celsius, in 16 bits or floating "
            "point: export them from the camera as TIFF (of DJI's JPEGs with the DJI Thermal Analysis Tool), or set "
            f"{wording.option('thermal_scaling', '{mode: none}')} to take the 8 bits as stored"
        )
    unit = scaling.unit
    if unit == "auto":
        unit = "celsius" if raw_HW.dtype.kind == "f" else "centikelvin"
    median = float(np.median(raw_HW))
    celsius = {name: (median - zero) / per_degree for name, (per_degree, zero) in UNITS.items()}
    low, high = limits

    def spelt(name: str) -> str:
        choice = f"{{mode: celsius, range: [{low:g}, {high:g}], unit: {name}}}"
        return f"{wording.option('thermal_scaling', choice)} makes it {celsius[name]:.1f}"

    if not COLDEST <= celsius[unit] <= HOTTEST:
        others = [spelt(name) for name in UNITS if COLDEST <= celsius[name] <= HOTTEST]
        raise DataError(
            f"{file}: got {raw_HW.dtype} values with median {median:g}, as {unit} {celsius[unit]:.1f} degrees Celsius; "
            f"expected {COLDEST:g}..{HOTTEST:g}. {''.join(f'{other}. ' for other in others)}If they are counts of the "
            "sensor and no temperatures, set mode: fixed with a range of counts, or mode: percentile"
        )
    if scaling.unit == "auto" and unit == "celsius" and celsius[unit] > high and low <= celsius["kelvin"] <= high:
        raise DataError(
            f"{file}: got {raw_HW.dtype} values with median {median:g}, which lies outside the range "
            f"[{low:g}, {high:g}] as degrees Celsius and within it as kelvin; expected a unit that is said. "
            f"{spelt('kelvin')}, and unit: celsius leaves it {median:.1f}"
        )
    return unit


def read_thermal(file: Path, scaling: ThermalScaling = AS_STORED, wording: Wording = KEYS) -> np.ndarray:
    """Reads a thermal image as [H, W] uint8; see :func:`read_raw_thermal` and :func:`scale_thermal`."""
    return scale_thermal(read_raw_thermal(file, wording), scaling, file, wording)
