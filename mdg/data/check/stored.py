"""Files as they lie on disk, before anything is scaled or resized.

Shape suffixes: H, W are height and width in pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mdg.data.reading.images import open_image, read_image
from mdg.data.reading.thermal import read_raw_thermal
from mdg.errors import DataError


class Stored(NamedTuple):
    """Size and channels of an image file."""

    height: int
    width: int
    channels: int


def stored_format(file: Path) -> Stored | None:
    """Size (as it is seen, after any turn) and channels by the header of the file; None where it cannot be read at all
    (reading it properly says why)."""
    try:
        _, header = open_image(file)
    except DataError:
        return None
    sides = header.height, header.width
    return Stored(*(sides if header.orientation < 5 else sides[::-1]), header.channels)


def raw_thermal(files: Mapping[str, Path | None]) -> np.ndarray | None:
    """[H, W] thermal values in the dtype of the file; None where they cannot be read.

    A file that is both RGB and thermal holds thermal in its fourth channel.
    """
    file = files["thermal"]
    if file is None:
        return None
    try:
        if file != files["rgb"]:
            return read_raw_thermal(file)
        image = read_image(file)
    except DataError:
        return None
    return np.ascontiguousarray(image[..., 3]) if image.ndim == 3 and image.shape[2] == 4 else None
