"""Anyone's RGB-thermal data, described in YAML alone; docs/datasets.md has a worked example."""

from __future__ import annotations

import fnmatch
import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mdg.data.base import palette
from mdg.data.datasets.file_dataset import FileDataset
from mdg.data.datasets.patterns import SUFFIXES, Matches, read_list, require_apart, scan_pattern
from mdg.data.reading.files import nearest_path, unread
from mdg.data.reading.labels import ColourLabels, IdLabels, LabelReader
from mdg.data.reading.names import clues, pick, unite
from mdg.data.reading.pairs import holds_both
from mdg.errors import DataError
from mdg.metrics.scoring import ScoringRule, all_classes
from mdg.options.folder import NAME, SPLIT, FolderOptions, resolve_map
from mdg.registry import DATASETS

APART = (
    f"write patterns of which only one fits, with exact endings ('{NAME}_rgb.png') or a folder for each part, or name "
    "the frames in data.split_file"
)
EXPLAINED = 20  # names without a file for which their folder is searched for what may be meant


@DATASETS.register(FolderOptions)
class Folder(FileDataset):
    """A split of a data set that YAML describes.

    Args:
        options: Where everything lies and what the labels mean.
        role: ``train``, ``val`` or ``test``.

    Raises:
        DataError: Missing folders or lists, no frame at all, a file that fits two patterns, or colours twice.
    """

    def __init__(self, options: FolderOptions, *, role: str):
        self.dataset_name, self.classes = options.name, tuple(options.classes)
        self.palette_K3 = make_palette(len(self.classes), options.palette)
        super().__init__(options, role=role)
        self.unlabeled, self.conditions = options.unlabeled, options.conditions
        self._find_files({"rgb": options.rgb, "thermal": options.thermal, "label": options.label}, options.split_file)
        self.read_label: LabelReader
        if options.label_format == "colours":
            self.read_label = ColourLabels(self.palette_K3, options.ignore_colours)
        else:
            label_map = resolve_map(options.label_map, self.classes)
            self.read_label = IdLabels(len(self.classes), label_map, options.ignore_ids)

    def _find_files(self, patterns: Mapping[str, str], split_file: str | None) -> None:
        if not self.root.is_dir():
            raise DataError(f"{self.root}: no such folder; data.root names the one below which the data set lies")

        @functools.cache
        def matches() -> dict[str, Matches]:
            return {part: scan_pattern(self.root, patterns[part], self.split_name) for part in self.parts}

        names = None
        if split_file is not None:
            self.listed_in = self.root / os.path.expanduser(split_file.replace(SPLIT, self.split_name))
            names, paths = read_list(self.listed_in, self.root, lambda: {p: m.files for p, m in matches().items()})
            if paths is not None:
                self._list_columns(names, paths)
                return
        self._list_matches(names, matches(), patterns)

    def _list_columns(self, names: list[str], paths: Mapping[str, Mapping[str, Path]]) -> None:
        places = {part: self.listed_in.with_name(f"{self.listed_in.name} (column {part})") for part in self.parts}
        files = {part: {name: path for name, path in paths[part].items() if path.is_file()} for part in self.parts}
        sources = {part: str(place) for part, place in places.items()}
        require_apart(_owned(files), sources, "write one file for each part")

        def explain(part: str, lacking: list[str]) -> dict[str, str]:
            absent = {name: paths[part][name] for name in lacking[:EXPLAINED]}
            seen = {name: f"no {path}.{nearest_path(path)}".removesuffix(".") for name, path in absent.items()}
            return seen | clues(lacking, (), {})

        self._list(names, places, files, explain)

    def _list_matches(
        self, listed: list[str] | None, matches: Mapping[str, Matches], patterns: Mapping[str, str]
    ) -> None:
        found = {part: match.files for part, match in matches.items()}
        names = unite(found.values()) if listed is None else listed
        if not names:
            raise DataError(self._nothing_fits(patterns, matches))
        if listed is None:
            taken = {file for files in found.values() for file in files.values()}
            others = {name: file for match in matches.values() for name, file in match.others.items()}
            # In a folder that parts share, the files of one are others for the next.
            lost = {name: file for name, file in others.items() if file not in taken}
            self.unread = unread(lost, names, f"{self.root}, split '{self.split_name}'")
        files = {part: pick(names, found[part]) for part in self.parts}
        require_apart(_owned(files), {part: f"data.{part}: '{patterns[part]}'" for part in self.parts}, APART)
        # Parts may share a folder, so a missing file is told by its pattern.
        places = {part: self.root / patterns[part].replace(SPLIT, self.split_name) for part in self.parts}
        self._list(
            names, places, files, lambda part, lacking: clues(lacking, found[part], matches[part].others, SUFFIXES)
        )

    def _nothing_fits(self, patterns: Mapping[str, str], matches: Mapping[str, Matches]) -> str:
        near = next((file for match in matches.values() for file in match.others.values()), None)
        return (
            f"{self.root}: no file fits {', '.join(repr(p) for p in patterns.values())} for the split "
            f"'{self.split_name}'" + (f"; {near} would, but for its suffix '{near.suffix}'" if near else "")
        )

    def identities(self) -> list[str]:
        """Path of the RGB image, from the root where it lies below it: splits may number their frames alike."""
        return [
            self._below_root(files["rgb"]) if files["rgb"] else f"{self.split_name}/{name}"
            for name, files in zip(self.names, self.files, strict=True)
        ]

    def _below_root(self, file: Path) -> str:
        inside = file.is_relative_to(self.root)  # a list may name files elsewhere
        return (file.relative_to(self.root) if inside else file).as_posix()

    def condition(self, index: int) -> str | None:
        """The first group whose pattern fits the name."""
        name = self.names[index]
        return next((group for group, glob in self.conditions.items() if fnmatch.fnmatchcase(name, glob)), None)

    @property
    def background(self) -> int | None:
        """The class that the options call unlabeled, else one of that name."""
        return super().background if self.unlabeled is None else self.classes.index(self.unlabeled)

    def scoring_rules(self) -> tuple[ScoringRule, ...]:
        """All classes, and without the unlabeled one where it is named."""
        rest = tuple(name for name in self.classes if name != self.unlabeled)
        without = () if self.unlabeled is None else (ScoringRule(f"without {self.unlabeled}", rest),)
        return (all_classes(self.classes), *without)


def _owned(files: Mapping[str, Mapping[str, Path]]) -> Mapping[str, Mapping[str, Path]]:
    """The files that only one part may have: RGB and thermal are the same ones where each of them holds both."""
    rgb, thermal = files["rgb"], files.get("thermal")
    if not rgb or rgb != thermal or not holds_both(next(iter(rgb.values()))):
        return files
    return {part: found for part, found in files.items() if part != "thermal"}


def make_palette(num_classes: int, colours: Sequence[Sequence[int]] | None) -> np.ndarray:
    """[K, 3] uint8: the given colours, or the colour map of PASCAL VOC (bits of the id dealt out to R, G and B)."""
    if colours is not None:
        return palette(colours)
    bits = [[(k >> (3 * bit + channel)) & 1 for channel in range(3)] for k in range(num_classes) for bit in range(3)]
    shifted = np.array(bits, np.uint8).reshape(num_classes, 3, 3) << np.array([7, 6, 5], np.uint8)[:, None]
    return palette(shifted.sum(axis=1, dtype=np.uint8).tolist())
