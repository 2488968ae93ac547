"""Finding the frames of a data set by patterns or by a list, for :mod:`mdg.data.folder`.

A pattern is a path below the root with ``{split}`` and ``{name}``: ``{split}/color/{name}.jpg`` or
``ir/{split}/{name}_ir.*`` (any image suffix). A name may hold folders (``city/0001``).
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from mdg.data.files import IMAGE_SUFFIXES
from mdg.errors import DataError

NAME, SPLIT = "{name}", "{split}"
ANY_SUFFIX = ".*"
SUFFIXES = (*IMAGE_SUFFIXES, ".tif", ".tiff")


def check_pattern(pattern: str) -> str:
    """The pattern without needless ``./``; raises ValueError where it has not one ``{name}`` or leaves the root."""
    if pattern.count(NAME) != 1:
        raise ValueError(f"expected a path with {NAME} in it once, such as 'rgb/{NAME}.png'")
    unknown = [field for field in re.findall(r"\{[^}]*\}", pattern) if field not in (NAME, SPLIT)]
    if unknown:
        raise ValueError(f"got {', '.join(unknown)} in it; expected no fields but {NAME} and {SPLIT}")
    path = PurePosixPath(pattern)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError("expected a path below data.root")
    return path.as_posix()


def folder_of(root: Path, pattern: str, split: str) -> Path:
    """The deepest folder that all files of a pattern share."""
    head = pattern.replace(SPLIT, split).partition(NAME)[0]
    return root / head if head.endswith("/") else (root / head).parent if head else root


def match_pattern(root: Path, pattern: str, split: str) -> dict[str, Path]:
    """Files of a split by name, in the order of their names.

    Raises:
        DataError: The folder does not exist, or two files have one name.
    """
    folder = folder_of(root, pattern, split)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; it follows from the pattern '{pattern}' below {root}")
    regex = _regex(pattern, split)
    found: dict[str, Path] = {}
    for file in sorted(_walk(folder)):
        match = regex.fullmatch(file.relative_to(root).as_posix())
        if match is None:
            continue
        name = match["name"]
        if name in found:
            raise DataError(f"{found[name]} and {file} are both '{name}' under the pattern '{pattern}'")
        found[name] = file
    return found


def _regex(pattern: str, split: str) -> re.Pattern[str]:
    any_suffix = pattern.endswith(ANY_SUFFIX)
    stem = pattern.removesuffix(ANY_SUFFIX) if any_suffix else pattern
    body = re.escape(stem.replace(SPLIT, split)).replace(re.escape(NAME), "(?P<name>.+)")
    suffix = "(?i:" + "|".join(map(re.escape, SUFFIXES)) + ")" if any_suffix else ""
    return re.compile(body + suffix)


def _walk(folder: Path) -> Iterable[Path]:
    for place, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(place) / file for file in files if not file.startswith("."))


def read_list(file: Path, root: Path) -> tuple[list[str], dict[str, dict[str, Path]] | None]:
    """A list of frames: one name a line, or the paths of RGB, thermal and label, separated by tab, comma or blanks.

    Returns:
        The names, and the files of each part by name; None instead of the files where the list holds names only. The
        name of a line of paths is the path of RGB without its suffix.

    Raises:
        DataError: No such file, an empty one, a line of another form, or a name twice.
    """
    if not file.is_file():
        raise DataError(f"{file}: no such list; data.split_file names it")
    rows = _read_rows(file)
    names = [os.path.splitext(row[0])[0] if len(row) == 3 else row[0] for row in rows]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"{file}: {len(twice)} name(s) occur more than once: {', '.join(twice[:5])}")
    if len(rows[0]) == 1:
        return names, None
    columns = {
        part: {
            name: root / row[column] for name, row in zip(names, rows, strict=True) if (root / row[column]).is_file()
        }
        for column, part in enumerate(("rgb", "thermal", "label"))
    }
    return names, columns


def _read_rows(file: Path) -> list[list[str]]:
    lines = [line.strip() for line in file.read_text(encoding="utf-8-sig", errors="replace").splitlines()]
    rows = {number: _split_line(line) for number, line in enumerate(lines, 1) if line and not line.startswith("#")}
    if not rows:
        raise DataError(f"{file}: the list is empty; expected a name, or three paths, a line")
    width = len(next(iter(rows.values())))
    for number, row in rows.items():
        if len(row) not in (1, 3) or len(row) != width:
            raise DataError(
                f"{file}:{number}: got a line of {len(row)} entries ({' '.join(row)}), expected one name on every "
                "line, or the three paths of RGB, thermal and label (separated by tabs where paths hold blanks)"
            )
    return list(rows.values())


def _split_line(line: str) -> list[str]:
    separator = next((mark for mark in ("\t", ",") if mark in line), None)
    return [entry.strip() for entry in line.split(separator)]
