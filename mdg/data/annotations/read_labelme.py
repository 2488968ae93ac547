"""labelme: one JSON a frame, beside its image; shapes are painted in the order of the file, later over earlier.

https://github.com/wkentaro/labelme. Polygons, rectangles (also turned ones), circles and masks have an area. Points,
lines and line strips have none and are left out with a warning. ``imageData``, the image itself, is not looked at.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mdg.data.annotations.json_files import entry, points, read_json, rows
from mdg.data.annotations.raster import Patch, corners, fill_circle, fill_polygon, place_mask
from mdg.data.annotations.source import (
    MOST_LABELS,
    Drawn,
    FileSource,
    Size,
    blank,
    check_size,
    frame_name,
    label_text,
    require_once,
)
from mdg.data.reading.headers import PILLOW_ERRORS, open_by_pillow
from mdg.errors import DataError
from mdg.utils.limits import require_within

WITHOUT_AREA = ("point", "points", "line", "linestrip")
POINTS = {"rectangle": 2, "circle": 2, "mask": 2, "oriented_rectangle": 4}


class LabelmeSource(FileSource):
    """JSON files of labelme.

    Args:
        files: The files.
        root: Folder from which names are counted.

    Raises:
        DataError: Two files of one name.
    """

    kind = "labelme"

    def __init__(self, files: Sequence[Path], root: Path):
        super().__init__()
        for file in files:
            name = frame_name(file.relative_to(root).with_suffix("").as_posix(), file)
            require_once(self._files, name, file)
            self._files[name] = file
        self.names = sorted(self._files)

    def size(self, name: str) -> Size | None:
        return _size(read_json(self._files[name]), self._files[name])

    def read(self, name: str, size: Size | None = None) -> Drawn:
        file = self._files[name]
        content = read_json(file)
        size = _size(content, file) or size
        if size is None:
            raise DataError(
                f"{file}: no imageHeight and imageWidth in it; name the folder of its image with --images, which tells"
            )
        labels: dict[str | None, int] = {}
        index_HW, shapes, warnings = blank(size), Counter[str](), []
        for where, shape in rows(content, "shapes", file):
            label = label_text(shape.get("label"), f"{where}.label")
            patch = _draw(shape, where, size)
            if isinstance(patch, str):
                warnings.append(f"{where} ('{label}'): {patch}")
                continue
            if len(labels) >= MOST_LABELS:
                raise DataError(f"{file}: more than {MOST_LABELS} labels")
            patch.paint(index_HW, labels.setdefault(label, len(labels)))
            shapes[label] += 1
        return Drawn(tuple(labels), index_HW, shapes, tuple(warnings))


def _size(content: Mapping[str, Any], file: Path) -> Size | None:
    if content.get("imageHeight") is None or content.get("imageWidth") is None:
        return None
    return check_size(content["imageHeight"], content["imageWidth"], f"{file}.imageHeight")


def _draw(shape: Mapping[str, Any], where: str, size: Size) -> Patch | str:
    """The pixels of a shape, or why it has none."""
    kind = str(shape.get("shape_type") or "polygon")
    if kind in WITHOUT_AREA:
        return f"left out, a {kind} has no area"
    if kind != "polygon" and kind not in POINTS:
        return f"left out, the shape type {kind!r} is not known"
    points_N2 = points(entry(shape, "points", list, where), f"{where}.points")
    if kind in POINTS and len(points_N2) != POINTS[kind]:
        # labelme has also stored rectangles as their four corners
        if kind == "rectangle" and len(points_N2) == 4:
            return _filled(fill_polygon(points_N2, *size))
        return f"left out, a {kind} of {len(points_N2)} points, expected {POINTS[kind]}"
    if kind in ("polygon", "oriented_rectangle"):
        if len(points_N2) < 3:
            return f"left out, a polygon of {len(points_N2)} points, expected at least 3"
        return _filled(fill_polygon(points_N2, *size))
    (x0, y0), (x1, y1) = points_N2.tolist()
    if kind == "circle":
        return _filled(fill_circle(x0, y0, math.hypot(x1 - x0, y1 - y0), *size))
    if kind == "rectangle":
        return _filled(fill_polygon(corners(x0, y0, x1, y1), *size))
    return _filled(place_mask(_mask(shape, where), int(min(y0, y1)), int(min(x0, x1)), *size))


def _filled(patch: Patch) -> Patch | str:
    return patch if patch.pixels() else "left out, it covers the centre of no pixel of the frame"


def _mask(shape: Mapping[str, Any], where: str) -> np.ndarray:
    """[h, w] bool: the PNG in a mask shape, whose first point is its upper left pixel."""
    text = entry(shape, "mask", str, where)
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise DataError(f"{where}.mask: no base64; draw the shape again") from None
    image = open_by_pillow(data, ("PNG",))
    if image is None:
        raise DataError(f"{where}.mask: no PNG in it; draw the shape again")
    require_within("image_pixels", image.height * image.width, f"{where}.mask", DataError)
    try:
        mask = np.array(image.convert("L"))
    except PILLOW_ERRORS:
        raise DataError(f"{where}.mask: a damaged PNG; draw the shape again") from None
    return mask > 0
