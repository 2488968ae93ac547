"""The layouts in which copies of MFNet, PST900 and FMB are found, and how the files of a split file are named.

MFNet: ``images/`` with 4-channel PNGs (red, green, blue, thermal), or ``rgb/`` and ``thermal/``. PST900: a folder per
split (as published), or flat copies with split files. FMB: a folder per split. Folders of splits hold one per part.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from pathlib import PurePosixPath
from typing import ClassVar

from mdg.data.base import RGBTDataset, day_or_night
from mdg.data.datasets.fmb import FMB
from mdg.data.datasets.mfnet import FLIP, MFNet
from mdg.data.datasets.pst900 import PST900
from mdg.data.prepare.plan import Item, Plan
from mdg.data.prepare.report import SplitCount, count_split
from mdg.data.prepare.source import Entry
from mdg.data.prepare.tree import COPIED, Parts, Tree
from mdg.data.reading.files import without_suffix
from mdg.data.reading.names import decode_lines, name_bytes, same
from mdg.errors import DataError, first_few


class Layouts(ABC):
    """The layouts of a data set in the wild and the one its loader expects.

    Attributes:
        dataset: The loader.
        config: Configuration to check the result with.
        expected: The known layouts, for a message.
    """

    dataset: ClassVar[type[RGBTDataset]]
    config: ClassVar[str]
    expected: ClassVar[str]

    @abstractmethod
    def find(self, tree: Tree) -> Plan | None:
        """What to write, or None where the tree has none of the layouts."""

    @abstractmethod
    def count(self, plan: Plan, names_in: Callable[[str], set[str]]) -> list[SplitCount]:
        """Counts per split; ``names_in`` gives the names of the files of a folder below the destination."""


def listed_names(entry: Entry) -> list[str]:
    """Names in a split file, one a line, each once; an image suffix and folders before the name are cut off."""
    lines = decode_lines(entry.source.read_list(entry), f"{entry.source.origin}: {entry.path}")
    return list(dict.fromkeys(name_of(line) for line in lines.values()))


def name_of(file: str) -> str:
    """Name of the frame a file belongs to, in one spelling, whatever system wrote it."""
    return same(without_suffix(file.replace("\\", "/").rpartition("/")[2], COPIED))


SPLITS = ("train", "test")


class SplitFolders(Layouts):
    """Finds folders per split, or one folder per part with ``train.txt`` and ``test.txt`` that sort the frames.

    Attributes:
        necessary: Folders of a frame: RGB, thermal, labels.
        optional: Folders that are taken where they are.
    """

    necessary: ClassVar[Parts]
    optional: ClassVar[Parts]

    @property
    def parts(self) -> Parts:
        """All folders of a split."""
        return {**self.necessary, **self.optional}

    def find(self, tree: Tree) -> Plan | None:
        holders = tree.holding(self.necessary)
        roots = {folder.parent for folder in holders if folder.name.lower() in SPLITS}
        if roots:
            return self._by_folder(tree, sorted(roots))
        flat = [(folder, lists) for folder in holders if (lists := tree.split_files(folder))]
        if len(flat) == 1:
            folder, lists = flat[0]
            return self._by_list(tree, folder, {s: listed_names(lists[f"{s}.txt"]) for s in SPLITS})
        return None

    def _by_folder(self, tree: Tree, roots: Iterable[PurePosixPath]) -> Plan:
        plan = Plan(f"folders per split ({', '.join(f'{part}/' for part in self.necessary)})")
        for split in SPLITS:
            for folder in (folder for root in roots for folder in tree.named(root, [split])):
                for part, names in self.parts.items():
                    plan.add(f"{split}/{part}", tree.images(folder, names))
        return plan

    def _by_list(self, tree: Tree, folder: PurePosixPath, lists: dict[str, list[str]]) -> Plan:
        both = sorted(set(lists["train"]) & set(lists["test"]))
        if both:
            raise DataError(
                f"{len(both)} frames stand in train.txt and in test.txt: {first_few(both)}; expected each in one of "
                "them. Take these names out of one list, in a copy of the data"
            )
        plan = Plan("one folder per part, sorted into train/ and test/ by train.txt and test.txt", lists=lists)
        split_of = {name: split for split, names in lists.items() for name in names}
        unlisted: dict[str, None] = {}
        for part, names in self.parts.items():
            for entry in tree.images(folder, names):
                split = split_of.get(name_of(entry.path.name))
                if split:
                    plan.add(f"{split}/{part}", [entry])
                else:
                    unlisted[name_of(entry.path.name)] = None
        if unlisted:
            plan.notes.append(
                f"{len(unlisted)} frames stand in neither list and are left out: {first_few(list(unlisted))}"
            )
        return plan

    def count(self, plan: Plan, names_in: Callable[[str], set[str]]) -> list[SplitCount]:
        return [self._count(split, plan.lists.get(split, []), names_in) for split in SPLITS]

    def _count(self, split: str, listed: list[str], names_in: Callable[[str], set[str]]) -> SplitCount:
        necessary = {part: names_in(f"{split}/{part}") for part in self.necessary}
        optional = {part: names_in(f"{split}/{part}") for part in self.optional}
        return count_split(split, sorted(set(listed).union(*necessary.values())), necessary, optional)


LABELS = ("labels", "label")
LAYOUTS: dict[str, Parts] = {
    "packed": {"images": ("images",), "labels": LABELS},
    "folders": {"rgb": ("rgb",), "thermal": ("thermal", "th", "ir", "infrared"), "labels": LABELS},
}
SPLIT_FILE = re.compile(r"(train|val|test)[\w-]*\.txt")


class MFNetLayouts(Layouts):
    """MFNet; the split files are copied and those of day and night made where there are none."""

    dataset = MFNet
    config = "configs/mfnet/mdg_b2.yaml"
    expected = (
        "  images/ (4-channel PNGs) and labels/, with train.txt, val.txt and test.txt\n"
        "  or rgb/, thermal/ (th, ir) and labels/ (label), with the same split files"
    )

    def find(self, tree: Tree) -> Plan | None:
        for layout, parts in LAYOUTS.items():
            bases = [base for base in tree.holding(parts) if tree.split_files(base)]
            if len(bases) > 1:
                places = " and in ".join(f"{base}/" for base in bases)
                raise DataError(
                    f"MFNet lies in {places}, expected it once: unpack the data if need be and give one of them"
                )
            if bases:
                return _plan(tree, bases[0], layout, parts)
        return None

    def count(self, plan: Plan, names_in: Callable[[str], set[str]]) -> list[SplitCount]:
        folders = {str(item.target.parent) for item in plan.items} - {"."}
        files = {part: names_in(part) for parts in LAYOUTS.values() for part in parts if part in folders}
        return [count_split(split, names, files, has=_serves) for split, names in plan.lists.items()]


def _plan(tree: Tree, base: PurePosixPath, layout: str, parts: Parts) -> Plan:
    plan = Plan(f"{layout} ({', '.join(f'{part}/' for part in parts)})")
    split_files = {name: entry for name, entry in tree.split_files(base).items() if SPLIT_FILE.fullmatch(name)}
    for name in sorted(split_files, key=_split_order):
        plan.items.append(Item(PurePosixPath(name), split_files[name]))
        plan.lists[name.removesuffix(".txt")] = listed_names(split_files[name])
    mirrored = sum(name.endswith(FLIP) for name in plan.lists["train"])
    if mirrored:
        plan.notes.append(f"{mirrored} names of train.txt end in {FLIP}; each counts as a frame")
    if "val" not in plan.lists:
        plan.notes.append("there is no val.txt; to train without it set data.val_split=null and data.holdout=0.1")
    _add_day_and_night(plan)
    for part, names in parts.items():
        plan.add(part, tree.images(base, names))
    return plan


def _add_day_and_night(plan: Plan) -> None:
    for condition in ("day", "night"):
        split = f"test_{condition}"
        names = [name for name in plan.lists["test"] if day_or_night(name) == condition]
        if split not in plan.lists and names:
            plan.items.append(Item(PurePosixPath(f"{split}.txt"), content=name_bytes("".join(f"{n}\n" for n in names))))
            plan.lists[split] = names
            plan.notes.append(f"{split}.txt is made from the names in test.txt")


def _split_order(name: str) -> tuple[int, str]:
    return [name.startswith(split) for split in ("train", "val", "test")].index(True), name


def _serves(files: set[str], name: str) -> bool:
    return name in files or name.removesuffix(FLIP) in files  # the loader mirrors the frame of a `_flip` name


class PST900Layouts(SplitFolders):
    """PST900; only ``rgb``, ``thermal`` and ``labels`` are necessary."""

    dataset = PST900
    config = "configs/pst900/mdg_b2.yaml"
    necessary = {
        "rgb": ("rgb", "visible", "vi"),
        "thermal": ("thermal", "th", "ir", "infrared"),
        "labels": ("labels", "label"),
    }
    optional = {"thermal_raw": ("thermal_raw",), "depth": ("depth",)}
    expected = (
        "  train/ and test/, each with rgb/, thermal/ and labels/ (thermal_raw/ and depth/ may be there)\n"
        "  or rgb/, thermal/ and labels/, with train.txt and test.txt"
    )


class FMBLayouts(SplitFolders):
    """FMB; ``color`` holds the labels as a picture and is not necessary."""

    dataset = FMB
    config = "configs/fmb/mdg_b2.yaml"
    necessary = {
        "Visible": ("visible", "vi", "vis", "rgb"),
        "Infrared": ("infrared", "ir", "thermal"),
        "Label": ("label", "labels"),
    }
    optional = {"color": ("color", "colour")}
    expected = (
        "  train/ and test/, each with Visible/ (vi), Infrared/ (ir) and Label/ (color/ may be there)\n"
        "  or Visible/, Infrared/ and Label/, with train.txt and test.txt"
    )
