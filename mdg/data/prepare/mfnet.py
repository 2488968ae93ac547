"""Layouts of MFNet: ``images/`` with 4-channel PNGs (red, green, blue, thermal), or ``rgb/`` and ``thermal/``."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import PurePosixPath

from mdg.data.base import day_or_night
from mdg.data.datasets.mfnet import FLIP
from mdg.data.prepare.layouts import Layouts, listed_names
from mdg.data.prepare.plan import Item, Plan
from mdg.data.prepare.report import SplitCount, count_split
from mdg.data.prepare.tree import Parts, Tree
from mdg.data.reading.names import name_bytes
from mdg.errors import DataError

LABELS = ("labels", "label")
LAYOUTS: dict[str, Parts] = {
    "packed": {"images": ("images",), "labels": LABELS},
    "folders": {"rgb": ("rgb",), "thermal": ("thermal", "th", "ir", "infrared"), "labels": LABELS},
}
SPLIT_FILE = re.compile(r"(train|val|test)[\w-]*\.txt")


class MFNetLayouts(Layouts):
    """MFNet; the split files are copied and those of day and night made where there are none."""

    name = "MFNet"
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
