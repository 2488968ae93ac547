"""Names of frames: when two of them are the same, and why one finds no file.

Two names are the same where they read the same: macOS stores ``ö`` as two characters and other systems as one. The case
of letters does matter, for ``a`` and ``A`` may be two frames; where it is the only difference, messages say so.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path


def same(name: str) -> str:
    """One spelling (composed characters) for all ways in which a name can be stored."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def alike(name: str) -> str:
    """One spelling for names that differ in the case of letters at most."""
    return same(name).casefold()


def name_bytes(name: str) -> bytes:
    """UTF-8 for hashes; a file name that is not UTF-8 gives the bytes it has on disk."""
    try:
        return name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half of a pair, as Windows allows
        return name.encode("utf-8", "surrogatepass")


def unite(parts: Iterable[Iterable[str]]) -> list[str]:
    """The names of all parts in order, each once; it is spelt as in the first part that has it."""
    spelling: dict[str, str] = {}
    for names in parts:
        for name in names:
            spelling.setdefault(same(name), name)
    return sorted(spelling.values())


def pick(names: Iterable[str], files: Mapping[str, Path]) -> dict[str, Path]:
    """The file of every name that has one."""
    by_spelling = {same(name): file for name, file in files.items()}
    return {name: by_spelling[same(name)] for name in names if same(name) in by_spelling}


def clues(names: Iterable[str], there: Iterable[str], others: Mapping[str, Path]) -> dict[str, str]:
    """Why names have no file, where that can be seen.

    Args:
        names: Those without a file.
        there: Names of the files that were found.
        others: Files by name that lie there and are not read, for their suffix.
    """
    near, unread = {alike(name): name for name in there}, {alike(name): file for name, file in others.items()}
    found = {name: _clue(name, near, unread) for name in names}
    return {name: clue for name, clue in found.items() if clue}


def _clue(name: str, near: Mapping[str, str], unread: Mapping[str, Path]) -> str:
    if alike(name) in near:
        return f"'{near[alike(name)]}' is there, which differs in the case of letters: rename one of them"
    if alike(name) in unread:
        file = unread[alike(name)]
        return f"{file.name} is there, but '{file.suffix}' is not read here: convert it, or name it as expected"
    if any("\udc80" <= letter <= "\udcff" for letter in name):
        return "the name is not UTF-8: save the list as UTF-8, and give the files names that can be read"
    if "\\" in name:
        return "the name has backslashes, as on Windows: write / between folders, below the root of the data set"
    return ""
