"""A mask that is written and read again is the same, in every format."""

from __future__ import annotations

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from mdg.data.annotations.detect import open_annotations
from mdg.data.annotations.scheme import Scheme
from mdg.data.annotations.source import Source
from mdg.data.annotations.write import CocoWriter, CvatWriter, Drawing, labelme_content, write_labelme

CLASSES = ["background", "person", "vehicle"]
FORMS = ("labelme", "coco", "coco-rle", "cvat")


def write(form: str, folder: Path, mask: np.ndarray, drawing: Drawing) -> Path:
    """The file, for a frame called ``a``."""
    file = folder / {"labelme": "a.json", "cvat": "a.xml"}.get(form, "coco.json")
    if form == "labelme":
        write_labelme(file, mask, "../rgb/a.png", drawing)
        return file
    writer = CvatWriter(drawing) if form == "cvat" else CocoWriter(drawing, "rle" if form == "coco-rle" else "polygons")
    writer.add(mask, "a.png")
    writer.write(file)
    return file


def read(source: Source, classes: list[str] = CLASSES) -> np.ndarray:
    found = source.read("a")
    assert found.warnings == ()
    return Scheme(classes, classes[0]).to_ids(found.labels, found.index_HW)


def there_and_back(form: str, folder: Path, mask: np.ndarray, **choices: object) -> np.ndarray:
    return read(open_annotations(write(form, folder, mask, Drawing(CLASSES, **choices))))


def nested() -> np.ndarray:
    """A ring with another class in its hole, background in that one's hole, and in it a dot of the first."""
    mask = np.zeros((40, 50), np.uint8)
    for margin, id in ((2, 1), (6, 2), (10, 0), (15, 1), (18, 255)):
        mask[margin : 40 - margin, margin : 50 - margin] = id
    return mask


@pytest.mark.parametrize("form", FORMS)
def test_holes_within_holes(form, tmp_path):
    assert np.array_equal(there_and_back(form, tmp_path, nested(), tolerance=0), nested())


@pytest.mark.parametrize("form", FORMS)
def test_noise_comes_back_pixel_by_pixel(form, tmp_path):
    rng = np.random.default_rng(0)
    for round in range(8):
        mask = rng.choice(np.array([0, 1, 2, 255], np.uint8), tuple(rng.integers(1, 28, 2)), p=[0.4, 0.3, 0.2, 0.1])
        if round % 2:
            mask = np.kron(mask, np.ones((2, 3), np.uint8))
        assert np.array_equal(there_and_back(form, tmp_path, mask, tolerance=0), mask)


@pytest.mark.parametrize("form", FORMS)
def test_a_pixel_of_tolerance_keeps_99_percent(form, tmp_path):
    rng = np.random.default_rng(3)
    smooth = cv2.GaussianBlur(rng.normal(size=(3, 160, 200)).transpose(1, 2, 0), (0, 0), 15)
    mask = smooth.argmax(axis=2).astype(np.uint8)
    exact, coarse = (write(form, tmp_path / str(t), mask, Drawing(CLASSES, tolerance=t)) for t in (0, 1))
    agree = (read(open_annotations(coarse)) == mask).mean()
    if form == "coco-rle":
        assert agree == 1
    else:
        assert 0.99 <= agree < 1 and coarse.stat().st_size < exact.stat().st_size / 2


def test_small_regions_become_what_lies_around_them(tmp_path):
    mask = np.zeros((20, 20), np.uint8)
    mask[2:12, 2:12], mask[5, 5], mask[16, 16], mask[15:18, 3:6] = 1, 2, 2, 2
    expected = mask.copy()
    expected[5, 5], expected[16, 16] = 1, 0
    found = there_and_back("labelme", tmp_path, mask, tolerance=0, min_pixels=4)
    assert np.array_equal(found, expected)


def test_ignored_pixels_without_a_label_are_background(tmp_path):
    mask = nested()
    for form in FORMS:
        found = there_and_back(form, tmp_path, mask, tolerance=0, ignore=None, background=0)
        assert np.array_equal(found, np.where(mask == 255, 0, mask)), form


