"""Masks of ids: those of Roboflow ("Semantic segmentation masks", with ``_classes.csv``), and binary ones of one class.

``_classes.csv`` has a line ``Pixel Value, Class`` and one for each class. A mask is called ``NAME_mask.png`` and lies
beside ``NAME.jpg``. Binary masks hold 0 and 255 (or 1) and lie in a folder.
"""

from __future__ import annotations

import csv
from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mdg.data.annotations.read_coco import SPLITS
from mdg.data.annotations.source import NOTHING, Drawn, FileSource, Size, frame_name, require_once
from mdg.data.reading.files import ALL_SUFFIXES, list_folder, walk
from mdg.data.reading.labels import read_ids, shorten
from mdg.data.reading.names import read_lines
from mdg.errors import DataError

CLASSES = "_classes.csv"
MASK = "_mask"


class _IdSource(FileSource):
    """Frames that are files of ids."""

    def read(self, name: str, size: Size | None = None) -> Drawn:
        file = self._files[name]
        ids_HW = read_ids(file)
        present, place_HW, counts = np.unique(ids_HW, return_inverse=True, return_counts=True)
        labels = self._labels(file, dict(zip(present.tolist(), counts.tolist(), strict=True)))
        used = list(dict.fromkeys(label for label in labels.values() if label is not None))
        places = [NOTHING if labels[id] is None else used.index(str(labels[id])) for id in present.tolist()]
        index_HW = np.array(places, np.int16)[place_HW.reshape(ids_HW.shape)]
        return Drawn(tuple(used), index_HW, Counter(used), ())

    @abstractmethod
    def _labels(self, file: Path, counts: Mapping[int, int]) -> dict[int, str | None]:
        """The label of every id of a file, None for none, by how often the ids occur; raises DataError."""


class RoboflowMasks(_IdSource):
    """Folders with ``_classes.csv`` and masks.

    Args:
        folders: The folders; where there are several, their names tell the splits.
    """

    kind = "Roboflow masks"

    def __init__(self, folders: Sequence[Path]):
        super().__init__()
        self._classes: dict[Path, dict[int, str]] = {}
        for folder in folders:
            self._classes[folder] = read_classes(folder / CLASSES)
            self.known |= dict.fromkeys(self._classes[folder].values())
            for stem, file in list_folder(folder, (".png",)).items():
                if not stem.endswith(MASK):
                    continue  # the image
                name = frame_name(f"{stem.removesuffix(MASK)}.png", file)
                require_once(self._files, name, file)
                self._files[name] = file
                if len(folders) > 1 and folder.name.lower() in SPLITS:
                    self.splits[name] = SPLITS[folder.name.lower()]
        self.names = sorted(self._files)

    def _labels(self, file: Path, counts: Mapping[int, int]) -> dict[int, str | None]:
        classes = self._classes[file.parent]
        unknown = sorted(set(counts) - set(classes), key=lambda id: -counts[id])
        if unknown:
            near = min(classes, key=lambda id: abs(id - unknown[0]))
            raise DataError(
                f"{file}: got the value {unknown[0]} on {counts[unknown[0]]} pixels ({len(unknown)} such value(s)), "
                f"which {file.parent / CLASSES} does not name; the nearest is {near} ({classes[near]})"
            )
        return {id: classes[id] for id in counts}


def read_classes(file: Path) -> dict[int, str]:
    """Class by pixel value in ``_classes.csv``; raises DataError naming the line."""
    classes: dict[int, str] = {}
    for place, (number, line) in enumerate(read_lines(file).items()):
        cells = [cell.strip() for cell in next(csv.reader([line], skipinitialspace=True))]
        if place == 0 and not cells[0].isdecimal():
            continue  # the line of titles
        if len(cells) != 2 or not cells[0].isdecimal() or not cells[1] or int(cells[0]) in classes:
            raise DataError(f"{file}, line {number}: got {line[:60]!r}, expected VALUE, CLASS, each value once")
        classes[int(cells[0])] = cells[1]
    if not classes:
        raise DataError(f"{file}: no class in it; expected lines VALUE, CLASS")
    return classes


class BinaryMasks(_IdSource):
    """A folder of masks that hold 0 and one other value.

    Args:
        folder: The folder; names may hold folders below it.
        label: What the other value is called.
    """

    kind = "binary masks"

    def __init__(self, folder: Path, label: str):
        super().__init__()
        self._label = label
        self.known = {label: None}
        for file in walk(folder):
            if file.suffix.lower() not in ALL_SUFFIXES:
                continue
            name = frame_name(file.relative_to(folder).as_posix(), file)
            require_once(self._files, name, file)
            self._files[name] = file
        self.names = sorted(self._files)

    def _labels(self, file: Path, counts: Mapping[int, int]) -> dict[int, str | None]:
        if not any(set(counts) <= {0, other} for other in (255, 1)):
            raise DataError(
                f"{file}: got the values {shorten(np.array(sorted(counts)))}, expected 0 and 255 (or 0 and 1), a mask "
                "of one class. Masks of several ids need no preparation: data.label_map of `type: Folder` names them"
            )
        return {id: self._label if id else None for id in counts}
