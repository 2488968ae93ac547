"""Label files: ids or colours on disk, class ids in memory.

Shape suffixes: H, W are height and width in pixels, K the number of classes, 3 the channels R, G, B.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from mdg.data.images import count_channels, drop_opaque_alpha, read_image, read_uint8, unreadable
from mdg.errors import DataError

IGNORED = 255
MAX_CLASSES = 255  # 255 itself is the ignored id
IDS = 65536  # largest table of ids: 16-bit files
UNKNOWN = -1
GREY, PALETTE = 0, 3  # colour types in the header of a PNG: one channel, or indices into a palette

LabelReader = Callable[[Path], np.ndarray]


class IdLabels:
    """Reads label files that hold ids: one channel of 8 or 16 bits, three equal ones, or indices into a palette.

    Args:
        num_classes: K.
        mapping: Class id (or 255, ignored) of every id that may occur; None takes ``0 .. K - 1`` as they are.
        ignored: Ids that become 255; one that ``mapping`` names keeps its class.
    """

    def __init__(self, num_classes: int, mapping: Mapping[int, int] | None = None, ignored: Sequence[int] = ()):
        assert 0 < num_classes <= MAX_CLASSES, num_classes
        self.num_classes = num_classes
        skipped = dict.fromkeys(ignored, IGNORED)
        # Masks of 0 and 255 exist: an explicit class for 255 wins over its being ignored by default.
        known = {k: k for k in range(num_classes)} | skipped if mapping is None else skipped | dict(mapping)
        self._expected = describe_ids(known)
        self._plain = mapping is None and all(i == IGNORED for i in ignored)
        self._table = np.full(IDS, UNKNOWN, np.int16)
        self._table[list(known)] = list(known.values())

    def __call__(self, file: Path) -> np.ndarray:
        """[H, W] uint8 class ids, 255 ignored; raises DataError naming ids that are not expected."""
        ids_HW = read_ids(file)
        if self._plain and ids_HW.dtype == np.uint8 and ids_HW.size and ids_HW.max() < self.num_classes:
            return ids_HW
        label_HW = self._table[ids_HW]
        if label_HW.size and label_HW.min() == UNKNOWN:
            wrong = np.unique(ids_HW[label_HW == UNKNOWN])
            raise DataError(
                f"{file}: got label ids {shorten(wrong)}, expected {self._expected}; use the label files of class ids, "
                "not rendered colours or a visualisation, or say what these ids are (data.label_map of `type: Folder`)"
            )
        return label_HW.astype(np.uint8)


class ColourLabels:
    """Reads label files whose colours are classes.

    Args:
        palette_K3: uint8 R, G, B per class id; colours must differ.
        ignored: Colours that become 255.
    """

    def __init__(self, palette_K3: np.ndarray, ignored: Sequence[Sequence[int]] = ()):
        colours = np.concatenate([palette_K3.reshape(-1, 3), np.array(ignored, np.uint8).reshape(-1, 3)])
        ids = np.concatenate([np.arange(len(palette_K3)), np.full(len(ignored), IGNORED)]).astype(np.uint8)
        keys = _pack(colours)
        different, counts = np.unique(keys, return_counts=True)
        if (counts > 1).any():
            twice = _describe_colours(different[counts > 1])
            raise DataError(f"data.palette and data.ignore_colours name {twice} twice; expected one colour per class")
        order = np.argsort(keys)
        self._keys, self._ids = keys[order], ids[order]

    def __call__(self, file: Path) -> np.ndarray:
        """[H, W] uint8 class ids, 255 ignored; raises DataError naming colours that are no class."""
        image = drop_opaque_alpha(read_uint8(file))
        if image.ndim != 3 or image.shape[2] != 3:
            advice = "for ids set data.label_format: ids" if image.ndim == 2 else "save it without transparency"
            raise DataError(f"{file}: got {count_channels(image)} channel(s), expected 3 of colour; {advice}")
        packed_HW = _pack(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
        place_HW = np.searchsorted(self._keys, packed_HW).clip(max=len(self._keys) - 1)
        unknown_HW = self._keys[place_HW] != packed_HW
        if unknown_HW.any():
            wrong = np.unique(packed_HW[unknown_HW])
            raise DataError(
                f"{file}: got {len(wrong)} colour(s) that are no class on {int(unknown_HW.sum())} pixels: "
                f"{_describe_colours(wrong)}; add them to data.palette or data.ignore_colours. Blended colours along "
                "edges come from resizing or JPEG: take lossless labels"
            )
        return self._ids[place_HW]


def read_ids(file: Path) -> np.ndarray:
    """[H, W] uint8 or uint16 ids as stored; of a PNG with a palette the indices, which OpenCV would render.

    Raises:
        DataError: An unreadable file, colours, or more than 16 bits.
    """
    depth, colour_type = _png_format(file)
    if colour_type == PALETTE:
        return _read_indices(file)
    ids = drop_opaque_alpha(read_image(file))
    if colour_type == GREY and depth < 8:
        ids //= 255 // (2**depth - 1)  # OpenCV stretches grey of 1, 2 or 4 bits to 0..255
    planes = cv2.split(ids)
    if len(planes) == 3 and np.array_equal(planes[0], planes[1]) and np.array_equal(planes[0], planes[2]):
        ids = planes[0]
    if ids.ndim != 2:
        raise DataError(
            f"{file}: got colours, expected a label with 1 channel (or 3 equal ones) of class ids; `type: Folder` "
            "reads colours with data.label_format: colours"
        )
    if ids.dtype not in (np.uint8, np.uint16):
        raise DataError(f"{file}: got {ids.dtype} values, expected a label of 8 or 16 bits")
    return ids


def _png_format(file: Path) -> tuple[int, int | None]:
    """Bits per sample and colour type in the header of a PNG; (8, None) of any other file."""
    try:
        with open(file, "rb") as stream:
            header = stream.read(26)
    except OSError:
        return 8, None  # the reader that follows names the reason
    return (header[24], header[25]) if header[:4] == b"\x89PNG" and len(header) == 26 else (8, None)


def _read_indices(file: Path) -> np.ndarray:
    try:
        with Image.open(file) as image:
            return np.array(image)
    except (OSError, SyntaxError, ValueError):  # what Pillow raises for truncated and damaged files
        raise unreadable(file) from None


def _pack(colours: np.ndarray) -> np.ndarray:
    wide = colours.astype(np.int32)
    return wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]


def _describe_colours(keys: np.ndarray) -> str:
    shown = [f"[{key >> 16}, {key >> 8 & 255}, {key & 255}]" for key in keys[:5].tolist()]
    return ", ".join(shown) + (" ..." if len(keys) > 5 else "")


def describe_ids(known: Mapping[int, int]) -> str:
    """ "0..8" or "0..4, 255": the ids that may occur."""
    ids = sorted(known)
    runs: list[list[int]] = []
    for value in ids:
        if runs and value == runs[-1][-1] + 1:
            runs[-1].append(value)
        else:
            runs.append([value])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}..{run[-1]}" for run in runs)


def shorten(values: np.ndarray, shown: int = 10) -> str:
    """The first values, with dots where there are more."""
    return ", ".join(map(str, values[:shown].tolist())) + (" ..." if len(values) > shown else "")
