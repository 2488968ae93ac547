"""CVAT for images 1.1: one XML for many frames, with polygons, boxes and masks; ``z_order`` says what lies on top.

https://docs.cvat.ai/docs/dataset_management/formats/format-cvat/. Shapes of one ``z_order`` are painted in the order of
the file. Points, polylines, ellipses, skeletons and cuboids are left out with a warning.
"""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from mdg.data.annotations.json_files import points, read_bytes
from mdg.data.annotations.raster import Patch, corners, fill_polygon, place_mask
from mdg.data.annotations.rle import runs_to_mask
from mdg.data.annotations.source import (
    Colour,
    Drawn,
    Size,
    Source,
    blank,
    check_size,
    frame_name,
    label_text,
    require_once,
)
from mdg.errors import DataError

DRAWN = ("polygon", "box", "mask")
LEFT_OUT = ("points", "polyline", "ellipse", "skeleton", "cuboid")


class CvatSource(Source):
    """A file ``annotations.xml`` of CVAT.

    Args:
        file: The XML.

    Raises:
        DataError: A damaged file, that of a video, or a frame twice.
    """

    kind = "CVAT for images"

    def __init__(self, file: Path):
        super().__init__()
        self._file = file
        root = _parse(file)
        if root.find("track") is not None:
            raise DataError(f"{file}: holds tracks of a video; export the task as 'CVAT for images 1.1'")
        for label in root.iterfind("meta//labels/label"):
            self.known[label_text(label.findtext("name"), f"{file}: a label")] = _colour(label.findtext("color") or "")
        self._images: dict[str, ElementTree.Element] = {}
        found: dict[str, Path] = {}
        for image in root.iterfind("image"):
            where = f"{file}: image {image.get('id', '')}"
            name = frame_name(image.get("name", ""), where)
            require_once(found, name, file)
            found[name], self._images[name] = file, image
        self.names = sorted(self._images)
        self.empty = {name for name, image in self._images.items() if not any(s.tag in DRAWN for s in image)}

    def file(self, name: str) -> Path:
        return self._file

    def size(self, name: str) -> Size:
        image, where = self._images[name], f"{self._file}: image '{name}'"
        height, width = _whole(image, "height", where), _whole(image, "width", where)
        return check_size(height, width, where)

    def read(self, name: str, size: Size | None = None) -> Drawn:
        own = self.size(name)
        drawn: list[tuple[int, str, Patch]] = []
        shapes, warnings = Counter[str](), []
        for number, shape in enumerate(self._images[name]):
            if shape.tag not in DRAWN + LEFT_OUT:  # tags of the whole frame
                continue
            where = f"{self._file}: image '{name}', shape {number} ({shape.tag})"
            label = label_text(shape.get("label"), where)
            patch = f"a {shape.tag} is not read" if shape.tag in LEFT_OUT else _draw(shape, where, own)
            if isinstance(patch, str):
                warnings.append(f"{where} ('{label}'): left out, {patch}")
                continue
            drawn.append((_whole(shape, "z_order", where, "0"), label, patch))
            shapes[label] += 1
        kinds = Counter(shape.tag for shape in self._images[name])
        if kinds["box"] and (kinds["polygon"] or kinds["mask"]):
            where = f"{self._file}: image '{name}'"
            warnings.append(f"{where}: {kinds['box']} box(es) beside outlines are painted as rectangles, as CVAT does")
        index_HW = blank(own)
        labels: dict[str | None, int] = {}
        for _, label, patch in sorted(drawn, key=lambda row: row[0]):
            patch.paint(index_HW, labels.setdefault(label, len(labels)))
        return Drawn(tuple(labels), index_HW, shapes, tuple(warnings))


def _parse(file: Path) -> ElementTree.Element:
    content = read_bytes(file, "list_bytes")
    if b"<!DOCTYPE" in content or b"<!ENTITY" in content:  # entities can stand for gigabytes
        raise DataError(f"{file}: declares a document type, which CVAT does not; expected an export of CVAT")
    try:
        root = ElementTree.fromstring(content)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise DataError(f"{file}: damaged XML ({error}); export or copy it again") from None
    if root.tag != "annotations":
        raise DataError(f"{file}: got XML of <{root.tag}>, expected <annotations> as 'CVAT for images 1.1' has it")
    return root


def _draw(shape: ElementTree.Element, where: str, size: Size) -> Patch | str:
    """The pixels of a shape, or why it has none."""
    if shape.tag == "mask":
        patch = _mask(shape, where, size)
    elif shape.tag == "box":
        patch = fill_polygon(_box(shape, where), *size)
    else:
        pairs = [pair.split(",") for pair in shape.get("points", "").split(";") if pair.strip()]
        if len(pairs) < 3:
            return f"a polygon of {len(pairs)} points, expected at least 3"
        patch = fill_polygon(points(pairs, f"{where}, points"), *size)
    return patch if patch.pixels() else "it covers the centre of no pixel of the frame"


def _box(shape: ElementTree.Element, where: str) -> np.ndarray:
    """[4, 2]: the corners of a box, turned about its centre by ``rotation`` degrees, clockwise as seen."""
    ends = points([[shape.get("xtl"), shape.get("ytl")], [shape.get("xbr"), shape.get("ybr")]], where)
    try:
        angle = math.radians(float(shape.get("rotation", "0")))
    except ValueError:
        angle = math.nan
    if not math.isfinite(angle):
        raise DataError(f"{where}: got the rotation {shape.get('rotation')!r}, expected degrees; export it again")
    centre = ends.mean(axis=0)
    turned = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    (x0, y0), (x1, y1) = ends.tolist()
    box = corners(x0, y0, x1, y1)
    return (box - centre) @ turned + centre if angle else box


def _mask(shape: ElementTree.Element, where: str, size: Size) -> Patch:
    height, width = _whole(shape, "height", where), _whole(shape, "width", where)
    check_size(height, width, where)
    try:
        counts = [int(count) for count in shape.get("rle", "").split(",")]
        mask = runs_to_mask(counts, height, width, columns=False)
    except (ValueError, OverflowError) as error:
        raise DataError(f"{where}, rle: {error}; export it again") from None
    return place_mask(mask, _whole(shape, "top", where), _whole(shape, "left", where), *size)


def _whole(element: ElementTree.Element, key: str, where: str, default: str | None = None) -> int:
    text = element.get(key, default)
    try:
        return int(text or "")
    except ValueError:
        raise DataError(f"{where}: got {key} {text!r}, expected a whole number; export it again") from None


def _colour(text: str) -> Colour | None:
    """The colour in ``#rrggbb``."""
    digits = text.removeprefix("#")
    if len(digits) != 6:
        return None
    try:
        red, green, blue = bytes.fromhex(digits)
    except ValueError:
        return None
    return red, green, blue
