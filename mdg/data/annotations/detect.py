"""Which format annotations have, told by the files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mdg.data.annotations.json_files import read_json
from mdg.data.annotations.read_coco import CocoSource
from mdg.data.annotations.read_colours import LABEL_MAP, ColourSource
from mdg.data.annotations.read_cvat import CvatSource
from mdg.data.annotations.read_labelme import LabelmeSource
from mdg.data.annotations.read_masks import CLASSES, BinaryMasks, RoboflowMasks
from mdg.data.annotations.source import Source
from mdg.data.reading.files import ALL_SUFFIXES, walk
from mdg.errors import DataError

FORMATS = ("labelme", "coco", "cvat", "colours", "roboflow-masks", "binary")
ROBOFLOW = "_annotations.coco.json"
FOREGROUND = "foreground"


def open_annotations(
    place: Path, format: str | None = None, *, foreground: str = FOREGROUND, ignore_crowds: bool = False
) -> Source:
    """The annotations in a file or a folder.

    Args:
        place: A JSON or XML file, or a folder.
        format: One of :data:`FORMATS`; None finds it.
        foreground: The label of what binary masks show.
        ignore_crowds: See :class:`~mdg.data.annotations.read_coco.CocoSource`.

    Raises:
        DataError: Nothing there, nothing that is an annotation, several formats at once, or no frame.
    """
    if not place.exists():
        raise DataError(f"{place}: no such file or folder; expected annotations")
    files = [place] if place.is_file() else list(walk(place))
    found = _formats(place, files) if format is None else [format]
    if len(found) != 1:
        got = f"got what may be {' or '.join(found)}" if found else "found nothing that is one"
        archive = next((f"; unpack {file.name} first" for file in files if file.suffix.lower() in (".zip", ".tar")), "")
        raise DataError(
            f"{place}: {got}, expected annotations of one format ({', '.join(FORMATS)}); say which with "
            f"--format{archive}"
        )
    openers: dict[str, Callable[[], Source]] = {
        "labelme": lambda: LabelmeSource(_ending(files, ".json"), place if place.is_dir() else place.parent),
        "coco": lambda: CocoSource(_ending(files, ".json"), ignore_crowds),
        "cvat": lambda: CvatSource(_only(place, _ending(files, ".xml"))),
        "colours": lambda: ColourSource(_only(place, [f for f in files if f.name.lower() == LABEL_MAP]).parent),
        "roboflow-masks": lambda: RoboflowMasks([file.parent for file in files if file.name == CLASSES]),
        "binary": lambda: BinaryMasks(place, foreground),
    }
    source = openers[found[0]]()
    if not source.names:
        raise DataError(f"{place}: no frame in it, expected {source.kind}; check the path, or say --format")
    return source


def _formats(place: Path, files: list[Path]) -> list[str]:
    found = []
    names = {file.name.lower() for file in files}
    json_files = _ending(files, ".json")
    if ROBOFLOW in names:
        found.append("coco")
    elif json_files:
        content = read_json(json_files[0])
        found += [kind for kind, key in (("labelme", "shapes"), ("coco", "annotations")) if key in content]
    if _ending(files, ".xml"):
        found.append("cvat")
    if LABEL_MAP in names:
        found.append("colours")
    if CLASSES in names:
        found.append("roboflow-masks")
    if not found and place.is_dir() and any(file.suffix.lower() in ALL_SUFFIXES for file in files):
        found.append("binary")
    return found


def _ending(files: list[Path], suffix: str) -> list[Path]:
    """Files by suffix; where Roboflow has named some, those."""
    fitting = [file for file in files if file.suffix.lower() == suffix]
    return [file for file in fitting if file.name == ROBOFLOW] or fitting


def _only(place: Path, files: list[Path]) -> Path:
    if len(files) != 1:
        raise DataError(f"{place}: found {len(files)} such files, expected one; name the one that is meant")
    return files[0]
