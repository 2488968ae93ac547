"""Names of frames: when two of them are the same, and why one finds no file.

Two names are the same where they read the same: macOS stores ``ö`` as two characters and other systems as one. The case
of letters does matter, for ``a`` and ``A`` may be two frames; where it is the only difference, messages say so.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping
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


def clues(
    names: Iterable[str], there: Iterable[str], others: Mapping[str, Path], readable: Collection[str] = ()
) -> dict[str, str]:
    """Why names have no file, where that can be seen.

    Args:
        names: Those without a file.
        there: Names of the files that were found.
        others: Files by name that lie there and are not read, for their suffix.
        readable: Suffixes, in lower case, that another pattern would read.
    """
    there = list(there)
    near, unread = {alike(name): name for name in there}, {alike(name): file for name, file in others.items()}
    longer = {core: name for name in there for core in _cores(alike(name))}
    found = {name: _clue(name, near, unread, longer, readable) for name in names}
    return {name: clue for name, clue in found.items() if clue}


def _cores(name: str) -> list[str]:
    """A name without its last part, and without its first one: ``01_mask`` and ``ir_01`` go with ``01``."""
    pieces = re.split(r"[-_. ]", name)
    return [name[: -len(pieces[-1]) - 1], name[len(pieces[0]) + 1 :]] if len(pieces) > 1 else []


def _clue(
    name: str, near: Mapping[str, str], unread: Mapping[str, Path], longer: Mapping[str, str], readable: Collection[str]
) -> str:
    twin = near.get(alike(name))
    if twin is not None and same(twin) != same(name):
        return f"'{twin}' is there, which differs in the case of letters: rename one of them"
    if alike(name) in unread:
        file = unread[alike(name)]
        if file.suffix.lower() in readable:
            return f"{file.name} is there, and its pattern ends otherwise: end it with '{file.suffix}' or '.*'"
        return f"{file.name} is there, but '{file.suffix}' is not read here: convert it, or name it as expected"
    other = longer.get(alike(name)) or next((near[core] for core in _cores(alike(name)) if core in near), None)
    if other is not None:
        return (
            f"'{other}' is there: rename one of them, or write what they do not share into the pattern, if there is one"
        )
    if any("\udc80" <= letter <= "\udcff" for letter in name):
        return "the name is not UTF-8: save the list as UTF-8, and give the files names that can be read"
    if "\\" in name:
        return "the name has backslashes, as on Windows: write / between folders, below the root of the data set"
    return ""
