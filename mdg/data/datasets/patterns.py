"""Finding the frames of a data set by patterns or by a list, for :mod:`mdg.data.datasets.folder`.

A pattern is a path below the root with ``{split}`` and ``{name}``: ``{split}/color/{name}.jpg`` or
``ir/{split}/{name}_ir.*`` (any image suffix). A name may hold folders (``city/0001``). The case of letters matters in
names and folders, and never in the suffix of an image.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from mdg.data.reading.files import ALL_SUFFIXES, Paths, folders_beside, nearest_path, walk, without_suffix
from mdg.data.reading.names import read_lines, require_different, same
from mdg.errors import DataError, nearest
from mdg.options.folder import NAME, SPLIT

ANY_SUFFIX = ".*"
SUFFIXES = ALL_SUFFIXES
PARTS = ("rgb", "thermal", "label")
Found = Mapping[str, Mapping[str, Path]]  # per part, files by name


def folder_of(root: Path, pattern: str, split: str) -> Path:
    """The deepest folder that all files of a pattern share, spelt as on disk."""
    head = pattern.replace(SPLIT, split).partition(NAME)[0].rpartition("/")[0]
    return Paths(root).find(head) if head else root


class Matches(NamedTuple):
    """Files by name, in the order of their names: those that fit a pattern, and those that would with its suffix."""

    files: dict[str, Path]
    others: dict[str, Path]


def match_pattern(root: Path, pattern: str, split: str) -> dict[str, Path]:
    """Files of a split by name, in the order of their names; raises as :func:`scan_pattern`."""
    return scan_pattern(root, pattern, split).files


def scan_pattern(root: Path, pattern: str, split: str) -> Matches:
    """Looks at every file in the folder of a pattern.

    Raises:
        DataError: The folder does not exist, or two files have one name.
    """
    folder = folder_of(root, pattern, split)
    if not folder.is_dir():
        near = nearest_path(folder) or folders_beside(folder)
        raise DataError(f"{folder}: no such folder; it follows from the pattern '{pattern}' below {root}.{near}")
    stem, suffixes = _cut_suffix(pattern)
    fits = _matcher(stem, split, f"(?i:{'|'.join(map(re.escape, suffixes))})" if suffixes else "")
    fits_otherwise = _matcher(stem, split, r"\.[^./]+" if suffixes else "")
    found = Matches({}, {})
    spelling: dict[str, str] = {}
    for file in sorted(walk(folder)):
        place = file.relative_to(root).as_posix()
        name = fits(place)
        if name is None:
            other = fits_otherwise(place)
            if other is not None:
                found.others[other] = file
            continue
        first = spelling.setdefault(same(name), name)
        if first in found.files:
            raise DataError(
                f"{found.files[first]} and {file} are both '{name}' under the pattern '{pattern}'; move one of them "
                "away"
            )
        found.files[name] = file
    return found


def _matcher(stem: str, split: str, suffix: str) -> Callable[[str], str | None]:
    """Gives the name in a path below the root, or None where the path does not fit; ``suffix`` is a regex."""

    def regex(text: str) -> re.Pattern[str]:
        body = re.escape(text).replace(re.escape(NAME), "(?P<name>.+)")
        return re.compile(body + suffix, re.DOTALL)

    text = stem.replace(SPLIT, split)
    stored, composed = regex(text), regex(same(text))

    def fits(path: str) -> str | None:
        match = stored.fullmatch(path) or (None if path.isascii() else composed.fullmatch(same(path)))
        return match["name"] if match else None

    return fits


def _cut_suffix(pattern: str) -> tuple[str, tuple[str, ...]]:
    """The pattern without its suffix of an image, and the suffixes that it stands for; none where it has none."""
    if pattern.endswith(ANY_SUFFIX):
        return pattern.removesuffix(ANY_SUFFIX), SUFFIXES
    stem, suffix = os.path.splitext(pattern)
    return (stem, (suffix,)) if suffix.lower() in SUFFIXES else (pattern, ())


def require_apart(found: Found, sources: Mapping[str, str], advice: str) -> None:
    """Raises DataError where one file was found for two parts, naming both and a file.

    Args:
        found: Files of every part by name.
        sources: What named the files of every part, in words.
        advice: What to do.
    """
    owner: dict[Path, str] = {}
    shared: dict[tuple[str, str], list[Path]] = {}
    for part, files in found.items():
        for file in files.values():
            first = owner.setdefault(file, part)
            if first != part:
                shared.setdefault((first, part), []).append(file)
    for (first, second), both in shared.items():
        raise DataError(
            f"{len(both)} file(s) fit both {sources[first]} and {sources[second]}, such as {both[0]}; {advice}"
        )


def read_list(
    file: Path, root: Path, match: Callable[[], Found] | None = None
) -> tuple[list[str], dict[str, dict[str, Path]] | None]:
    """A list of frames: one name a line, or the paths of RGB, thermal and label, separated by tab, comma or blanks.

    A line may be a name though it has blanks or commas, a suffix, backslashes, or the folders of its file: where such a
    frame is among the files, it is meant.

    Args:
        file: The list.
        root: What paths start from.
        match: Gives the files of every part by name, by which names are understood; called for lists of names only.

    Returns:
        The names, and the paths of each part by name, whether a file is there or not; None instead of the paths where
        the list holds names only. The name of a line of paths is the path of RGB without its suffix.

    Raises:
        DataError: No such file, an empty one, a line of another form, or a name twice.
    """
    if not file.is_file():
        lists = [path.name for path in file.parent.glob("*.txt")] if file.parent.is_dir() else []
        raise DataError(f"{file}: no such list; data.split_file names it.{nearest(file.name, lists)}")
    lines = read_lines(file)
    if not lines:
        raise DataError(f"{file}: the list is empty; expected a name, or three paths, a line")
    rows = {number: _split_line(line) for number, line in lines.items()}
    known = _Known(root, match)
    if all(len(row) == 1 for row in rows.values()) or _are_names(lines, rows, known):
        names = {number: known.name(line) for number, line in lines.items()}
        require_different(file, names)
        return list(names.values()), None
    _require_triples(file, rows)
    paths = Paths(root)
    files = {number: [paths.find(os.path.expanduser(entry)) for entry in row] for number, row in rows.items()}
    names = {number: _path_name(row[0], files[number][0], root) for number, row in rows.items()}
    require_different(file, names)
    columns = {
        part: {name: files[number][column] for number, name in names.items()} for column, part in enumerate(PARTS)
    }
    return list(names.values()), columns


def _are_names(lines: Mapping[int, str], rows: Mapping[int, list[str]], known: _Known) -> bool:
    """Whether lines with blanks or commas are names: one that is a frame as a whole says so for all of them."""
    return any(len(rows[number]) > 1 and "\t" not in line and line in known for number, line in lines.items())


class _Known:
    """The frames among the files, and what people write for them."""

    def __init__(self, root: Path, match: Callable[[], Found] | None):
        self._root, self._match = root, match
        self._names: dict[str, str] | None = None

    def __contains__(self, line: str) -> bool:
        return self._find(line) is not None

    def name(self, line: str) -> str:
        """The name of the frame that a line means; the line itself where it means none."""
        return self._find(line) or (line if self._match is None else without_suffix(line, SUFFIXES))

    def _find(self, line: str) -> str | None:
        if self._names is None:
            self._names = self._all()
        forms = [form for text in (line, line.replace("\\", "/")) for form in (text, text.removeprefix("./"))]
        forms += [without_suffix(form, SUFFIXES) for form in forms]
        return next((self._names[same(form)] for form in forms if same(form) in self._names), None)

    def _all(self) -> dict[str, str]:
        names: dict[str, str] = {}
        try:
            found = self._match() if self._match is not None else {}
        except DataError:  # no folders that fit the patterns: paths need none, and names are looked for once more
            return {}
        paths: dict[str, str] = {}
        for files in found.values():
            for name, file in files.items():
                names.setdefault(same(name), name)
                paths.setdefault(same(without_suffix(file.relative_to(self._root).as_posix(), SUFFIXES)), name)
        return paths | names


def _require_triples(file: Path, rows: Mapping[int, list[str]]) -> None:
    width = len(next(iter(rows.values())))
    for number, row in rows.items():
        if len(row) not in (1, 3) or len(row) != width:
            two = " (one of thermal and label is missing here)" if len(row) == 2 else ""
            raise DataError(
                f"{file}:{number}: got a line of {len(row)} entries ({' '.join(row)}), expected one name on every "
                f"line, or the three paths of RGB, thermal and label{two}, separated by tabs where paths hold blanks; "
                "a name with blanks must be that of a file"
            )


def _path_name(entry: str, file: Path, root: Path) -> str:
    """Name of a frame by its entry in the list; written with backslashes it is that of the same list without."""
    if "\\" in entry and not (root / entry).is_file():
        entry = entry.replace("\\", "/") if file.is_file() else entry
    return os.path.splitext(entry)[0]


def _split_line(line: str) -> list[str]:
    separator = next((mark for mark in ("\t", ",") if mark in line), None)
    return [entry.strip() for entry in line.split(separator)]
