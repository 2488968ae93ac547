"""Split files and folders of images: which names there are, and which file belongs to a name."""

from __future__ import annotations

import logging
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from mdg.data.reading.names import alike, clues, read_lines, require_different, same
from mdg.errors import DataError, MachineError, first_few, nearest
from mdg.utils.limits import limit, require_within

logger = logging.getLogger("mdg.data")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")
SUFFIXES_OF = {"rgb": IMAGE_SUFFIXES, "thermal": IMAGE_SUFFIXES, "label": (".png",)}  # of the published data sets
ALL_SUFFIXES = (*IMAGE_SUFFIXES, ".tif", ".tiff", ".webp", ".jp2", ".avif", ".gif")  # of whatever can be read
# What a user takes for an image, too; files of these kinds are never passed over in silence.
OTHER_IMAGES = (".heic", ".heif", ".j2k", ".jxl", ".ppm", ".pgm", ".pnm", ".dng", ".raw", ".exr", ".npy", ".npz")
SHOWN = 5  # names in a message; the count says how many there are


def is_hidden(name: str) -> bool:
    """Whether a file or folder does not count: ``._*`` are left by macOS, ``.ipynb_checkpoints`` by notebooks."""
    return name.startswith(".")


def walk(folder: Path, skip: Callable[[str], bool] = is_hidden, once: bool = False) -> Iterator[Path]:
    """All files below a folder, in the order of their names. Links are followed, but never round in a circle.

    Args:
        folder: Where to begin.
        skip: Whether a file or a folder of that name is passed over.
        once: A folder that links give several names is listed under the first of them only.

    Raises:
        DataError: A folder that cannot be listed, or more files than the limit.
    """
    count, most, listed = 0, limit("folder_files"), set()
    waiting = [(str(folder), os.path.realpath(folder), frozenset[str]())]
    while waiting:
        place, real, above = waiting.pop()
        circle = any(folder == real or folder.startswith(real.rstrip(os.sep) + os.sep) for folder in above)
        if circle or (once and real in listed):
            continue
        listed.add(real)
        folders = []
        for entry in _listed(place):
            if skip(entry.name):
                continue
            if _is_folder(entry):
                real_entry = os.path.realpath(entry.path) if entry.is_symlink() else os.path.join(real, entry.name)
                folders.append((entry.path, real_entry, above | {real}))
            elif _is_file(entry):
                count += 1
                if count > most:
                    require_within("folder_files", count, folder, DataError)
                yield Path(entry.path)
        waiting += reversed(folders)


def _listed(place: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(place) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"{place}: cannot be listed ({reason}); check the path and who may read it") from None


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_file(entry: os.DirEntry[str]) -> bool:
    """Also a link that leads nowhere, so that reading it can say so; no pipe or device, which keeps readers waiting."""
    try:
        return entry.is_file() or (entry.is_symlink() and not os.path.exists(entry.path))
    except OSError:
        return True


def read_split(root: Path, split: str) -> list[str]:
    """Names in ``root/split.txt``, one a line; an image suffix and folders before the name are cut off.

    Raises:
        DataError: No such file, one that is no list, an empty one, or a name that occurs twice.
    """
    file = root / f"{split}.txt"
    if not file.is_file():
        known = sorted(path.stem for path in root.glob("*.txt"))
        raise DataError(
            f"{file}: no such split file; split files here: {', '.join(known) or 'none'}.{nearest(split, known)}"
        )
    names = {number: flat_name(line) for number, line in read_lines(file).items()}
    if not names:
        raise DataError(f"{file}: the split is empty; expected one image name a line")
    require_different(file, names)
    return list(names.values())


def flat_name(line: str) -> str:
    """Name of a frame where no name holds a folder: the last part of a path, without an image suffix."""
    return without_suffix(line.replace("\\", "/").rstrip("/").rpartition("/")[2])


def without_suffix(name: str, suffixes: Iterable[str] = IMAGE_SUFFIXES) -> str:
    """The name without an image suffix (it may have a dot of its own)."""
    stem, suffix = os.path.splitext(name)
    return stem if suffix.lower() in suffixes else name


def list_folder(folder: Path, suffixes: Iterable[str] = IMAGE_SUFFIXES) -> dict[str, Path]:
    """Image files of a folder by name without suffix; one directory scan, no file is opened.

    Of two files that differ in the suffix only, a PNG is taken before the others.
    """
    accepted = tuple(suffixes)
    found = [entry for entry in _listed(str(folder)) if not is_hidden(entry.name)]
    files = [entry.name for entry in found if entry.name.lower().endswith(accepted) and _is_file(entry)]
    return {os.path.splitext(name)[0]: folder / name for name in files}


def list_others(folder: Path, suffixes: Iterable[str] = IMAGE_SUFFIXES) -> dict[str, Path]:
    """Files of a folder by name that :func:`list_folder` does not take, for their suffix."""
    accepted = tuple(suffixes)
    names = [entry.name for entry in _listed(str(folder)) if not is_hidden(entry.name) and _is_file(entry)]
    return {os.path.splitext(name)[0]: folder / name for name in names if not name.lower().endswith(accepted)}


def clues_in(folder: Path, names: Iterable[str], suffixes: Iterable[str]) -> dict[str, str]:
    """Why names have no file in a folder, where that can be seen."""
    suffixes = tuple(suffixes)
    return clues(names, list_folder(folder, suffixes), list_others(folder, suffixes))


