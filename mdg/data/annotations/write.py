"""Masks of class ids as annotations that people can correct: labelme, COCO, and CVAT for images.

The way back of the readers beside this file. With a tolerance of 0 a mask that is written and read again is the same,
pixel by pixel, in all three. labelme and CVAT know no holes: there a region is filled, and what lies in its holes is
written after it and so lies on top, the background too. COCO has no order: there a region with holes is cut into parts
without, or written as run lengths.

Legend: H, W frame size; N points of a ring.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

import numpy as np

from mdg.data.annotations.outlines import Region, area, find_regions, simplify, split_holes, trace
from mdg.data.annotations.raster import fill_polygon
from mdg.data.annotations.rle import encode_counts, mask_to_runs
from mdg.fields import IGNORED
from mdg.utils.files import write_json, write_text
from mdg.utils.pictures import css_colour

LABELME_VERSION = "5.5.0"  # whose keys are written


@dataclass(frozen=True)
class Drawing:
    """How masks become shapes.

    Attributes:
        classes: Names by class id.
        background: The class that is not drawn, for it is what is left; None draws all.
        ignore: Label of the pixels with id 255; None leaves them to the background.
        palette: [R, G, B] per class, for formats that show colours.
        tolerance: How far, in pixels, a simplified outline may lie from the exact one; 0 for exact outlines.
        min_pixels: Smaller regions become what lies around them.
    """

    classes: Sequence[str]
    background: int | None = 0
    ignore: str | None = "ignore"
    palette: Sequence[Sequence[int]] | None = None
    tolerance: float = 1.0
    min_pixels: int = 1

    def label(self, id: int) -> str:
        """What the shapes of an id are called."""
        if id == IGNORED:
            assert self.ignore is not None
            return self.ignore
        return self.classes[id]

    def labels(self) -> dict[int, str]:
        """All labels by the id of their pixels."""
        ignored = {} if self.ignore is None else {IGNORED: self.ignore}
        return dict(enumerate(self.classes)) | ignored

    def regions(self, mask_HW: np.ndarray) -> list[Region]:
        """The regions that are drawn, by id and from top to bottom.

        Raises:
            ValueError: An id that is no class.
        """
        present = np.unique(mask_HW).tolist()
        unknown = [id for id in present if id >= len(self.classes) and id != IGNORED]
        if unknown:
            raise ValueError(f"got the class ids {unknown}, expected 0..{len(self.classes) - 1} and {IGNORED}")
        drawn = [id for id in present if id != self.background and (id != IGNORED or self.ignore is not None)]
        return find_regions(mask_HW, drawn, self.min_pixels)

    def layers(self, mask_HW: np.ndarray) -> list[tuple[str, np.ndarray]]:
        """Labels and filled outlines, float [N, 2], in the order in which they must be painted."""
        regions = self.regions(mask_HW)
        if self.background is not None:
            regions += self._background_in_holes(mask_HW, regions)
        rings = [(region, _outline(region)) for region in regions]
        # What lies in a hole is smaller than what fills it, so that order by area is order of painting.
        rings.sort(key=lambda pair: -area(pair[1]))
        return [(self.label(region.id), simplify(ring_N2, self.tolerance)) for region, ring_N2 in rings]

    def _background_in_holes(self, mask_HW: np.ndarray, regions: Sequence[Region]) -> list[Region]:
        filled_HW = np.zeros(mask_HW.shape, bool)
        for region in regions:
            fill_polygon(_outline(region).astype(np.float64), *mask_HW.shape).paint(filled_HW, True)
        assert self.background is not None
        left_HW = mask_HW == self.background
        if self.ignore is None:
            left_HW |= mask_HW == IGNORED
        painted = np.where(left_HW, self.background, -1)
        found = find_regions(painted, [self.background], self.min_pixels)
        return [
            r for r in found if filled_HW[r.top :, r.left :][: len(r.mask_hw), : r.mask_hw.shape[1]][r.mask_hw].any()
        ]


def _outline(region: Region) -> np.ndarray:
    (ring_N2,), _ = trace(region.mask_hw)
    return ring_N2 + np.array([region.left, region.top], np.int32)


def labelme_content(mask_HW: np.ndarray, image: str, drawing: Drawing) -> dict[str, Any]:
    """The JSON of labelme for one frame.

    Args:
        mask_HW: uint8 class ids, 255 ignored.
        image: Path of the image as seen from the JSON.
        drawing: How.
    """
    shapes = [
        {
            "label": label,
            "points": ring_N2.astype(float).tolist(),
            "group_id": None,
            "description": "",
            "shape_type": "polygon",
            "flags": {},
            "mask": None,
        }
        for label, ring_N2 in drawing.layers(mask_HW)
    ]
    height, width = mask_HW.shape
    return {
        "version": LABELME_VERSION,
        "flags": {},
        "shapes": shapes,
        "imagePath": image,
        "imageData": None,
        "imageHeight": height,
        "imageWidth": width,
    }


def write_labelme(file: Path, mask_HW: np.ndarray, image: str, drawing: Drawing) -> None:
    """Writes what :func:`labelme_content` says; raises as :func:`mdg.utils.files.replacing`."""
    write_json(file, labelme_content(mask_HW, image, drawing))


class CocoWriter:
    """Collects frames for one JSON of COCO.

    Args:
        drawing: How masks become shapes; one annotation for each region.
        form: ``polygons`` cuts regions with holes into parts without, ``rle`` writes run lengths, which are exact
            whatever the tolerance.
    """

    def __init__(self, drawing: Drawing, form: Literal["polygons", "rle"] = "polygons"):
        self._drawing, self._form = drawing, form
        labels = {id: label for id, label in drawing.labels().items() if id != drawing.background}
        self._categories = {id: number for number, id in enumerate(labels, 1)}
        categories = [
            {"id": number, "name": labels[id], "supercategory": ""} for id, number in self._categories.items()
        ]
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []
        self._content = {"images": self._images, "annotations": self._annotations, "categories": categories}

    def add(self, mask_HW: np.ndarray, image: str) -> None:
        """Adds one frame.

        Args:
            mask_HW: uint8 class ids, 255 ignored.
            image: Name of the image, below the folder of images.
        """
        height, width = mask_HW.shape
        number = len(self._images) + 1
        self._images.append({"id": number, "file_name": image, "height": height, "width": width})
        for region in self._drawing.regions(mask_HW):
            h, w = region.mask_hw.shape
            self._annotations.append(
                {
                    "id": len(self._annotations) + 1,
                    "image_id": number,
                    "category_id": self._categories[region.id],
                    "segmentation": self._segmentation(region, height, width),
                    "area": region.pixels,
                    "bbox": [region.left, region.top, w, h],
                    "iscrowd": 0,
                }
            )

    def write(self, file: Path) -> None:
        """Writes the JSON, on one line; raises as :func:`mdg.utils.files.replacing`."""
        write_json(file, self._content, indent=None)

    def _segmentation(self, region: Region, height: int, width: int) -> Any:
        if self._form == "rle":
            whole_HW = np.zeros((height, width), bool)
            h, w = region.mask_hw.shape
            whole_HW[region.top : region.top + h, region.left : region.left + w] = region.mask_hw
            return {"size": [height, width], "counts": encode_counts(mask_to_runs(whole_HW))}
        place = np.array([region.left, region.top], np.int32)
        rings = [simplify(ring_N2 + place, self._drawing.tolerance) for ring_N2 in split_holes(region.mask_hw)]
        return [ring_N2.astype(float).ravel().tolist() for ring_N2 in rings]


class CvatWriter:
    """Collects frames for one XML of CVAT for images 1.1, which a task in CVAT takes as its annotations.

    Args:
        drawing: How masks become shapes.
    """

    def __init__(self, drawing: Drawing):
        self._drawing = drawing
        self._root = ElementTree.Element("annotations")
        ElementTree.SubElement(self._root, "version").text = "1.1"
        task = ElementTree.SubElement(ElementTree.SubElement(self._root, "meta"), "task")
        labels = ElementTree.SubElement(task, "labels")
        for id, label in drawing.labels().items():
            entry = ElementTree.SubElement(labels, "label")
            ElementTree.SubElement(entry, "name").text = label
            if drawing.palette is not None and id < len(drawing.palette):
                ElementTree.SubElement(entry, "color").text = css_colour(drawing.palette[id])
        self._frames = 0

    def add(self, mask_HW: np.ndarray, image: str) -> None:
        """Adds one frame; see :meth:`CocoWriter.add`."""
        height, width = mask_HW.shape
        frame = ElementTree.SubElement(
            self._root, "image", id=str(self._frames), name=image, width=str(width), height=str(height)
        )
        self._frames += 1
        for order, (label, ring_N2) in enumerate(self._drawing.layers(mask_HW)):
            points = ";".join(f"{x:.2f},{y:.2f}" for x, y in ring_N2.tolist())
            ElementTree.SubElement(
                frame, "polygon", label=label, source="auto", occluded="0", points=points, z_order=str(order)
            )

    def text(self) -> str:
        """The XML of all frames added."""
        ElementTree.indent(self._root)
        return ElementTree.tostring(self._root, encoding="unicode", xml_declaration=False) + "\n"

    def write(self, file: Path) -> None:
        """Writes the XML; raises as :func:`mdg.utils.files.replacing`."""
        write_text(file, '<?xml version="1.0" encoding="utf-8"?>\n' + self.text())
