"""Anyone's RGB-thermal data, described in YAML alone; docs/datasets.md has a worked example."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, Field, model_validator

from mdg.data.base import palette
from mdg.data.file_dataset import PARTS, FileDataset, FileOptions
from mdg.data.labels import IGNORED, MAX_CLASSES, ColourLabels, IdLabels, LabelReader
from mdg.data.patterns import NAME, SPLIT, check_pattern, folder_of, match_pattern, read_list
from mdg.errors import DataError
from mdg.metrics.scoring import ScoringRule, all_classes
from mdg.registry import DATASETS

IGNORE = "ignore"
Pattern = Annotated[str, AfterValidator(check_pattern)]
Level = Annotated[int, Field(ge=0, le=255)]
Colour = tuple[Level, Level, Level]


class FolderOptions(FileOptions):
    """Where the files lie and what their labels mean."""

    name: str = Field("Folder", min_length=1)
    """Name of the data set in results."""
    rgb: Pattern = f"{SPLIT}/rgb/{NAME}.*"
    """Path of an RGB image below `root`; a trailing `.*` stands for any image suffix."""
    thermal: Pattern = f"{SPLIT}/thermal/{NAME}.*"
    """Path of its thermal image."""
    label: Pattern = f"{SPLIT}/labels/{NAME}.*"
    """Path of its label."""
    split_file: str | None = None
    """List file of a split below `root`, such as `{split}.txt`: a name a line, or the three paths of RGB, thermal and
    label a line. Null takes all files that fit the patterns."""
    classes: list[str] = Field(min_length=2, max_length=MAX_CLASSES)
    """Names of the classes, in the order of their ids."""
    palette: list[Colour] | None = None
    """[R, G, B] per class; null takes the colour map of PASCAL VOC."""
    label_format: Literal["ids", "colours"] = "ids"
    """What a label file holds: ids, or the colours of `palette`."""
    label_map: dict[int, int | str] | None = None
    """Class (id or name) or `ignore` for every id that occurs in the label files; null takes the ids as they are."""
    ignore_ids: list[Annotated[int, Field(ge=0, le=65535)]] = [IGNORED]
    """Ids in the label files that are ignored in training and scoring."""
    ignore_colours: list[Colour] = []
    """Colours in the label files that are ignored."""
    unlabeled: str | None = None
    """A class that also gets a score without it: a second mean that leaves it out."""
    conditions: dict[str, str] = {}
    """Groups that are also scored apart, by a pattern of their names: {day: '*_d', night: '*_n'}."""

    @model_validator(mode="after")
    def _check_labels(self) -> FolderOptions:
        if len(set(self.classes)) != len(self.classes):
            raise ValueError(f"classes: got {self.classes}, expected different names")
        if self.palette is not None and len(self.palette) != len(self.classes):
            raise ValueError(f"palette: got {len(self.palette)} colours, expected {len(self.classes)}, one per class")
        if self.unlabeled is not None and self.unlabeled not in self.classes:
            raise ValueError(f"unlabeled: got '{self.unlabeled}', expected one of {', '.join(self.classes)}")
        if self.label_format == "colours" and (self.palette is None or self.label_map is not None):
            raise ValueError("label_format: colours needs a palette and takes no label_map: colours are the classes")
        if self.label_format == "ids" and self.ignore_colours:
            raise ValueError("ignore_colours: expected label_format: colours with it; ids are ignored by ignore_ids")
        resolve_map(self.label_map, self.classes)
        return self


def resolve_map(label_map: Mapping[int, int | str] | None, classes: Sequence[str]) -> dict[int, int] | None:
    """Class ids (255 for ``ignore``) for the ids of the label files; raises ValueError for an unknown class."""
    if label_map is None:
        return None
    resolved = {}
    for source, target in label_map.items():
        if target == IGNORE:
            target = IGNORED
        elif isinstance(target, str) and target in classes:
            target = classes.index(target)
        elif not isinstance(target, int) or not 0 <= target < len(classes):
            raise ValueError(
                f"label_map: id {source} becomes '{target}'; expected 0..{len(classes) - 1}, a class name or 'ignore'"
            )
        if not 0 <= source <= 65535:
            raise ValueError(f"label_map: got id {source}, expected 0..65535")
        resolved[source] = target
    return resolved


@DATASETS.register(FolderOptions)
class Folder(FileDataset):
    """A split of a data set that YAML describes.

    Args:
        root: Folder below which everything lies.
        rgb, thermal, label: Patterns with ``{split}`` and ``{name}``.
        split_file: Pattern of the list file with ``{split}``, or None.
        classes: K names.
        name, palette, label_format, label_map, ignore_ids, ignore_colours, unlabeled, conditions: See
            :class:`FolderOptions`.
        **common: See :class:`FileDataset`.

    Raises:
        DataError: Missing folders or lists, no frame at all, or colours that occur twice.
    """

    def __init__(
        self,
        root: str | Path,
        classes: Sequence[str],
        name: str = "Folder",
        rgb: str = f"{SPLIT}/rgb/{NAME}.*",
        thermal: str = f"{SPLIT}/thermal/{NAME}.*",
        label: str = f"{SPLIT}/labels/{NAME}.*",
        split_file: str | None = None,
        palette: Sequence[Sequence[int]] | None = None,
        label_format: str = "ids",
        label_map: Mapping[int, int | str] | None = None,
        ignore_ids: Sequence[int] = (IGNORED,),
        ignore_colours: Sequence[Sequence[int]] = (),
        unlabeled: str | None = None,
        conditions: Mapping[str, str] | None = None,
        **common: Any,
    ):
        self.dataset_name, self.classes = name, tuple(classes)
        self.palette_K3 = make_palette(len(classes), palette)
        super().__init__(root, **common)
        self.unlabeled, self.conditions = unlabeled, dict(conditions or {})
        self._find_files({"rgb": rgb, "thermal": thermal, "label": label}, split_file)
        self.read_label: LabelReader
        if label_format == "colours":
            self.read_label = ColourLabels(self.palette_K3, ignore_colours)
        else:
            # Ids that are classes stay classes: 255 is ignored by default, and is no class in any case.
            self.read_label = IdLabels(len(classes), resolve_map(label_map, classes), ignore_ids)

    def _find_files(self, patterns: Mapping[str, str], split_file: str | None) -> None:
        if not self.root.is_dir():
            raise DataError(f"{self.root}: no such folder; data.root names the one below which the data set lies")
        names, found = None, None
        if split_file is not None:
            self.listed_in = self.root / split_file.replace(SPLIT, self.split_name)
            names, found = read_list(self.listed_in, self.root)
        if found is None:
            found = {part: match_pattern(self.root, patterns[part], self.split_name) for part in PARTS}
        if names is None:
            names = sorted(set().union(*found.values()))
        if not names:
            raise DataError(
                f"{self.root}: no file fits {', '.join(repr(p) for p in patterns.values())} for the split "
                f"'{self.split_name}'"
            )
        folders = {part: folder_of(self.root, patterns[part], self.split_name) for part in PARTS}
        self._list(names, folders, found)

    def identities(self) -> list[str]:
        """Path of the RGB image below the root: splits may number their frames alike."""
        return [
            files["rgb"].relative_to(self.root).as_posix() if files["rgb"] else f"{self.split_name}/{name}"
            for name, files in zip(self.names, self.files, strict=True)
        ]

    def condition(self, index: int) -> str | None:
        """The first group whose pattern fits the name."""
        name = self.names[index]
        return next((group for group, glob in self.conditions.items() if fnmatch.fnmatchcase(name, glob)), None)

    def scoring_rules(self) -> tuple[ScoringRule, ...]:
        """All classes, and without the unlabeled one where it is named."""
        rest = tuple(name for name in self.classes if name != self.unlabeled)
        without = () if self.unlabeled is None else (ScoringRule(f"without {self.unlabeled}", rest),)
        return (all_classes(self.classes), *without)


def make_palette(num_classes: int, colours: Sequence[Sequence[int]] | None) -> np.ndarray:
    """[K, 3] uint8: the given colours, or the colour map of PASCAL VOC (bits of the id dealt out to R, G and B)."""
    if colours is not None:
        return palette([tuple(colour) for colour in colours])
    bits = [[(k >> (3 * bit + channel)) & 1 for channel in range(3)] for k in range(num_classes) for bit in range(3)]
    shifted = np.array(bits, np.uint8).reshape(num_classes, 3, 3) << np.array([7, 6, 5], np.uint8)[:, None]
    return palette([tuple(row) for row in shifted.sum(axis=1, dtype=np.uint8).tolist()])
