"""COCO segmentation: one JSON for many frames, with polygons and run lengths.

https://cocodataset.org/#format-data. The parts of one annotation are united, so that a polygon inside another is no
hole; holes are what run lengths are for. Where annotations overlap, the one with fewer pixels lies on top, and crowds
lie below everything. Exports of Roboflow are the same, a ``_annotations.coco.json`` in ``train``, ``valid``, ``test``.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mdg.data.annotations import rle
from mdg.data.annotations.json_files import entry, points, read_json, rows
from mdg.data.annotations.raster import Patch, fill_polygon, place_mask
from mdg.data.annotations.source import Drawn, Size, Source, blank, check_size, frame_name, label_text, require_once
from mdg.errors import DataError

SPLITS = {"train": "train", "valid": "val", "val": "val", "test": "test"}


class _Image(NamedTuple):
    file: Path
    size: Size
    annotations: list[tuple[str, dict[str, Any]]]
    labels: dict[int, str]


class CocoSource(Source):
    """One or several JSON files of COCO.

    Args:
        files: The files; the folder of each names its split, where it is called train, valid, val or test.
        ignore_crowds: Whether crowds (``iscrowd: 1``) are ignored instead of taken as what they are labelled.

    Raises:
        DataError: A damaged file, an annotation of no image or no category, a frame twice.
    """

    kind = "COCO"

    def __init__(self, files: Sequence[Path], ignore_crowds: bool = False):
        super().__init__()
        self._ignore_crowds = ignore_crowds
        self._images: dict[str, _Image] = {}
        found: dict[str, Path] = {}
        for file in files:
            content = read_json(file)
            labels = _categories(content, file)
            self.known |= dict.fromkeys(labels.values())
            grouped = _by_image(content, file)
            seen = set()
            for where, image in rows(content, "images", file):
                id = image.get("id")
                if not isinstance(id, (int, str)) or id in seen:
                    raise DataError(f"{where}.id: got {id!r}, expected an id that no other image has; export it again")
                seen.add(id)
                name = frame_name(entry(image, "file_name", str, where), where)
                require_once(found, name, file)
                found[name] = file
                size = check_size(image.get("height"), image.get("width"), where)
                mine = grouped.pop(id, [])
                self._images[name] = _Image(file, size, mine, labels)
                if len(files) > 1 and file.parent.name.lower() in SPLITS:
                    self.splits[name] = SPLITS[file.parent.name.lower()]
            if grouped:
                unknown, lost = next(iter(grouped.items()))
                raise DataError(
                    f"{lost[0][0]}.image_id: got {unknown!r}, which is no image of the file; export it again"
                )
        self.names = sorted(self._images)
        self.empty = {name for name, image in self._images.items() if not image.annotations}

    def file(self, name: str) -> Path:
        return self._images[name].file

    def size(self, name: str) -> Size | None:
        return self._images[name].size

    def read(self, name: str, size: Size | None = None) -> Drawn:
        _, own, annotations, labels = self._images[name]
        drawn: list[tuple[bool, int, str | None, Patch]] = []
        shapes, warnings = Counter[str](), []
        for where, annotation in annotations:
            category = annotation.get("category_id")
            if not isinstance(category, int) or category not in labels:
                raise DataError(f"{where}.category_id: got {category!r}, expected one of {sorted(labels)}")
            label = labels[category]
            patches, problems = _draw(annotation, where, own)
            warnings += [f"{where} ('{label}'): {problem}" for problem in problems]
            if not patches:
                continue
            shapes[label] += 1
            patch, crowd = _unite(patches), bool(annotation.get("iscrowd"))
            drawn.append((not crowd, -patch.pixels(), None if crowd and self._ignore_crowds else label, patch))
        index_HW = blank(own)
        places: dict[str | None, int] = {}
        for _, _, target, patch in sorted(drawn, key=lambda row: row[:2]):
            patch.paint(index_HW, places.setdefault(target, len(places)))
        return Drawn(tuple(places), index_HW, shapes, tuple(warnings))


def _categories(content: Mapping[str, Any], file: Path) -> dict[int, str]:
    labels: dict[int, str] = {}
    for where, category in rows(content, "categories", file):
        id = entry(category, "id", int, where)
        if id in labels:
            raise DataError(f"{where}.id: got {id} a second time, expected different ids; export it again")
        labels[id] = label_text(category.get("name"), f"{where}.name")
    return labels


def _by_image(content: Mapping[str, Any], file: Path) -> dict[object, list[tuple[str, dict[str, Any]]]]:
    grouped: dict[object, list[tuple[str, dict[str, Any]]]] = defaultdict(list)
    for where, annotation in rows(content, "annotations", file):
        id = annotation.get("image_id")
        if not isinstance(id, (int, str)):
            raise DataError(f"{where}.image_id: got {id!r}, expected the id of an image; export it again")
        grouped[id].append((where, annotation))
    return dict(grouped)


def _draw(annotation: Mapping[str, Any], where: str, size: Size) -> tuple[list[Patch], list[str]]:
    """The parts of an annotation, and what was left out of it."""
    shape = annotation.get("segmentation")
    place = f"{where}.segmentation"
    if isinstance(shape, dict):
        patches = [_from_runs(shape, place, size)]
    elif isinstance(shape, list) and shape:
        patches, short = [], 0
        for part, ring in enumerate(shape):
            if not isinstance(ring, list) or len(ring) % 2:
                raise DataError(f"{place}[{part}]: expected a list of x, y, x, y, ...; export it again")
            if len(ring) < 6:
                short += 1
                continue
            pairs = list(zip(ring[::2], ring[1::2], strict=True))
            patches.append(fill_polygon(points(pairs, f"{place}[{part}]"), *size))
        if short:
            kept = [patch for patch in patches if patch.pixels()]
            return kept, [f"{short} polygon(s) of fewer than 3 points left out"]
    else:
        return [], ["left out, it has no segmentation" + (", only a box" if annotation.get("bbox") else "")]
    patches = [patch for patch in patches if patch.pixels()]
    return patches, [] if patches else ["left out, it covers the centre of no pixel of the frame"]


def _from_runs(shape: Mapping[str, Any], where: str, size: Size) -> Patch:
    stated, counts = shape.get("size"), shape.get("counts")
    if stated != list(size):
        raise DataError(f"{where}.size: got {stated!r}, expected {list(size)}, the size of its image; export it again")
    try:
        if isinstance(counts, str):
            counts = rle.decode_counts(counts)
        if not isinstance(counts, list):
            raise ValueError("expected a list of run lengths, or their text")
        return place_mask(rle.runs_to_mask(counts, *size), 0, 0, *size)
    except ValueError as error:
        raise DataError(f"{where}.counts: {error}; export it again") from None


def _unite(patches: Sequence[Patch]) -> Patch:
    if len(patches) == 1:
        return patches[0]
    top, left = min(p.top for p in patches), min(p.left for p in patches)
    bottom = max(p.top + p.mask_hw.shape[0] for p in patches)
    right = max(p.left + p.mask_hw.shape[1] for p in patches)
    united = np.zeros((bottom - top, right - left), bool)
    for patch in patches:
        Patch(patch.top - top, patch.left - left, patch.mask_hw).paint(united, True)
    return Patch(top, left, united)
