"""Data sets with one folder per split and, in it, one folder per part: ``ROOT/SPLIT/PART/NAME.png``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import Field

from mdg.data.datasets.file_dataset import PARTS, FileDataset, FileOptions
from mdg.data.reading.files import SUFFIXES_OF, clues_in, find_folders, list_folder, list_others, unread
from mdg.data.reading.names import pick, unite
from mdg.errors import DataError, nearest
from mdg.fields import UserPath


class SplitFolderOptions(FileOptions):
    """Where the data set lies. It has no val split: a tenth of train is held out, by a seed."""

    root: UserPath
    """Folder with `train/` and `test/`."""
    val_split: str | None = None
    """Folder of a val split of your own; needs `holdout: null`."""
    holdout: float | None = Field(0.1, gt=0, lt=1)
    """Share of the train split that is held out of training and plays the val split; null trains on all of it, with
    `eval.selection: last`."""


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
            found = ", ".join(sorted(f"{path.name}/" for path in self.listed_in.iterdir() if path.is_dir()))
            expected = ", ".join(f"{names[0]}/" for names in folders.values())
            raise DataError(
                f"{self.listed_in}: found {found or 'no folders'}, expected {expected}. The scripts in scripts/ "
                "(prepare_*.py) turn other layouts into this one"
            )
        found = {part: list_folder(places[part], SUFFIXES_OF[part]) for part in PARTS}
        names = unite(found.values())
        others = [list_others(places[part], SUFFIXES_OF[part]) for part in PARTS]
        self.unread = unread({name: file for files in others for name, file in files.items()}, names, self.listed_in)
        if not names:
            expected = ", ".join(f"{place.name}/" for place in places.values())
            raise DataError(f"{self.listed_in}: the split is empty; expected images in {expected}")
        files = {part: pick(names, found[part]) for part in PARTS}
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
