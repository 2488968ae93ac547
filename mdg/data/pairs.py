"""From two files, or one of four channels, to an RGB and a thermal image of one size."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mdg.data.reading.images import GreyRGB, read_rgb, read_rgb_thermal
from mdg.data.reading.pairs import Alignment, align
from mdg.data.reading.thermal import AS_STORED, ThermalScaling, read_raw_thermal, scale_thermal
from mdg.data.wording import KEYS, Wording
from mdg.registry import Options


class PairOptions(Options):
    """How the files of a pair become images."""

    thermal_scaling: ThermalScaling = AS_STORED
    """How thermal images of more than 8 bits become 8, and which end is warm."""
    align: Alignment = "refuse"
    """Where RGB and thermal differ in size: `refuse`, or resize both to the size of `rgb`, `thermal` or `label`."""
    grey_rgb: GreyRGB = "refuse"
    """Where an RGB image has one channel, as some cameras write at night: `refuse`, or `repeat` it three times."""


def read_pair(
    rgb: Path, thermal: Path | None, options: PairOptions, wording: Wording = KEYS
) -> tuple[np.ndarray, np.ndarray]:
    """RGB ``[H, W, 3]`` and thermal ``[H, W]``, uint8.

    Args:
        rgb: Image in colour; with thermal as its fourth channel where ``thermal`` is None.
        thermal: Thermal image.
        options: How they are prepared.
        wording: How messages name the options.

    Raises:
        DataError: A file that cannot be used; the message names it.
    """
    if thermal is None:
        rgb_HW3, raw_HW = read_rgb_thermal(rgb, wording)
    else:
        rgb_HW3, raw_HW = read_rgb(rgb, options.grey_rgb, wording), read_raw_thermal(thermal, wording)
    thermal_HW = scale_thermal(raw_HW, options.thermal_scaling, thermal or rgb, wording)
    return align(rgb_HW3, thermal_HW, None, options.align, {"rgb": rgb, "thermal": thermal}, wording)
