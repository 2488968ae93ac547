"""The files of one or several sources as one tree of folders, and the search for what a data set is known by."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath

from mdg.data.prepare.archives import archive_suffix
from mdg.data.prepare.source import Entry, Source
from mdg.data.reading.files import IMAGE_SUFFIXES
from mdg.errors import DataError

COPIED = (*IMAGE_SUFFIXES, ".tif", ".tiff")  # TIFF: raw thermal and depth of some copies
SHOWN = 20  # lines of an outline
Parts = Mapping[str, tuple[str, ...]]  # folder to make -> lower-case names under which it is found


class Tree:
    """Files by the folder that holds them.

    Args:
        files: Entries, each with its place in the tree.
    """

    def __init__(self, files: Iterable[tuple[PurePosixPath, Entry]]):
        self.files: dict[PurePosixPath, list[Entry]] = defaultdict(list)
        folders = {PurePosixPath()}
        for path, entry in files:
            self.files[path.parent].append(entry)
            folders.update(path.parents)
        self.folders = sorted(folders, key=lambda folder: (len(folder.parts), folder))
        self._children: dict[PurePosixPath, list[PurePosixPath]] = defaultdict(list)
        for folder in self.folders[1:]:
            self._children[folder.parent].append(folder)

    def named(self, folder: PurePosixPath, names: Sequence[str]) -> list[PurePosixPath]:
        """Folders in ``folder`` under the first of the names that occurs, in any case (so there may be several)."""
        for name in names:
            found = [child for child in self._children.get(folder, []) if child.name.lower() == name]
            if found:
                return found
        return []

    def holding(self, parts: Parts) -> list[PurePosixPath]:
        """Folders that hold a folder for each of the parts."""
        return [folder for folder in self.folders if all(self.named(folder, names) for names in parts.values())]

    def images(self, folder: PurePosixPath, names: Sequence[str]) -> list[Entry]:
        """Image files of a part: those directly in the folders :meth:`named` finds."""
        return [
            entry
            for found in self.named(folder, names)
            for entry in self.files.get(found, [])
            if entry.path.suffix.lower() in COPIED
        ]

    def split_files(self, base: PurePosixPath) -> dict[str, Entry]:
        """Text files by lower-case name, of the folder nearest to ``base`` that has ``train.txt`` and ``test.txt``.

        Returns:
            Empty where there is no such folder.

        Raises:
            DataError: Two folders are equally near.
        """
        ranked = sorted((_distance(base, folder), folder) for folder in self.folders if self._has_splits(folder))
        if not ranked:
            return {}
        if len(ranked) > 1 and ranked[0][0] == ranked[1][0]:
            raise DataError(
                f"split files train.txt and test.txt lie in {ranked[0][1]}/ and in {ranked[1][1]}/, expected one set: "
                "unpack the data if need be and give a folder with one of them"
            )
        return self._texts(ranked[0][1])

    def _has_splits(self, folder: PurePosixPath) -> bool:
        return {"train.txt", "test.txt"} <= self._texts(folder).keys()

    def _texts(self, folder: PurePosixPath) -> dict[str, Entry]:
        return {e.path.name.lower(): e for e in self.files.get(folder, []) if e.path.suffix.lower() == ".txt"}


def views(sources: Sequence[Source]) -> list[Tree]:
    """The trees to look at: all sources laid over each other (parts of one download), then each below its name.

    The second finds the split in the name of ``train.zip`` or of a folder ``test``.
    """
    entries = [entry for source in sources for entry in source.entries]
    return [
        Tree((entry.path, entry) for entry in entries),
        Tree((entry.source.name / entry.path, entry) for entry in entries),
    ]


def outline(source: Source) -> str:
    """What a source holds, for a message: the top two levels of folders with counts of files."""
    counts: Counter[tuple[str, ...]] = Counter()
    for entry in source.entries:
        folders = entry.path.parts[:-1]
        counts.update({folders[:1], folders[:2]} - {()})
    lines = [f"  {'  ' * len(folder)}{folder[-1]}/: {count} files" for folder, count in sorted(counts.items())]
    if len(lines) > SHOWN:
        lines[SHOWN:] = [f"    ... ({len(lines)} folders in all)"]
    packed = [entry.path.name for entry in source.entries if archive_suffix(entry.path.name)]
    if packed:
        lines.append(f"    archives: {', '.join(packed[:5])}; give these instead of the folder")
    return "\n".join([f"  {source.origin}: {len(source.entries)} files", *lines])


def _distance(one: PurePosixPath, other: PurePosixPath) -> int:
    shared = os.path.commonprefix([one.parts, other.parts])
    return len(one.parts) + len(other.parts) - 2 * len(shared)
