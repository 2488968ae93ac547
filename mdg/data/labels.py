"""Label files: ids or colours on disk, class ids in memory.

Shape suffixes: H, W are height and width in pixels, K the number of classes, 3 the channels R, G, B.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from mdg.data.images import drop_opaque_alpha, read_image, read_uint8
from mdg.errors import DataError

IGNORED = 255
MAX_CLASSES = 255  # 255 itself is the ignored id
IDS = 65536  # largest table of ids: 16-bit files
UNKNOWN = -1
PALETTE_COLOUR_TYPE = 3  # in the header of a PNG: pixels are indices into a palette

LabelReader = Callable[[Path], np.ndarray]


class IdLabels:
    """Reads label files that hold ids: one channel of 8 or 16 bits, three equal ones, or indices into a palette.

    Args:
        num_classes: K.
        mapping: Class id (or 255, ignored) of every id that may occur; None takes ``0 .. K - 1`` as they are.
        ignored: Ids that become 255.
    """

    def __init__(self, num_classes: int, mapping: Mapping[int, int] | None = None, ignored: Sequence[int] = ()):
        assert 0 < num_classes <= MAX_CLASSES, num_classes
        self.num_classes = num_classes
        known = dict(mapping) if mapping is not None else {k: k for k in range(num_classes)}
        known |= dict.fromkeys(ignored, IGNORED)
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
        if len(np.unique(keys)) != len(keys):
            raise DataError("data.palette and data.ignore_colours name a colour twice; expected one colour per class")
        order = np.argsort(keys)
        self._keys, self._ids = keys[order], ids[order]

    def __call__(self, file: Path) -> np.ndarray:
        """[H, W] uint8 class ids, 255 ignored; raises DataError naming colours that are no class."""
        image = drop_opaque_alpha(read_uint8(file))
        if image.ndim != 3 or image.shape[2] != 3:
            raise DataError(f"{file}: got one channel, expected colours; for ids set data.label_format: ids")
        packed_HW = _pack(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
        place_HW = np.searchsorted(self._keys, packed_HW).clip(max=len(self._keys) - 1)
        unknown_HW = self._keys[place_HW] != packed_HW
        if unknown_HW.any():
            wrong = np.unique(packed_HW[unknown_HW])
            shown = [f"[{key >> 16}, {key >> 8 & 255}, {key & 255}]" for key in wrong[:5].tolist()]
            raise DataError(
                f"{file}: got {len(wrong)} colour(s) that are no class on {int(unknown_HW.sum())} pixels: "
                f"{', '.join(shown)}{' ...' if len(wrong) > 5 else ''}; add them to data.palette or "
                "data.ignore_colours. Blended colours along edges come from resizing or JPEG: take lossless labels"
            )
        return self._ids[place_HW]


def read_ids(file: Path) -> np.ndarray:
    """[H, W] uint8 or uint16 ids as stored; of a PNG with a palette the indices, which OpenCV would render.

    Raises:
        DataError: An unreadable file, colours, or more than 16 bits.
    """
    if _has_palette(file):
        with Image.open(file) as image:
            return np.array(image)
    ids = drop_opaque_alpha(read_image(file))
    if ids.ndim == 3 and ids.shape[2] == 3 and (ids == ids[..., :1]).all():
        ids = np.ascontiguousarray(ids[..., 0])
    if ids.ndim != 2:
        raise DataError(
            f"{file}: got colours, expected a label with 1 channel (or 3 equal ones) of class ids; `type: Folder` "
            "reads colours with data.label_format: colours"
        )
    if ids.dtype not in (np.uint8, np.uint16):
        raise DataError(f"{file}: got {ids.dtype} values, expected a label of 8 or 16 bits")
    return ids


def _has_palette(file: Path) -> bool:
    try:
        with open(file, "rb") as stream:
            header = stream.read(26)
    except OSError:
        return False  # the reader that follows names the reason
    return header[:4] == b"\x89PNG" and len(header) == 26 and header[25] == PALETTE_COLOUR_TYPE


def _pack(colours: np.ndarray) -> np.ndarray:
    wide = colours.astype(np.int32)
    return wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]


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
