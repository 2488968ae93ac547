"""Data sets whose frames are files: finding them, checking that none is missing, reading them.

A subclass names the folders (or files) of each part and inherits the reading: 16-bit thermal images, modalities of
different sizes and label formats are handled in one place for all of them. Where there is one folder per split and, in
it, one folder per part (``ROOT/SPLIT/PART/NAME.png``) :class:`SplitFolderDataset` finds them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np

from mdg.data.base import UNLABELLED, Frame, RGBTDataset
from mdg.data.reading.files import SUFFIXES_OF, check_complete, clues_in, find_folders, list_folder, list_others, unread
from mdg.data.reading.images import read_rgb
from mdg.data.reading.labels import IdLabels, LabelReader
from mdg.data.reading.names import pick, unite
from mdg.data.reading.pairs import align, name_parts, read_joint, seen_by_both
from mdg.data.reading.thermal import read_thermal
from mdg.data.registration.rig_file import read_rig
from mdg.errors import DataError, nearest
from mdg.options.files import (
    Alignment,
    ColourOptions,
    FileOptions,
    GreyRGB,
    PairOptions,
    RigAlignment,
    SplitFolderOptions,
)
from mdg.utils.files import file_sha256

logger = logging.getLogger("mdg.data")
PARTS = ("rgb", "thermal", "label")
FrameFiles = dict[str, Path | None]  # a file per part; None where it is missing


class FileDataset(RGBTDataset):
    """A split of files. Subclasses call :meth:`_list` once with what they found.

    Args:
        options: Where the data set lies and how its files become images.
        role: ``train``, ``val`` or ``test``.

    Attributes:
        files: Per frame the file of each part; None where it is missing.
        missing: Names without a file, by the folder (or other place) it was expected in.
        clues: Why, by that place and the name, where it can be seen.
        unread: A sentence on images that lie there and take no part, because files of their kind are not read.
        listed_in: What names the frames of the split, for messages.
    """

    read_label: LabelReader

    def __init__(self, options: FileOptions | ColourOptions, *, role: str):
        super().__init__(options, role=role)
        self.root = options.root
        # One camera leaves nothing to choose.
        pair = options if isinstance(options, PairOptions) else PairOptions()
        self.thermal_scaling = pair.thermal_scaling
        self.align: Alignment = pair.align
        self.rig = pair.align.file if isinstance(pair.align, RigAlignment) else None
        if self.rig is not None:
            read_rig(self.rig)  # a mistake in it is said before frames are looked for
        self.grey_rgb: GreyRGB = pair.grey_rgb
        self.parts = (*self.cameras, "label") if role != UNLABELLED else self.cameras
        self.files: list[FrameFiles] = []
        self.missing: dict[Path, list[str]] = {}
        self.clues: dict[tuple[Path, str], str] = {}
        self.unread: str | None = None
        self.listed_in = self.root

    def _list(
        self,
        names: Iterable[str],
        folders: Mapping[str, Path],
        found: Mapping[str, Mapping[str, Path]],
        explain: Callable[[str, list[str]], dict[str, str]],
    ) -> None:
        """Sets the frames of the split.

        Args:
            names: Frames of the split on disk; this role's share of them is taken.
            folders: Where the files of each part were looked for.
            found: Per part, the files by name.
            explain: Clues why names lack a file, given the part and these names.
        """
        self.names = self._share(list(names))
        self.files = [{part: found[part].get(name) for part in self.parts} for name in self.names]
        for part in self.parts:
            lacking = [name for name, files in zip(self.names, self.files, strict=True) if files[part] is None]
            if lacking:
                self.clues |= {(folders[part], name): clue for name, clue in explain(part, lacking).items()}
            known = self.missing.get(folders[part], [])  # RGB and thermal may come from one folder
            self.missing[folders[part]] = list(dict.fromkeys([*known, *lacking]))

    def require_complete(self) -> None:
        """Raises DataError naming the frames without all their files, or binary masks of which nothing could be
        learnt; where there are more classes, that is a warning."""
        check_complete(self.listed_in, self.missing, self.clues)
        if self.unread is not None:
            logger.warning("%s", self.unread)
        doubt = self.find_doubt()
        if doubt is not None and len(self.classes) == 2:
            raise DataError(doubt)
        if doubt is not None:
            logger.warning("%s", doubt)

    def find_doubt(self) -> str | None:
        """Why the labels can hardly mean what the configuration says; None where nothing speaks against it."""
        labels = [file for files in self.files if (file := files.get("label")) is not None]
        return self.read_label.find_doubt(labels) if isinstance(self.read_label, IdLabels) else None

    def sources(self, index: int) -> list[Path]:
        """The files of frame ``index``, each once; with the rig, which shapes it."""
        files = [*self.files[index].values(), self.rig]
        return list(dict.fromkeys(file for file in files if file is not None))

    def read(self, index: int) -> Frame:
        """Reads frame ``index``; raises DataError naming a file that is missing, damaged or in another format."""
        name, files = self.names[index], self._present(index)
        rgb_HW3, thermal_HW = self.read_images(files)
        label_HW = self.read_label(files["label"]) if "label" in files else None
        seen_HW = seen_by_both(rgb_HW3.shape[:2], thermal_HW.shape, self.align)
        names = {**files, **name_parts(files["rgb"])} if _is_joint(files) else files
        rgb_HW3, thermal_HW = align(rgb_HW3, thermal_HW, label_HW, self.align, names)
        if label_HW is None:
            label_HW = np.zeros(thermal_HW.shape, np.uint8)
        if seen_HW is not None:
            label_HW = np.where(seen_HW, label_HW, np.uint8(self.ignore_index))
        return Frame(rgb_HW3, thermal_HW, label_HW, name)

    def read_images(self, files: Mapping[str, Path]) -> tuple[np.ndarray, np.ndarray]:
        """[H, W, 3] and [H, W] uint8, each in its own size; both from one file, or each from its own."""
        if _is_joint(files):
            return read_joint(files["rgb"], self.thermal_scaling)
        return read_rgb(files["rgb"], self.grey_rgb), read_thermal(files["thermal"], self.thermal_scaling)

    def _present(self, index: int) -> dict[str, Path]:
        files = self.files[index]
        lacking = [part for part in self.parts if files[part] is None]
        if lacking:
            raise DataError(f"{self.listed_in}: frame {self.names[index]} has no {' and no '.join(lacking)} file")
        return {part: file for part, file in files.items() if file is not None}

    def without_label(self, frame: Frame) -> Frame:
        """As it was read: no label was opened."""
        return frame

    def preparation(self) -> str:
        """Thermal scaling, alignment and what becomes of grey RGB images, where they are chosen."""
        aligned = f"images resized to the size of {self.align} where sizes differ" if self.align != "refuse" else None
        if self.rig is not None:
            aligned = f"thermal warped onto RGB by a rig (SHA-256 {file_sha256(self.rig)[:12]})"
        grey = "RGB images of one channel repeated three times" if self.grey_rgb == "repeat" else None
        return "; ".join(filter(None, [self.thermal_scaling.describe(), aligned, grey])) or "as stored"


def _is_joint(files: Mapping[str, Path]) -> bool:
    """Whether one file is RGB and thermal."""
    return "thermal" in files and files["thermal"] == files.get("rgb")


class SplitFolderDataset(FileDataset):
    """A split that is a folder. Every image in it belongs to the split; one without a partner is an error.

    Args:
        options: Where the data set lies.
        role: ``train``, ``val`` or ``test``.
        folders: Per part ("rgb", "thermal", "label") the names, in lower case, that its folder may have.

    Raises:
        DataError: Missing root, split or folders; an empty split.
    """

    def __init__(self, options: SplitFolderOptions, *, role: str, folders: Mapping[str, tuple[str, ...]]):
        super().__init__(options, role=role)
        self.listed_in = self._open_split()
        places = find_folders(self.listed_in, folders)
        if places is None:
            here = ", ".join(sorted(f"{path.name}/" for path in self.listed_in.iterdir() if path.is_dir()))
            expected = ", ".join(f"{names[0]}/" for names in folders.values())
            raise DataError(
                f"{self.listed_in}: found {here or 'no folders'}, expected {expected}. The scripts in scripts/ "
                "(prepare_*.py) turn other layouts into this one"
            )
        found = {part: list_folder(places[part], SUFFIXES_OF[part]) for part in self.parts}
        names = unite(found.values())
        others = [list_others(places[part], SUFFIXES_OF[part]) for part in self.parts]
        self.unread = unread({name: file for files in others for name, file in files.items()}, names, self.listed_in)
        if not names:
            expected = ", ".join(f"{place.name}/" for place in places.values())
            raise DataError(f"{self.listed_in}: the split is empty; expected images in {expected}")
        files = {part: pick(names, found[part]) for part in self.parts}
        self._list(names, places, files, lambda part, lacking: clues_in(places[part], lacking, SUFFIXES_OF[part]))

    def _open_split(self) -> Path:
        if not self.root.is_dir():
            raise DataError(
                f"{self.root}: no such folder, so there is no {self.dataset_name} here. docs/datasets.md says how to "
                "get it; then set --opts data.root=/path/to/it. `make demo` runs without it, on generated data"
            )
        splits = {path.name.lower(): path for path in sorted(self.root.iterdir()) if path.is_dir()}
        if self.split_name.lower() not in splits:
            known = [path.name for path in splits.values()]
            raise DataError(
                f"{self.root}: no folder '{self.split_name}' for data.{self.split}_split; folders here: "
                f"{', '.join(known) or 'none'}.{nearest(self.split_name, known)}"
            )
        return splits[self.split_name.lower()]

    def identities(self) -> list[str]:
        """Names with their split folder, in lower case: train and test number their frames alike."""
        return [f"{self.split_name.lower()}/{name}" for name in self.names]
