"""Pascal VOC as CVAT exports it ("Segmentation mask 1.1"): colour PNGs and ``labelmap.txt``.

A line of the label map is ``name:r,g,b:parts:actions``; the last two say nothing about pixels. Where the colour is left
out it is that of PASCAL VOC's colour map for the place of the line. The PNGs lie in
``SegmentationClass``; the colours of objects in ``SegmentationObject`` are not read.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import cv2
import numpy as np

from mdg.data.annotations.source import Colour, Drawn, FileSource, Size, frame_name
from mdg.data.datasets.folder import make_palette
from mdg.data.reading.files import find_folders, walk
from mdg.data.reading.images import decode, drop_opaque_alpha, open_image
from mdg.data.reading.labels import LOSSY, TRANSPARENT
from mdg.data.reading.names import read_lines
from mdg.errors import DataError

LABEL_MAP = "labelmap.txt"
FOLDERS = {"masks": ("segmentationclass",)}


class ColourSource(FileSource):
    """A folder with ``labelmap.txt`` and ``SegmentationClass/``.

    Raises:
        DataError: No such folder, or a label map that is damaged or has a colour twice.
    """

    kind = "colour PNGs with labelmap.txt"

    def __init__(self, root: Path):
        super().__init__()
        self._map = root / LABEL_MAP
        colours = read_label_map(self._map)
        self.known = dict(colours)
        self._labels = tuple(colours)
        folders = find_folders(root, FOLDERS)
        if folders is None:
            raise DataError(f"{root}: no folder SegmentationClass beside {LABEL_MAP}; export as 'Segmentation mask'")
        place = folders["masks"]
        files = [file for file in walk(place) if file.suffix.lower() == ".png"]
        self._files = {frame_name(file.relative_to(place).as_posix(), file): file for file in files}
        self.names = sorted(self._files)

    def read(self, name: str, size: Size | None = None) -> Drawn:
        file = self._files[name]
        packed_HW = _read_colours(file)
        keys = np.array([_pack(colour) for colour in self.known.values() if colour is not None], np.int64)
        order = np.argsort(keys)
        place_HW = np.searchsorted(keys[order], packed_HW).clip(max=len(keys) - 1)
        unknown_HW = keys[order][place_HW] != packed_HW
        if unknown_HW.any():
            raise DataError(self._describe(file, packed_HW[unknown_HW]))
        index_HW = order[place_HW].astype(np.int16)
        used = np.unique(index_HW).tolist()
        return Drawn(self._labels, index_HW, Counter({self._labels[place]: 1 for place in used}), ())

    def _describe(self, file: Path, packed: np.ndarray) -> str:
        different, counts = np.unique(packed, return_counts=True)
        most = int(np.argmax(counts))
        colour = _unpack(int(different[most]))
        label, near = min(
            ((label, known) for label, known in self.known.items() if known is not None),
            key=lambda pair: sum((a - b) ** 2 for a, b in zip(pair[1], colour, strict=True)),
        )
        rest = len(packed) - counts[most]
        others = f" and {len(different) - 1} other colour(s) on {rest}" if len(counts) > 1 else ""
        return (
            f"{file}: got the colour {_text(colour)} on {counts[most]} pixels{others}, not in {self._map}; "
            f"the nearest is {_text(near)} ({label}). Add a line 'name:{_text(colour)}::' there; many colours along "
            "edges come from resizing or JPEG"
        )


def read_label_map(file: Path) -> dict[str, Colour]:
    """Colours by label, in the order of the file; raises DataError naming the line."""
    colours: dict[str, Colour] = {}
    taken: dict[Colour, str] = {}
    lines = read_lines(file)
    usual = make_palette(len(lines), None)
    for (number, line), voc in zip(lines.items(), usual.tolist(), strict=True):
        where = f"{file}, line {number}"
        parts = line.split(":")
        try:
            red, green, blue = (int(level) for level in parts[1].split(",")) if parts[1].strip() else voc
            colour = (red, green, blue)
            if not parts[0].strip() or not all(0 <= level <= 255 for level in colour):
                raise ValueError
        except (ValueError, IndexError):
            raise DataError(f"{where}: got {line[:60]!r}, expected name:r,g,b:parts:actions, levels 0..255") from None
        label = parts[0].strip()
        if label in colours or colour in taken:
            raise DataError(f"{where}: '{label}' or its colour stands there twice; expected one colour a label")
        colours[label], taken[colour] = colour, label
    if not colours:
        raise DataError(f"{file}: no label in it; expected lines name:r,g,b:parts:actions")
    return colours


def _read_colours(file: Path) -> np.ndarray:
    """[H, W] int64, R, G and B of a lossless image in one number; a palette is looked up."""
    data, header = open_image(file)
    if header.lossy:
        raise DataError(f"{file}: got a {header.kind} file, compressed with loss; {LOSSY}")
    image = drop_opaque_alpha(decode(data, header, file))
    if image.dtype != np.uint8:
        raise DataError(f"{file}: got {image.dtype} values, expected colours of 8 bits per channel")
    if image.ndim == 2:  # where all colours of a frame are grey, programs store one channel
        image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    if image.shape[2] != 3:
        raise DataError(f"{file}: got {image.shape[2]} channels, expected 3 of colour; {TRANSPARENT}")
    blue, green, red = (plane.astype(np.int64) for plane in cv2.split(image))
    return red << 16 | green << 8 | blue


def _pack(colour: Colour) -> int:
    return colour[0] << 16 | colour[1] << 8 | colour[2]


def _unpack(key: int) -> Colour:
    return key >> 16, key >> 8 & 255, key & 255


def _text(colour: Colour) -> str:
    return ",".join(map(str, colour))
