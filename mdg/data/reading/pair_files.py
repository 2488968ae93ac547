"""Which file of colour goes with which thermal file: two files, two folders, names by a pattern, or a list.

A pair is known by a name, which its outputs get: the path below the folder without its suffix, ``day/0001``.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Mapping
from pathlib import Path

from mdg.data.reading.files import ALL_SUFFIXES, list_others, walk, warn_of_others
from mdg.data.reading.names import clues, decode_lines, pick
from mdg.errors import DataError
from mdg.utils.files import explained
from mdg.utils.limits import limit

Pairs = dict[str, "tuple[Path, Path | None]"]
NAME = "{name}"


def find_pairs(
    rgb: Path,
    thermal: Path | None,
    *,
    rgb_name: str | None = None,
    thermal_name: str | None = None,
    leave_out: Path | None = None,
) -> Pairs:
    """Files by name: ``(rgb, thermal)``, or ``(4-channel image, None)`` where ``thermal`` is None.

    Args:
        rgb, thermal: Two files, or two folders, whose sub-folders count too.
        rgb_name, thermal_name: How files are called in folders, ``{name}_ir.*``; equal names else.
        leave_out: A folder below these that holds no inputs, such as that of the outputs.

    Raises:
        DataError: A path that does not exist, a file beside a folder, names without a partner, or two files of a name.
    """
    for path in (rgb, thermal):
        if path is not None and not path.exists():
            raise DataError(
                f"{path}: no such file or folder; expected an image, a folder of images, a video, the address of a "
                "stream or the number of a camera"
            )
    if thermal is not None and rgb.is_dir() != thermal.is_dir():
        raise DataError(f"expected two files or two folders, got {rgb} and {thermal}")
    if not rgb.is_dir():
        return {rgb.stem: (rgb, thermal)}
    images = _named(_list_images(rgb, leave_out), rgb_name, "--rgb-name", rgb)
    if thermal is None:
        return {name: (file, None) for name, file in sorted(images.items())}
    if thermal_name is None and thermal.resolve() == rgb.resolve():
        raise DataError(
            f"{rgb}: RGB and thermal images lie in one folder; say how they are called with --rgb-name and "
            "--thermal-name, such as '{name}_rgb.*' and '{name}_ir.*'"
        )
    others = _named(_list_images(thermal, leave_out), thermal_name, "--thermal-name", thermal)
    _require_partners(images, rgb, others, thermal)
    _require_partners(others, thermal, images, rgb)
    partners = pick(images, others)
    return {name: (images[name], partners[name]) for name in sorted(images)}


def pairs_in_list(file: Path) -> Pairs:
    """Pairs of a CSV with the columns ``rgb`` and ``thermal`` (empty for images of four channels), and ``name`` where
    outputs shall have other names than the RGB files. Paths are taken from the folder of the list.

    Raises:
        DataError: Unreadable, without these columns, or with a name that occurs twice.
    """
    with explained(file), open(file, "rb") as stream:
        content = stream.read(limit("list_bytes") + 1)
    lines = list(decode_lines(content, file).values())
    reader = csv.DictReader(io.StringIO("\n".join(lines)), skipinitialspace=True)
    columns = [column.strip().lower() for column in reader.fieldnames or []]
    reader.fieldnames = columns
    if "rgb" not in columns:
        raise DataError(
            f"{file}: got the columns {', '.join(columns) or 'none'}, expected rgb, thermal and perhaps name"
        )
    pairs: Pairs = {}
    for number, row in enumerate(reader, 2):
        rgb, thermal = ((row.get(column) or "").strip() for column in ("rgb", "thermal"))
        if not rgb:
            raise DataError(f"{file}: line {number} names no RGB image")
        name = (row.get("name") or "").strip() or os.path.splitext(Path(rgb).name)[0]
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise DataError(f"{file}: line {number}: the name '{name}' leaves the folder of the outputs")
        if name in pairs:
            raise DataError(f"{file}: line {number}: a second pair called '{name}'; give names in a column `name`")
        pairs[name] = file.parent / rgb, file.parent / thermal if thermal else None
    if not pairs:
        raise DataError(f"{file}: a list without pairs")
    return pairs


def _named(images: dict[str, Path], pattern: str | None, option: str, folder: Path) -> dict[str, Path]:
    """The images that a pattern fits, by what stands for ``{name}`` in them."""
    if pattern is None:
        return images
    if pattern.count(NAME) != 1 or "/" in pattern:
        raise DataError(
            f"{option} {pattern}: expected the name of a file with {NAME} once in it, such as '{NAME}_ir.*'"
        )
    found: dict[str, Path] = {}
    before, after = pattern.split(NAME)
    end = re.escape(after[:-2]) + r"\.\w+" if after.endswith(".*") else re.escape(after)
    form = re.compile(rf"(?P<folder>(?:.*/)?){re.escape(before)}(?P<core>[^/]+){end}")
    for name, file in images.items():
        match = form.fullmatch(name + file.suffix)
        if match:
            found[match["folder"] + match["core"]] = file
    if not found:
        some = ", ".join(file.name for file in list(images.values())[:3])
        raise DataError(f"{option} {pattern}: no image of {folder} is called so; there are {some}")
    return found


def _require_partners(images: Mapping[str, Path], folder: Path, others: Mapping[str, Path], other: Path) -> None:
    lonely = sorted(set(images) - set(pick(images, others)))
    if lonely:
        why = clues(lonely[:1], others, list_others(other, ALL_SUFFIXES))
        raise DataError(
            f"{len(lonely)} image(s) of {folder} have no partner of the same name in {other}: {', '.join(lonely[:5])}"
            + ("".join(f"; {clue}" for clue in why.values()) or "; where names differ, --thermal-name says how")
        )


def _list_images(folder: Path, leave_out: Path | None) -> dict[str, Path]:
    outside = leave_out.resolve() if leave_out is not None else None
    files = [file for file in walk(folder) if outside is None or not file.resolve().is_relative_to(outside)]
    images: dict[str, Path] = {}
    for file in files:
        if not file.name.lower().endswith(ALL_SUFFIXES):
            continue
        name = os.path.splitext(file.relative_to(folder).as_posix())[0]
        if name in images:
            raise DataError(
                f"{folder}: {images[name].name} and {file.name} have one name, and so would their masks; rename one"
            )
        images[name] = file
    if not images:
        found = sorted({file.suffix or file.name for file in files})
        there = f"; there are {', '.join(found[:5])}" if found else ""
        raise DataError(f"{folder}: no images in this folder, whose names end in {', '.join(ALL_SUFFIXES)}{there}")
    warn_of_others(list_others(folder, ALL_SUFFIXES), images, folder)
    return images
