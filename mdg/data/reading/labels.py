"""Label files: ids or colours on disk, class ids in memory.

Shape suffixes: H, W are height and width in pixels, K the number of classes, 3 the channels R, G, B.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from mdg.data.reading.headers import PILLOW_ERRORS, Header, open_by_pillow
from mdg.data.reading.images import count_channels, damaged, decode, drop_opaque_alpha, open_image, upright
from mdg.errors import DataError
from mdg.fields import IDS, IGNORED, MAX_CLASSES

UNKNOWN = -1
SHOWN = 10  # ids in a message
LOSSY = (
    "labels must be stored without loss: compression as photographs have it changes ids along every edge. Export them "
    "again as PNG; converting this file does not bring the ids back"
)
TRANSPARENT = "save it without transparency, which leaves open what the hidden pixels are"

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
        self._ignored_by_default = mapping is None and IGNORED in ignored
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
            blended = ". So many ids come from resizing, or from JPEG on the way" if len(wrong) > SHOWN else ""
            raise DataError(
                f"{file}: got label ids {shorten(wrong)}, expected {self._expected}; use the label files of class ids, "
                "not rendered colours or a visualisation, or say what these ids are (data.label_map of `type: "
                f"Folder`){blended}"
            )
        return label_HW.astype(np.uint8)

    def find_doubt(self, files: Sequence[Path]) -> str | None:
        """Says so where nothing but class 0 could be learnt because 255 is ignored by default, as masks of 0 and 255
        would be; None otherwise. Files are read until one shows another class; unreadable ones are passed over."""
        if not self._ignored_by_default:
            return None
        masks = []
        for file in random.Random(0).sample(files, len(files)):  # frames of one kind may lie together
            try:
                counts = np.bincount(self(file).ravel(), minlength=IGNORED + 1)
            except DataError:
                continue  # it is named where the frame is read
            if counts[1:IGNORED].any():
                return None
            if counts[IGNORED]:
                masks.append(file)
        if not masks:
            return None
        kept = ", ".join(f"{k}: {k}" for k in range(self.num_classes)) if self.num_classes <= SHOWN else "0: 0, ..."
        return (
            f"{min(masks)}: {len(masks)} of {len(files)} label files hold 255, which is ignored, and none holds a "
            "class other than 0, so nothing else could be learnt or scored. If 255 is a class, as in masks of 0 and "
            f"255, set data.label_map: {{0: 0, 255: 1}}; if it is not, say so with "
            f"data.label_map: {{{kept}, 255: ignore}}"
        )


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
        image = drop_opaque_alpha(decode(*_open_lossless(file), file))
        if image.dtype != np.uint8:
            raise DataError(f"{file}: got {image.dtype} values, expected colours of 8 bits per channel")
        if image.ndim != 3 or image.shape[2] != 3:
            advice = "for ids set data.label_format: ids" if image.ndim == 2 else TRANSPARENT
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
    """[H, W] uint8 or uint16 ids as stored; of a file with a palette the indices, which OpenCV would render.

    Raises:
        DataError: An unreadable file, one that was compressed with loss, colours, transparency, or more than 16 bits.
    """
    data, header = _open_lossless(file)
    if header.palette or header.bits < 8:
        return _read_indices(data, header, file)
    image = drop_opaque_alpha(decode(data, header, file))
    planes = cv2.split(image)
    equal = len(planes) >= 3 and np.array_equal(planes[0], planes[1]) and np.array_equal(planes[0], planes[2])
    if len(planes) == 4:
        what = "" if equal else "colours, and "
        raise DataError(
            f"{file}: got {what}a fourth channel, expected a label with 1 channel of class ids; {TRANSPARENT}"
        )
    ids = planes[0] if equal else image
    if ids.ndim != 2:
        raise DataError(
            f"{file}: got colours, expected a label with 1 channel (or 3 equal ones) of class ids; `type: Folder` "
            "reads colours with data.label_format: colours"
        )
    if ids.dtype not in (np.uint8, np.uint16):
        raise DataError(f"{file}: got {ids.dtype} values, expected a label of 8 or 16 bits")
    return ids


def _open_lossless(file: Path) -> tuple[bytes, Header]:
    data, header = open_image(file)
    if header.lossy:
        raise DataError(f"{file}: got a {header.kind} file, compressed with loss; {LOSSY}")
    return data, header


def _read_indices(data: bytes, header: Header, file: Path) -> np.ndarray:
    """Indices into a palette, and grey of less than 8 bits as stored: OpenCV stretches that to 0..255, or refuses."""
    image = open_by_pillow(data, (header.kind,))
    try:
        indices = None if image is None else np.array(image)
    except PILLOW_ERRORS:
        indices = None
    if indices is None or indices.ndim != 2:
        raise damaged(file, data, header)
    if indices.dtype == bool:
        indices = indices.astype(np.uint8)
    elif not header.palette:
        indices //= 255 // (2**header.bits - 1)
    return upright(indices, header.orientation)


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


def shorten(values: np.ndarray, shown: int = SHOWN) -> str:
    """The first values, with dots where there are more."""
    return ", ".join(map(str, values[:shown].tolist())) + (" ..." if len(values) > shown else "")
