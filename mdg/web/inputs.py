"""From files that somebody dropped on the page to pairs: which of them hold what, and how messages speak of them.

Shape suffixes: H, W are height and width in pixels, 3 the channels R, G, B.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mdg.data.reading.images import open_image, quiet_opencv, read_rgb
from mdg.data.reading.pairs import holds_both, read_pair
from mdg.data.reading.thermal import scale_thermal
from mdg.data.reading.video import split_halves
from mdg.engine.predictor import parse_choices
from mdg.errors import DataError, Wording
from mdg.options.files import PairOptions
from mdg.utils.limits import require_within

READING = "How the files are read"
LABELS = {"thermal_scaling": "Thermal values", "align": "Sizes", "grey_rgb": "Grey RGB"}
SIZES = {"": "as in training", "rgb": "both as RGB", "thermal": "both as thermal"}
PAGE = Wording(
    lambda key, value: f"“{LABELS[key]}: {SIZES.get(value, value)}” under “{READING}”",
    "if it is thermal, drop it alone",
    "drop the thermal image beside it, or say that one file shows both side by side",
)
Layout = Literal["files", "left", "right"]
"""Two files (or one that holds both), or both cameras beside each other with colour in this half."""
NOT_IN_NAMES = re.compile(r"[^\w.-]+")
LONGEST_NAME = 60


def read_files(
    rgb: str | Path | None, thermal: str | Path | None, layout: Layout, options: PairOptions
) -> tuple[np.ndarray, np.ndarray]:
    """RGB ``[H, W, 3]`` and thermal ``[H, W]``, uint8, of what was dropped.

    Args:
        rgb, thermal: Two images; or one alone that holds both: a radiometric JPEG with a photograph inside, an image of
            four channels, or, by ``layout``, two halves.
        layout: What one file shows.
        options: How they are prepared.

    Raises:
        DataError: A file that cannot be used, or one that is missing; the message calls files by their names.
    """
    first, second = (None if file is None else Path(file) for file in (rgb, thermal))
    if first is None and second is None:
        raise DataError("got no file; drop an RGB image and a thermal one, or one file that holds both")
    if first is None or second is None:
        first, second = first or second, None
    assert first is not None
    try:
        for file in (first, second):
            if file is not None:
                _require_size(file)
        with quiet_opencv():
            if layout != "files":
                return _halves(first, second, layout, options)
            if rgb is None and not holds_both(first):
                raise DataError(f"{first}: got a thermal image alone, expected an RGB image of the same view beside it")
            return read_pair(first, second, options, PAGE)
    except DataError as error:
        raise DataError(by_name(str(error), first, second)) from None


def _require_size(file: Path) -> None:
    header = open_image(file)[1]
    require_within("page_pixels", header.height * header.width, file, DataError)


def _halves(file: Path, second: Path | None, layout: Layout, options: PairOptions) -> tuple[np.ndarray, np.ndarray]:
    if second is not None:
        raise DataError(f"got two files, {file} and {second}, expected one that shows both cameras side by side")
    assert layout != "files"
    colour_HW3, heat_HW = split_halves(read_rgb(file, "refuse", PAGE), layout, file)
    return colour_HW3, scale_thermal(heat_HW, options.thermal_scaling, file, PAGE)


def options_of_page(trained: PairOptions, scaling: str | None, sizes: str | None, grey: bool) -> PairOptions:
    """How pairs are prepared: as the network was trained, but for what is chosen on the page.

    Args:
        trained: Of the predictor.
        scaling: Name of a mode or YAML, as of ``--thermal-scaling``; empty for that of ``trained``.
        sizes: ``rgb`` or ``thermal``; empty for that of ``trained``.
        grey: Whether RGB may be grey.

    Raises:
        UserError: A scaling that does not exist.
    """
    chosen: dict[str, Any] = {"thermal_scaling": (scaling or "").strip() or None, "align": sizes or None}
    parsed = parse_choices(lambda key: LABELS[key], **chosen, grey_rgb="repeat" if grey else None)
    return trained.model_copy(update=parsed)


def by_name(message: str, *files: str | Path | None) -> str:
    """The message with files called by their names, without the folder that they were uploaded to."""
    for file in files:
        if file is not None:
            message = message.replace(str(file), os.path.basename(file))
    return message


def name_of(*files: str | Path | None) -> str:
    """A name for what is made of files: that of the first, in letters that every system takes."""
    stem = next((Path(file).stem for file in files if file is not None), "")
    return NOT_IN_NAMES.sub("_", stem)[:LONGEST_NAME].strip("._") or "pair"
