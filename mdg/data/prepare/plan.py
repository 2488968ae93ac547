"""What is to be written where, and how that fits with what lies there already."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from mdg.data.prepare.source import Entry, FolderSource, Source
from mdg.data.prepare.tree import Tree, outline, views
from mdg.errors import DataError, first_few


@dataclass(frozen=True)
class Item:
    """One file to write.

    Attributes:
        target: Place below the destination.
        entry: The file to transfer; None for a file that is made.
        content: Bytes of a file that is made.
    """

    target: PurePosixPath
    entry: Entry | None = None
    content: bytes = b""

    @property
    def size(self) -> int:
        return len(self.content) if self.entry is None else self.entry.size


@dataclass
class Plan:
    """A recognised layout and the files it gives.

    Attributes:
        layout: The layout in words.
        items: Files to write.
        lists: Names of frames by split, where split files name them.
        notes: What else the user should know.
    """

    layout: str
    items: list[Item] = field(default_factory=list)
    lists: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, folder: str, entries: Iterable[Entry]) -> None:
        """Puts files into a folder below the destination; of their path only the last part is kept."""
        self.items += [Item(PurePosixPath(folder, entry.path.name), entry) for entry in entries]

    def clash(self) -> str | None:
        """Two files that would go to one place, in words."""
        seen: dict[PurePosixPath, Item] = {}
        for item in self.items:
            first = seen.setdefault(item.target, item)
            if first is not item:
                return f"two files for {item.target}: {_origin(first)} and {_origin(item)}"
        return None


def choose_plan(find: Callable[[Tree], Plan | None], sources: Sequence[Source], name: str, expected: str) -> Plan:
    """The plan of the first view of the sources in which ``find`` recognises a layout.

    Raises:
        DataError: None is recognised, or two files would go to one place.
    """
    clash = None
    for tree in views(sources):
        plan = find(tree)
        if plan and not plan.clash():
            return plan
        clash = clash or (plan.clash() if plan else None)
    if clash:
        raise DataError(f"{clash}; expected one. Unpack the data if need be and give the folder that holds one copy")
    found = "\n".join(outline(source) for source in sources)
    raise DataError(
        f"not {name} in a known layout; found\n{found}\nexpected, at any depth and in any case,\n{expected}\n"
        "Rename the folders or give the folder or archive that holds them"
    )


def outstanding(items: Iterable[Item], destination: Path) -> list[Item]:
    """The items that are not at the destination yet; those with the right size are.

    Raises:
        DataError: Something else lies in their place; nothing is ever overwritten.
    """
    missing, differing = [], []
    for item in items:
        target = destination / item.target
        if not target.exists() and not target.is_symlink():
            missing.append(item)
        elif not target.is_file():
            differing.append(f"{target} (not a file)")
        elif target.stat().st_size != item.size:
            differing.append(f"{target} ({target.stat().st_size} bytes, expected {item.size})")
    if differing:
        raise DataError(
            f"{len(differing)} files at the destination differ from the source and are not overwritten: "
            f"{first_few(differing, separator='; ')}. Move them away or choose another destination, then "
            "repeat the command"
        )
    return missing


def check_places(sources: Sequence[Path], destination: Path) -> None:
    """Raises DataError where the destination is, or lies in, one of the sources, or is a file."""
    for source in sources:
        if destination.resolve().is_relative_to(source.resolve()):
            raise DataError(
                f"the destination {destination} is or lies inside the source {source}, which is never changed; choose "
                "a folder outside of it"
            )
    if destination.exists() and not destination.is_dir():
        raise DataError(f"{destination}: is a file; expected a folder, or a name that is still free")


def check_folders(items: Iterable[Item], sources: Sequence[Source], destination: Path) -> None:
    """Raises DataError where a folder to write to is a file, or a link that leads into a source."""
    origins = [source.origin.resolve() for source in sources if isinstance(source, FolderSource)]
    for folder in sorted({destination / item.target.parent for item in items}):
        place = next((path for path in (folder, *folder.parents) if path.exists() or path.is_symlink()), folder)
        if not place.is_dir():
            raise DataError(
                f"{place}: not a folder; expected one to put files into. Move it away or choose another place"
            )
        if any(folder.resolve().is_relative_to(origin) for origin in origins):
            raise DataError(f"{folder}: leads into the source, which is never changed; choose another destination")


def _origin(item: Item) -> str:
    return f"{item.entry.path} in {item.entry.source.origin}" if item.entry else "one made here"