def unread(others: Mapping[str, Path], names: Iterable[str], where: object) -> str | None:
    """A sentence where images of kinds that are not read would be frames that nobody misses.

    Args:
        others: Files by name that are not read.
        names: The frames of the split.
        where: The split, for the sentence.
    """
    known = {alike(name) for name in names}
    kinds = (*ALL_SUFFIXES, *OTHER_IMAGES)
    lost = [file for name, file in others.items() if alike(name) not in known and file.suffix.lower() in kinds]
    if not lost:
        return None
    counts = Counter(file.suffix for file in lost)
    shown = ", ".join(f"{count} {suffix}" for suffix, count in sorted(counts.items()))
    return (
        f"{where}: {len(lost)} image file(s) of kinds that are not read here ({shown}) take no part, such as "
        f"{lost[0]}; convert them"
    )


def warn_of_others(others: Mapping[str, Path], names: Iterable[str], where: object) -> None:
    """Logs what :func:`unread` says, if anything."""
    line = unread(others, names, where)
    if line is not None:
        logger.warning("%s", line)


def find_folders(root: Path, choices: Mapping[str, tuple[str, ...]]) -> dict[str, Path] | None:
    """Folder of ``root`` for each key of ``choices``, by any of its lower-case names, whatever the case on disk.

    Returns:
        One folder per key, or None where a key has none.
    """
    on_disk = {path.name.lower(): path for path in sorted(root.iterdir()) if path.is_dir()}
    found = {key: [on_disk[name] for name in names if name in on_disk] for key, names in choices.items()}
    return {key: folders[0] for key, folders in found.items()} if all(found.values()) else None


class Paths:
    """Finds paths below a root that are spelt otherwise on disk: composed characters, case of the suffix, backslashes.

    Args:
        root: What relative paths start from.
    """

    def __init__(self, root: Path):
        self.root = root
        self._names: dict[Path, dict[str, str]] = {}  # per folder, the names on disk by their spelling

    def find(self, place: str) -> Path:
        """The path as it is on disk where it exists, else as it is given."""
        for text in dict.fromkeys((place, place.replace("\\", "/"))):
            path = self.root / text
            if path.exists():
                return path
        found = Path(path.anchor)
        for part in path.parts[len(found.parts) :]:
            found /= part if (found / part).exists() else self._on_disk(found, part)
        return found

    def _on_disk(self, folder: Path, name: str) -> str:
        if folder not in self._names:
            entries = _listed(str(folder)) if folder.is_dir() else []
            self._names[folder] = {_spelling(entry.name): entry.name for entry in entries}
        return self._names[folder].get(_spelling(name), name)


def _spelling(name: str) -> str:
    stem, suffix = os.path.splitext(same(name))
    return stem + suffix.lower()


def nearest_path(path: Path) -> str:
    """A sentence on the first part of a path that does not exist, where a name beside it is close to it."""
    for parent, child in zip(reversed(path.parents), [*reversed(path.parents), path][1:], strict=True):
        if not child.exists():
            if not parent.is_dir():
                return ""
            names = [entry.name for entry in _listed(str(parent))]
            twin = next((name for name in names if alike(name) == alike(child.name)), None)
            if twin:
                return f" '{twin}' is there: the case of letters matters."
            stem = next((name for name in names if alike(os.path.splitext(name)[0]) == alike(child.stem)), None)
            return f" '{stem}' is there." if stem else nearest(child.name, names)
    return ""


def folders_beside(path: Path) -> str:
    """A sentence on the folders that lie where the first part of a path that does not exist was expected."""
    above = next((parent for parent in path.parents if parent.is_dir()), None)
    names = [entry.name for entry in _listed(str(above)) if _is_folder(entry)] if above else []
    return f" Folders there: {first_few(names)}." if names else ""


def require_room(folder: Path, needed: int, advice: str) -> None:
    """Raises MachineError where fewer than ``needed`` bytes are free at a folder, which need not exist yet."""
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    usage = shutil.disk_usage(there)
    if usage.total and needed > usage.free:  # /proc and its like say 0 of 0
        raise MachineError(
            f"{folder}: {needed / 1e6:,.1f} MB are needed and {usage.free / 1e6:,.1f} are free; {advice}"
        )


def stamp(file: Path) -> tuple[int, int]:
    """Size in bytes and time of the last change in ns; raises DataError where the file is gone."""
    try:
        status = file.stat()
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror}); check that it is there and readable") from None
    return status.st_size, status.st_mtime_ns


def check_complete(
    split_file: Path, folders: Mapping[Path, Iterable[str]], clues: Mapping[tuple[Path, str], str] | None = None
) -> None:
    """Raises DataError where names of a split have no file.

    Args:
        split_file: The split, for the message.
        folders: Per folder, the names of the split that have no file in it.
        clues: Why, by folder and name, where that is known.
    """
    problems = [
        f"{len(names)} without a file in {folder}: {first_few(names, SHOWN)}"
        for folder, names in ((folder, list(names)) for folder, names in folders.items())
        if names
    ]
    if problems:
        known = list(dict.fromkeys(f"{name}: {clue}" for (_, name), clue in (clues or {}).items()))
        seen = f". Seen there: {first_few(known, 2, '; ')}"
        raise DataError(
            f"{split_file} holds frames that are not complete; {'; '.join(problems)}{seen if known else ''}. Copy the "
            "missing files or take the names out of the split"
        )
