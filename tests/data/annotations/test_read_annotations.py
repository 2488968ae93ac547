"""Readers of annotations against planes by hand; and what is damaged, by file and place."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from mdg.data.annotations.detect import FORMATS, open_annotations
from mdg.data.annotations.read_masks import read_classes
from mdg.data.annotations.source import Drawn, frame_name
from mdg.errors import DataError

SQUARE = [[1, 1], [4, 1], [4, 4], [1, 4]]


def plane(drawn: Drawn) -> list[str]:
    """A letter a pixel: the first of its label, a dot for nothing."""
    letters = [(label or "!")[0] for label in drawn.labels] + ["."]
    return ["".join(letters[place] for place in row) for row in drawn.index_HW.tolist()]


def error_of(action: Callable[[], Any]) -> str:
    with pytest.raises(DataError) as caught:
        action()
    return str(caught.value)


def labelme(folder: Path, *shapes: dict[str, Any], name: str = "a", **changes: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    shapes_ = [{"shape_type": "polygon", "label": "person", "points": SQUARE, **shape} for shape in shapes]
    content = {"shapes": shapes_, "imageHeight": 5, "imageWidth": 6, "imageData": "no base64 at all", **changes}
    (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def read_labelme(folder: Path, *shapes: dict[str, Any], **changes: Any) -> Drawn:
    return open_annotations(labelme(folder, *shapes, **changes)).read("a")


def test_labelme_paints_in_the_order_of_the_file(tmp_path):
    rectangle = {"shape_type": "rectangle", "label": "car", "points": [[6, 5], [3, 3]]}
    first = ["......", ".ppp..", ".ppp..", ".pp" + "ccc", "...ccc"]
    assert plane(read_labelme(tmp_path, {}, rectangle)) == first
    assert plane(read_labelme(tmp_path, rectangle, {})) == [*first[:3], ".pppcc", "...ccc"]


def png(mask: list[list[int]]) -> str:
    stream = io.BytesIO()
    Image.fromarray(np.array(mask, np.uint8)).save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()


def test_labelme_circles_masks_and_turned_rectangles(tmp_path):
    circle = {"shape_type": "circle", "points": [[2.5, 2.5], [2.5, 3.6]]}
    assert plane(read_labelme(tmp_path, circle)) == ["......", "..p...", ".ppp..", "..p...", "......"]
    mask = {"shape_type": "mask", "points": [[3, 2], [5, 3]], "mask": png([[255, 0, 255], [0, 255, 0]])}
    assert plane(read_labelme(tmp_path, mask)) == ["......", "......", "...p.p", "....p.", "......"]
    turned = {"shape_type": "oriented_rectangle", "points": [[2.5, 0.4], [4.6, 2.5], [2.5, 4.6], [0.4, 2.5]]}
    assert plane(read_labelme(tmp_path, turned)) == ["..p...", ".ppp..", "ppppp.", ".ppp..", "..p..."]


def test_labelme_leaves_out_what_has_no_area(tmp_path):
    drawn = read_labelme(
        tmp_path,
        {"shape_type": "linestrip"},
        {"shape_type": "point", "points": [[1, 1]]},
        {"points": SQUARE[:2]},
        {"points": [[1.1, 1.1], [1.2, 1.1], [1.2, 1.2]]},
        {"shape_type": "blob"},
        {"shape_type": "circle"},
        {},
    )
    assert drawn.shapes == {"person": 1} and len(drawn.warnings) == 6
    for number, (warning, words) in enumerate(
        zip(
            drawn.warnings,
            ("linestrip", "point", "2 points, expected at least 3", "centre of no pixel", "'blob'", "of 4 points"),
            strict=True,
        )
    ):
        assert warning.startswith(f"{tmp_path / 'a.json'}.shapes[{number}] ('person'): left out") and words in warning


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ({"points": [[1, 1], [2]]}, ".shapes[0].points: got [[1, 1], [2]], expected points"),
        ({"points": [[1, 1], [2, 1e9], [3, 3]]}, ".shapes[0].points: got coordinates beyond"),
        ({"points": "no"}, ".shapes[0].points: got str 'no', expected a list"),
        ({"label": " "}, ".shapes[0].label: got the label ' ', expected a name"),
        ({"label": None}, ".shapes[0].label: got the label None"),
        ({"shape_type": "mask", "points": SQUARE[:2], "mask": "%%"}, ".shapes[0].mask: no base64"),
        ({"shape_type": "mask", "points": SQUARE[:2], "mask": "AAAA"}, ".shapes[0].mask: no PNG"),
        ({"shape_type": "mask", "points": SQUARE[:2]}, ".shapes[0].mask: got nothing"),
    ],
)
def test_labelme_names_the_place_of_a_mistake(shape, words, tmp_path):
    assert error_of(lambda: read_labelme(tmp_path, shape)).startswith(f"{tmp_path / 'a.json'}{words}")


def test_labelme_sizes(tmp_path):
    assert "height 0" in error_of(lambda: read_labelme(tmp_path, {}, imageHeight=0))
    assert "image_pixels" in error_of(lambda: read_labelme(tmp_path, {}, imageHeight=10**6, imageWidth=10**6))
    assert "--images" in error_of(lambda: read_labelme(tmp_path, {}, imageHeight=None))
    source = open_annotations(labelme(tmp_path, {}, imageHeight=None))
    assert source.size("a") is None and source.read("a", (7, 9)).index_HW.shape == (7, 9)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"shapes": [,]}', "line 1, column 13: damaged JSON"),
        (b'{"shapes": [\n{"a": 1}', "line 2, column 9: damaged JSON"),
        (b'{"shapes": NaN}', "NaN is no number"),
        (b"[1]", "got JSON of a list"),
        (b"[" * 100_000, "damaged JSON"),
        (b'{"shapes": "\xff"}', "damaged JSON"),
        (b'{"a": 1}', "found nothing that is one"),
    ],
)
def test_damaged_json(content, words, tmp_path):
    (tmp_path / "a.json").write_bytes(content)
    message = error_of(lambda: open_annotations(tmp_path / "a.json").read("a"))
    assert words in message and message.startswith(str(tmp_path / "a.json")) and "\n" not in message


def coco(folder: Path, *annotations: dict[str, Any], file: str = "coco.json", **changes: Any) -> Path:
    rows = [{"id": 7, "image_id": 1, "category_id": 3, **annotation} for annotation in annotations]
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 5, "width": 6}],
        "annotations": rows,
        "categories": [{"id": 9, "name": "car"}, {"id": 3, "name": "person"}],
        **changes,
    }
    (folder / file).parent.mkdir(parents=True, exist_ok=True)
    (folder / file).write_text(json.dumps(content))
    return folder / file


def ring(*corners: float) -> list[float]:
    x0, y0, x1, y1 = corners
    return [x0, y0, x1, y0, x1, y1, x0, y1]


def test_coco_small_over_large_and_parts_united(tmp_path):
    small = {"category_id": 9, "segmentation": [ring(2, 2, 4, 3)]}
    large = {"segmentation": [ring(0, 0, 5, 4), ring(1, 1, 2, 2), ring(5, 4, 6, 5)]}  # the second is no hole
    expected = ["ppppp.", "ppppp.", "ppccp.", "ppppp.", ".....p"]
    for order in ((small, large), (large, small)):
        source = open_annotations(coco(tmp_path, *order))
        assert plane(source.read("a")) == expected
    assert list(source.known) == ["car", "person"] and source.size("a") == (5, 6)


def test_coco_run_lengths_and_crowds(tmp_path):
    # Down the columns of 5: the second and third pixel of the first column; as a list and as text.
    crowd = {"iscrowd": 1, "segmentation": {"size": [5, 6], "counts": [1, 2, 27]}}
    text = {"category_id": 9, "segmentation": {"size": [5, 6], "counts": "04j0"}}
    drawn = open_annotations(coco(tmp_path, text, crowd)).read("a")
    assert plane(drawn) == ["c.....", "c.....", "c.....", "c.....", "......"]  # crowds lie below
    alone = coco(tmp_path, crowd)
    assert plane(open_annotations(alone).read("a")) == ["......", "p.....", "p.....", "......", "......"]
    assert plane(open_annotations(alone, ignore_crowds=True).read("a"))[1] == "!....."


def test_coco_leaves_out_what_has_no_area(tmp_path):
    drawn = open_annotations(
        coco(
            tmp_path,
            {"segmentation": [[1, 1, 2, 2], ring(0, 0, 2, 2)]},
            {"segmentation": [], "bbox": [1, 1, 2, 2]},
            {"segmentation": [[1.1, 1.1, 1.2, 1.1, 1.2, 1.2]]},
        )
    ).read("a")
    assert drawn.shapes == {"person": 1}
    words = ("annotations[0] ('person'): 1 polygon(s) of fewer than 3", "[1] ('person'): left out, it has no", "[2] (")
    assert len(drawn.warnings) == 3 and all(w in line for w, line in zip(words, drawn.warnings, strict=True))


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        ({"category_id": 4}, ".annotations[0].category_id: got 4, expected one of [3, 9]"),
        ({"image_id": 5}, ".annotations[0].image_id: got 5, which is no image"),
        ({"image_id": [1]}, ".annotations[0].image_id: got [1]"),
        ({"segmentation": [[1, 1, 2, 2, 3]]}, ".annotations[0].segmentation[0]: expected a list of x, y"),
        ({"segmentation": [[1, 1, 2, 2, 3, "x"]]}, ".annotations[0].segmentation[0]: got"),
        ({"segmentation": {"size": [6, 5], "counts": []}}, ".annotations[0].segmentation.size: got [6, 5]"),
        ({"segmentation": {"size": [5, 6], "counts": [1, 2]}}, ".annotations[0].segmentation.counts: the runs have 3"),
        ({"segmentation": {"size": [5, 6], "counts": "5P"}}, ".annotations[0].segmentation.counts: the text ends"),
    ],
)
def test_coco_names_the_place_of_a_mistake(annotation, words, tmp_path):
    file = coco(tmp_path, annotation)
    assert error_of(lambda: open_annotations(file).read("a")).startswith(f"{file}{words}")


def test_coco_images_twice_and_outside(tmp_path):
    image = {"id": 1, "file_name": "a.jpg", "height": 5, "width": 6}
    again = coco(tmp_path, images=[image, {**image, "file_name": "b.jpg"}])
    assert "images[1].id: got 1, expected an id that no other" in error_of(lambda: open_annotations(again))
    same = coco(tmp_path, images=[image, {**image, "id": 2, "file_name": "a.png"}])
    assert "a second annotation of the frame 'a'" in error_of(lambda: open_annotations(same))
    for name in ("../../etc/a.png", "/etc/a.png", "C:\\a.png", "x\\..\\..\\a.png", "a\n.png", ""):
        assert "below one folder" in error_of(lambda name=name: frame_name(name, "here"))
    assert frame_name("city\\0001.v2.jpg", "here") == "city/0001.v2"


def test_roboflow_coco_keeps_its_splits(tmp_path):
    for split, name in (("train", "a"), ("valid", "b"), ("test", "c")):
        image = {"id": 0, "file_name": f"{name}.jpg", "height": 5, "width": 6}
        annotation = {"image_id": 0, "segmentation": [ring(0, 0, 3, 3)]}
        coco(tmp_path, annotation, file=f"{split}/_annotations.coco.json", images=[image])
    source = open_annotations(tmp_path)
    assert source.splits == {"a": "train", "b": "val", "c": "test"} and source.names == ["a", "b", "c"]
    assert plane(source.read("b"))[0] == "ppp..."


def cvat(folder: Path, shapes: str, head: str = "") -> Path:
    file = folder / "annotations.xml"
    label = "<label><name>car</name><color>#0a0bff</color></label>"
    file.write_text(
        f"{head}<annotations><meta><task><labels>{label}</labels></task></meta>"
        f'<image id="0" name="a.png" width="6" height="5">{shapes}</image></annotations>'
    )
    return file


def test_cvat_shapes_and_their_order(tmp_path):
    file = cvat(
        tmp_path,
        '<tag label="night"/>'
        '<box label="car" xtl="3" ytl="3" xbr="6" ybr="5" z_order="2"/>'
        '<polygon label="person" points="1,1;4,1;4,4;1,4" z_order="0"/>'
        '<mask label="dog" rle="1,2,1" left="0" top="0" width="2" height="2"/>'
        '<points label="person" points="1,1"/>'
        '<polygon label="person" points="1,1;2,2"/>',
    )
    source = open_annotations(file)
    drawn = source.read("a")
    assert plane(drawn) == [".d....", "dppp..", ".ppp..", ".ppccc", "...ccc"]
    assert source.known == {"car": (10, 11, 255)} and drawn.shapes == {"car": 1, "person": 1, "dog": 1}
    words = ("a points is not read", "a polygon of 2 points", "1 box(es) beside outlines are painted as rectangles")
    assert all(word in line for word, line in zip(words, drawn.warnings, strict=True))


def test_cvat_turned_boxes(tmp_path):
    file = cvat(tmp_path, '<box label="car" xtl="0.6" ytl="2.1" xbr="5.4" ybr="2.9" rotation="45"/>')
    # Clockwise as seen: the right end goes down.
    assert plane(open_annotations(file).read("a")) == ["......", ".cc...", "..cc..", "...cc.", "......"]


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        ('<polygon label="a" points="1,1;2;3,3"/>', "image 'a', shape 0 (polygon), points: got"),
        ('<box label="a" xtl="1" ytl="1" xbr="4"/>', "image 'a', shape 0 (box): got"),
        ('<mask label="a" rle="1,2" left="0" top="0" width="2" height="2"/>', "shape 0 (mask), rle: the runs have 3"),
        ('<mask label="a" rle="4" left="0" top="0" width="2"/>', "shape 0 (mask): got height None"),
        ('<polygon points="1,1;4,1;4,4"/>', "shape 0 (polygon): got the label None"),
        ("<polygon", "damaged XML"),
    ],
)
def test_cvat_names_the_place_of_a_mistake(shapes, words, tmp_path):
    file = cvat(tmp_path, shapes)
    message = error_of(lambda: open_annotations(file).read("a"))
    assert message.startswith(str(file)) and words in message


def test_cvat_takes_no_entities_and_no_videos(tmp_path):
    bomb = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>'
    assert "document type" in error_of(lambda: open_annotations(cvat(tmp_path, "", bomb)))
    (tmp_path / "annotations.xml").write_text("<annotations><track id='0'/></annotations>")
    assert "tracks of a video" in error_of(lambda: open_annotations(tmp_path))
    (tmp_path / "annotations.xml").write_text("<annotation/>")
    assert "got XML of <annotation>" in error_of(lambda: open_annotations(tmp_path))


MAP = "# label:color_rgb:parts:actions\nbackground:0,0,0::\nperson:220,20,60::\ncar:0,0,142:wheel:\n"


def colours(folder: Path, image: np.ndarray, label_map: str = MAP, suffix: str = ".png") -> Path:
    (folder / "SegmentationClass").mkdir(parents=True, exist_ok=True)
    (folder / "labelmap.txt").write_text(label_map)
    cv2.imwrite(str(folder / "SegmentationClass" / f"a{suffix}"), image[..., ::-1])
    return folder


def scene() -> np.ndarray:
    image = np.zeros((3, 4, 3), np.uint8)
    image[1:, 1:3], image[0, 3] = (220, 20, 60), (0, 0, 142)
    return image


def test_colours_and_their_map(tmp_path):
    source = open_annotations(colours(tmp_path, scene()))
    assert plane(source.read("a")) == ["bbbc", "bppb", "bppb"]
    assert source.known == {"background": (0, 0, 0), "person": (220, 20, 60), "car": (0, 0, 142)}
    indices = np.array([[0, 1], [2, 0]], np.uint8)
    image = Image.fromarray(indices, "P")
    image.putpalette([0, 0, 0, 220, 20, 60, 0, 0, 142])
    image.save(tmp_path / "SegmentationClass" / "a.png")  # with a palette it is the same colours
    assert plane(source.read("a")) == ["bp", "cb"]


def test_colours_that_the_map_leaves_out_are_those_of_pascal_voc(tmp_path):
    source = open_annotations(colours(tmp_path, scene(), "background:::\nperson:::\ncar:0,0,142::\ndog:::\n"))
    assert source.known == {"background": (0, 0, 0), "person": (128, 0, 0), "car": (0, 0, 142), "dog": (128, 128, 0)}


def test_a_colour_that_no_label_has(tmp_path):
    image = scene()
    image[2, :3], image[0, 0] = (0, 2, 140), (9, 9, 9)
    folder = colours(tmp_path, image)
    message = error_of(lambda: open_annotations(folder).read("a"))
    assert message.startswith(
        f"{folder / 'SegmentationClass' / 'a.png'}: got the colour 0,2,140 on 3 pixels and 1 other"
    )
    assert "the nearest is 0,0,142 (car)" in message


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("dog:1,2::", "line 5: got 'dog:1,2::'"),
        ("dog:1,2,256::", "line 5"),
        ("dog", "line 5"),
        ("dog:220,20,60::", "line 5: 'dog' or its colour stands there twice"),
    ],
)
def test_damaged_label_maps(line, words, tmp_path):
    message = error_of(lambda: open_annotations(colours(tmp_path, scene(), MAP + line)))
    assert message.startswith(str(tmp_path / "labelmap.txt")) and words in message


def test_roboflow_masks(tmp_path):
    for split, name in (("train", "a"), ("valid", "b")):
        (tmp_path / split).mkdir()
        (tmp_path / split / "_classes.csv").write_text("Pixel Value, Class\n0, background\n1, person\n2, car\n")
        cv2.imwrite(str(tmp_path / split / f"{name}_mask.png"), np.array([[0, 1], [2, 2]], np.uint8))
        cv2.imwrite(str(tmp_path / split / f"{name}.jpg"), np.zeros((2, 2, 3), np.uint8))
    source = open_annotations(tmp_path)
    assert source.names == ["a", "b"] and source.splits == {"a": "train", "b": "val"}
    assert plane(source.read("b")) == ["bp", "cc"] and list(source.known) == ["background", "person", "car"]
    cv2.imwrite(str(tmp_path / "train" / "a_mask.png"), np.array([[0, 1], [9, 9]], np.uint8))
    message = error_of(lambda: source.read("a"))
    assert "a_mask.png: got the value 9 on 2 pixels" in message and "the nearest is 2 (car)" in message
    (tmp_path / "train" / "_classes.csv").write_text("Pixel Value, Class\n0, background\n0, person\n")
    assert ", line 3: got '0, person'" in error_of(lambda: read_classes(tmp_path / "train" / "_classes.csv"))


def test_binary_masks(tmp_path):
    for name, high in (("a", 255), ("b", 1)):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.array([[0, high, 0]], np.uint8))
    source = open_annotations(tmp_path, foreground="person")
    assert plane(source.read("a")) == plane(source.read("b")) == [".p."]
    cv2.imwrite(str(tmp_path / "b.png"), np.array([[0, 1, 7]], np.uint8))
    assert "got the values 0, 1, 7, expected 0 and 255" in error_of(lambda: source.read("b"))


def test_which_format_it_is(tmp_path):
    assert "no such file" in error_of(lambda: open_annotations(tmp_path / "none"))
    assert all(kind in error_of(lambda: open_annotations(tmp_path)) for kind in FORMATS)
    (tmp_path / "export.zip").write_bytes(b"PK")
    assert "unpack export.zip first" in error_of(lambda: open_annotations(tmp_path))
    labelme(tmp_path, {})
    cvat(tmp_path, "")
    assert "got what may be labelme or cvat" in error_of(lambda: open_annotations(tmp_path))
    assert open_annotations(tmp_path, "cvat").kind == "CVAT for images"
    assert open_annotations(tmp_path, "labelme").names == ["a"]