def test_labelme_by_hand():
    mask = np.zeros((4, 5), np.uint8)
    mask[1:3, 2:5] = 1
    content = labelme_content(mask, "../rgb/a.png", Drawing(CLASSES, tolerance=0))
    (shape,) = content.pop("shapes")
    assert shape["label"] == "person" and shape["shape_type"] == "polygon"
    assert sorted(shape["points"]) == [[2.0, 1.0], [2.0, 3.0], [5.0, 1.0], [5.0, 3.0]]
    assert content == {
        "version": "5.5.0",
        "flags": {},
        "imagePath": "../rgb/a.png",
        "imageData": None,
        "imageHeight": 4,
        "imageWidth": 5,
    }


def test_coco_by_hand(tmp_path):
    mask = np.zeros((4, 5), np.uint8)
    mask[1:3, 2:5], mask[3, 0] = 2, 255
    content = json.loads(write("coco", tmp_path, mask, Drawing(CLASSES, tolerance=0)).read_text())
    assert [c["name"] for c in content["categories"]] == ["person", "vehicle", "ignore"]
    assert content["images"] == [{"id": 1, "file_name": "a.png", "height": 4, "width": 5}]
    vehicle, ignored = content["annotations"]
    assert vehicle["bbox"] == [2, 1, 3, 2] and vehicle["area"] == 6 and vehicle["category_id"] == 2
    ring = vehicle["segmentation"][0]
    assert sorted(zip(ring[::2], ring[1::2], strict=True)) == [(2, 1), (2, 3), (5, 1), (5, 3)]
    assert ignored["bbox"] == [0, 3, 1, 1] and ignored["category_id"] == 3
    content = json.loads(write("coco-rle", tmp_path, mask, Drawing(CLASSES)).read_text())
    # Down the columns 9 pixels out, 2 in, 2 out, 2 in, 2 out, 2 in, 1 out. From the fourth on as differences from the
    # one two before: 0, 0, 0, -1; and -1 is 31 in five bits, 48 + 31 the letter O.
    assert content["annotations"][0]["segmentation"] == {"size": [4, 5], "counts": "922000O"}


def test_cvat_names_colours_and_order(tmp_path):
    palette = [[0, 0, 0], [220, 20, 60], [0, 0, 142]]
    text = write("cvat", tmp_path, nested(), Drawing(CLASSES, palette=palette)).read_text()
    assert '<?xml version="1.0" encoding="utf-8"?>' in text and "<color>#dc143c</color>" in text
    orders = [line.split('z_order="')[1].split('"')[0] for line in text.splitlines() if "<polygon" in line]
    assert orders == ["0", "1", "2", "3", "4"]
    labels = [line.split('label="')[1].split('"')[0] for line in text.splitlines() if "<polygon" in line]
    assert labels == ["person", "vehicle", "background", "person", "ignore"]


def test_a_class_that_does_not_exist():
    with pytest.raises(ValueError, match=r"\[7\], expected 0..2 and 255"):
        Drawing(CLASSES).regions(np.full((3, 3), 7, np.uint8))


def test_real_labels(mfnet_mini, tmp_path):
    classes = [f"class {id}" for id in range(9)]
    for file in sorted((mfnet_mini / "labels").glob("*.png"))[:3]:
        mask = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        for form in FORMS:
            place = write(form, tmp_path, mask, Drawing(classes, tolerance=0))
            assert np.array_equal(read(open_annotations(place), classes), mask), (file.name, form)


def test_the_example_of_the_docs(repository, tmp_path, monkeypatch):
    text = (repository / "docs" / "labels.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (tmp_path / "guessed").mkdir()
    mask = np.zeros((40, 50), np.uint8)
    mask[5:15, 5:25], mask[20:22, 30:32] = 2, 1
    cv2.imwrite(str(tmp_path / "guessed" / "0001_mask.png"), mask)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "docs/labels.md", "exec"), {})
    for source in (open_annotations(tmp_path / "drawn"), open_annotations(tmp_path / "drawn.xml")):
        found = source.read("0001")
        assert found.labels == ("person",) and (found.index_HW == 0).sum() == 200  # the four pixels are too few
