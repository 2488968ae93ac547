"""Data sets whose frames are files: finding them, checking that none is missing, reading them.

A subclass names the folders (or files) of each part and inherits the reading: 16-bit thermal images, modalities of
different sizes and label formats are handled in one place for all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mdg.data.alignment import Alignment, align
from mdg.data.base import DatasetOptions, Frame, RGBTDataset
from mdg.data.files import check_complete
from mdg.data.images import read_rgb
from mdg.data.labels import LabelReader
from mdg.data.thermal import AS_STORED, ThermalScaling, read_thermal
from mdg.errors import DataError

PARTS = ("rgb", "thermal", "label")
FrameFiles = dict[str, Path | None]  # a file per part; None where it is missing


class FileOptions(DatasetOptions):
    """How files become images."""

    root: Path
    """Folder of the data set."""
    thermal_scaling: ThermalScaling = AS_STORED
    """How thermal images of more than 8 bits become 8, and which end is warm."""
    align: Alignment = "refuse"
    """Where RGB and thermal differ in size: `refuse`, or resize both to the size of `rgb`, `thermal` or `label`."""


class FileDataset(RGBTDataset):
    """A split of files. Subclasses call :meth:`_list` once with what they found.

    Args:
        root: Folder of the data set.
        thermal_scaling: How raw thermal values become uint8.
        align: What to do where the sizes of the modalities differ.
        role: ``train``, ``val`` or ``test``.
        **common: The options of every data set, see :class:`RGBTDataset`.

    Attributes:
        files: Per frame the file of each part; None where it is missing.
        missing: Names without a file, by the folder (or other place) it was expected in.
        listed_in: What names the frames of the split, for messages.
    """

    read_label: LabelReader

    def __init__(
        self,
        root: str | Path,
        *,
        role: str,
        thermal_scaling: ThermalScaling | Mapping[str, Any] = AS_STORED,
        align: Alignment = "refuse",
        **common: Any,
    ):
        super().__init__(role, **common)
        self.root = Path(root).expanduser()
        self.thermal_scaling = ThermalScaling.model_validate(thermal_scaling)
        self.align: Alignment = align
        self.files: list[FrameFiles] = []
        self.missing: dict[Path, list[str]] = {}
        self.listed_in = self.root

    def _list(self, names: Iterable[str], folders: Mapping[str, Path], found: Mapping[str, Mapping[str, Path]]) -> None:
        """Sets the frames of the split.

        Args:
            names: Frames of the split on disk; this role's share of them is taken.
            folders: Where the files of each part were looked for.
            found: Per part, the files by name.
        """
        self.names = self._share(list(names))
        self.files = [{part: found[part].get(name) for part in PARTS} for name in self.names]
        for part in PARTS:
            lacking = [name for name, files in zip(self.names, self.files, strict=True) if files[part] is None]
            known = self.missing.get(folders[part], [])  # RGB and thermal may come from one folder
            self.missing[folders[part]] = list(dict.fromkeys([*known, *lacking]))

    def require_complete(self) -> None:
        """Raises DataError naming the frames without all their files."""
        check_complete(self.listed_in, self.missing)

    def sources(self, index: int) -> list[Path]:
        """The files of frame ``index``, each once."""
        return list(dict.fromkeys(file for file in self.files[index].values() if file is not None))

    def read(self, index: int) -> Frame:
        """Reads frame ``index``; raises DataError naming a file that is missing, damaged or in another format."""
        name, files = self.names[index], self._present(index)
        rgb_HW3, thermal_HW = self.read_images(files)
        label_HW = self.read_label(files["label"])
        rgb_HW3, thermal_HW = align(rgb_HW3, thermal_HW, label_HW, self.align, files)
        return Frame(rgb_HW3, thermal_HW, label_HW, name)

    def read_images(self, files: Mapping[str, Path]) -> tuple[np.ndarray, np.ndarray]:
        """[H, W, 3] and [H, W] uint8, each in its own size."""
        return read_rgb(files["rgb"]), read_thermal(files["thermal"], self.thermal_scaling)

    def _present(self, index: int) -> dict[str, Path]:
        files = self.files[index]
        lacking = [part for part in PARTS if files[part] is None]
        if lacking:
            raise DataError(f"{self.listed_in}: frame {self.names[index]} has no {' and no '.join(lacking)} file")
        return {part: file for part, file in files.items() if file is not None}

    def preparation(self) -> str:
        """Thermal scaling and alignment, where they are chosen."""
        aligned = f"images resized to the size of {self.align} where sizes differ" if self.align != "refuse" else None
        return "; ".join(filter(None, [self.thermal_scaling.describe(), aligned])) or "as stored"
