"""What a data set tells about itself for its preparation, and how the files of a split file are named."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

from mdg.data.lists import decode_lines
from mdg.data.prepare.plan import Plan
from mdg.data.prepare.report import SplitCount
from mdg.data.prepare.source import Entry
from mdg.data.prepare.tree import COPIED, Tree
from mdg.data.reading.files import without_suffix
from mdg.data.reading.names import same


class Layouts(ABC):
    """The layouts of a data set in the wild and the one its loader expects.

    Attributes:
        name: Name of the data set.
        config: Configuration to check the result with.
        expected: The known layouts, for a message.
    """

    name: ClassVar[str]
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
