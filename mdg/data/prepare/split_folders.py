"""Data sets with a folder per split: ``train/`` and ``test/``, each with a folder per part."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import PurePosixPath
from typing import ClassVar

from mdg.data.prepare.layouts import Layouts, listed_names, name_of
from mdg.data.prepare.plan import Plan, some
from mdg.data.prepare.report import SplitCount, count_split
from mdg.data.prepare.tree import Parts, Tree
from mdg.errors import DataError

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
                f"{len(both)} frames stand in train.txt and in test.txt: {some(both)}; expected each in one of them. "
                "Take these names out of one list, in a copy of the data"
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
            plan.notes.append(f"{len(unlisted)} frames stand in neither list and are left out: {some(list(unlisted))}")
        return plan

    def count(self, plan: Plan, names_in: Callable[[str], set[str]]) -> list[SplitCount]:
        return [self._count(split, plan.lists.get(split, []), names_in) for split in SPLITS]

    def _count(self, split: str, listed: list[str], names_in: Callable[[str], set[str]]) -> SplitCount:
        necessary = {part: names_in(f"{split}/{part}") for part in self.necessary}
        optional = {part: names_in(f"{split}/{part}") for part in self.optional}
        return count_split(split, sorted(set(listed).union(*necessary.values())), necessary, optional)
