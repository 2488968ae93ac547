"""Split files and folders of images: which names there are, and which file belongs to a name."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from mdg.errors import DataError, nearest

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")
SHOWN = 5  # names in a message; the count says how many there are


def read_split(root: Path, split: str) -> list[str]:
    """Names in ``root/split.txt``, one a line; blank lines do not count, an image suffix is cut off.

    Raises:
        DataError: No such file, an empty one, or a name that occurs twice.
    """
    file = root / f"{split}.txt"
    if not file.is_file():
        known = sorted(path.stem for path in root.glob("*.txt"))
        raise DataError(
            f"{file}: no such split file; split files here: {', '.join(known) or 'none'}.{nearest(split, known)}"
        )
    lines = file.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    names = [_without_suffix(line.strip()) for line in lines if line.strip()]
    if not names:
        raise DataError(f"{file}: the split is empty; expected one image name a line")
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise DataError(
            f"{file}: {len(repeated)} name(s) occur more than once: {_some(repeated)}; expected each frame "
            "once, or its score would count twice"
        )
    return names


def list_folder(folder: Path, suffixes: Iterable[str] = IMAGE_SUFFIXES) -> dict[str, Path]:
    """Image files of a folder by name without suffix; one directory scan, no file is opened.

    Of two files that differ in the suffix only, a PNG is taken before the others.
    """
    accepted = tuple(suffixes)
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if not entry.name.startswith(".")]  # "._*" are left by macOS
    found = sorted(name for name in names if name.lower().endswith(accepted))
    return {os.path.splitext(name)[0]: folder / name for name in found}


def find_folders(root: Path, choices: Mapping[str, tuple[str, ...]]) -> dict[str, Path] | None:
    """Folder of ``root`` for each key of ``choices``, by any of its lower-case names, whatever the case on disk.

    Returns:
        One folder per key, or None where a key has none.
    """
    on_disk = {path.name.lower(): path for path in sorted(root.iterdir()) if path.is_dir()}
    found = {key: next((on_disk[name] for name in names if name in on_disk), None) for key, names in choices.items()}
    return found if all(found.values()) else None  # type: ignore[return-value]


def check_complete(split_file: Path, folders: Mapping[Path, Iterable[str]]) -> None:
    """Raises DataError where names of a split have no file.

    Args:
        split_file: The split, for the message.
        folders: Per folder, the names of the split that have no file in it.
    """
    problems = [
        f"{len(names)} without a file in {folder}: {_some(names)}"
        for folder, names in ((folder, list(names)) for folder, names in folders.items())
        if names
    ]
    if problems:
        raise DataError(
            f"{split_file} holds frames that are not complete; {'; '.join(problems)}. Copy the missing "
            "files or take the names out of the split"
        )


def _without_suffix(name: str) -> str:
    stem, suffix = os.path.splitext(name)
    return stem if suffix.lower() in IMAGE_SUFFIXES else name


def _some(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" ... ({len(names)} in all)" if len(names) > SHOWN else "")
