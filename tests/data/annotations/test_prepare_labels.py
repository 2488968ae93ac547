"""The command from annotations to a data set that loads: classes, images, splits, and every mistake in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from test_read_annotations import coco, labelme, ring

from mdg.commands import prepare_labels as command
from mdg.config import load_config
from mdg.data import build_dataset
from mdg.data.annotations import detect
from mdg.data.annotations.configuration import config_text, share_out
from mdg.data.annotations.match import match_images
from mdg.data.check import check_data
from mdg.errors import ConfigError, DataError
from mdg.options.folder import FolderOptions

TALL = 60, 80  # height, width of what is trained on


@pytest.fixture
def prepare(capsys):
    """Runs the command; gives what it printed."""

    def run(*arguments: object) -> str:
        command.main([str(argument) for argument in arguments])
        return capsys.readouterr().out

    return run


@pytest.fixture
def refused(capsys):
    """Runs a command that ends with a mistake of the user; gives its one line."""

    def run(*arguments: object) -> str:
        with pytest.raises(SystemExit) as stop:
            command.main([str(argument) for argument in arguments])
        assert stop.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line.removeprefix("prepare_labels: error: ")

    return run


def square(label: str, x: float = 1, y: float = 1, side: float = 3) -> dict[str, Any]:
    return {"label": label, "points": [[x, y], [x + side, y], [x + side, y + side], [x, y + side]]}


def read(file: Path) -> np.ndarray:
    return cv2.imread(str(file), cv2.IMREAD_UNCHANGED)


def images(root: Path, *names: str, size: tuple[int, int] = (5, 6)) -> Path:
    rng = np.random.default_rng(0)
    for folder, shape in (("rgb", (*size, 3)), ("thermal", size)):
        for name in names:
            file = root / folder / f"{name}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(file), rng.integers(0, 256, shape, dtype=np.uint8))
    return root / "rgb"


def test_the_command_knows_all_formats():
    assert command.FORMATS == detect.FORMATS
    defaults = command.parse().parse_args(["a", "b"])
    assert defaults.rgb == command.RGB and FolderOptions.model_fields.keys() >= {"rgb", "thermal", "split_file"}


def test_from_polygons_to_a_data_set_that_passes_its_check(tmp_path, prepare):
    names = [f"{number:02}" for number in range(10)]
    root = tmp_path / "yard"
    rgb = images(root, *names, size=TALL)
    for place, name in enumerate(names):
        shapes = [square("person", 5 + place, 10, 20), square("van", 40, 20, 15), square("glass", 50, 40, 9)]
        labelme(tmp_path / "drawn", *shapes, name=name, imageHeight=TALL[0], imageWidth=TALL[1])
    printed = prepare(
        tmp_path / "drawn", root, "--images", rgb, "--split", "0.6,0.2,0.2", "--classes", "person,vehicle",
        "--merge", "van=vehicle", "--ignore", "glass",
    )  # fmt: skip
    assert "labelme, 10 frame(s)" in printed and "written: 10 label(s) (train 6, val 2, test 2)" in printed
    rows = [line.split() for line in printed.splitlines()]
    assert ["1", "person", "4000", "8.33%", "10"] in rows and ["2", "vehicle", "2250", "4.69%", "10"] in rows
    # 9x9 pixels of glass, none of them under a van
    assert ["255", "(ignored)", "810", "1.69%", "10"] in rows and ["0", "background", "40940", "85.29%", "10"] in rows
    config = load_config(root / "data.yaml")
    assert check_data(config.data, config=root / "data.yaml", workers=1)
    train = build_dataset(config.data, "train")
    assert train.classes == ("background", "person", "vehicle") and len(train) == 6
    label = train[0].label_HW
    assert np.bincount(label.ravel(), minlength=256)[[0, 1, 2, 255]].tolist() == [4094, 400, 225, 81]
    (crop,) = [t for t in config.model_dump(mode="json")["pipeline"]["train"] if t["type"] == "RandomResizedCrop"]
    assert crop["size"] == [32, 64]


def test_classes_follow_the_source_and_the_background_is_no_class_twice(tmp_path, prepare):
    labelme(tmp_path / "a", square("zebra"), square("_background_", 2, 2, 1), square("ant", 3, 3, 1))
    assert "warning" not in prepare(tmp_path / "a", tmp_path / "one")
    assert load_config(tmp_path / "one" / "data.yaml").data.classes == ["background", "ant", "zebra"]
    expected = np.zeros((5, 6), np.uint8)
    expected[1:4, 1:4], expected[2, 2], expected[3, 3] = 2, 0, 1
    assert np.array_equal(read(tmp_path / "one" / "labels" / "a.png"), expected)
    place = coco(tmp_path, {"segmentation": [ring(0, 0, 2, 2)]}, {"category_id": 9, "segmentation": [ring(3, 3, 5, 5)]})
    prepare(place, tmp_path / "two", "--background", "road")
    assert load_config(tmp_path / "two" / "data.yaml").data.classes == ["road", "car", "person"]


def test_colours_of_the_source_become_the_palette(tmp_path, prepare):
    folder = tmp_path / "voc"
    (folder / "SegmentationClass").mkdir(parents=True)
    (folder / "labelmap.txt").write_text("background:0,0,0::\ncar:1,2,3::\nperson:9,8,7::\nvoid:255,255,255::\n")
    image = np.zeros((5, 6, 3), np.uint8)
    image[0, 0], image[1, 1], image[2, 2] = (3, 2, 1), (7, 8, 9), (255, 255, 255)  # B, G, R
    cv2.imwrite(str(folder / "SegmentationClass" / "a.png"), image)
    prepare(folder, tmp_path / "out", "--ignore", "void")
    data = load_config(tmp_path / "out" / "data.yaml").data
    assert data.classes == ["background", "car", "person"] and data.palette == [(0, 0, 0), (1, 2, 3), (9, 8, 7)]
    label = read(tmp_path / "out" / "labels" / "a.png")
    assert (label[0, 0], label[1, 1], label[2, 2], int(label.astype(int).sum())) == (1, 2, 255, 258)


def test_binary_masks_take_the_one_class_that_is_named(tmp_path, prepare, refused):
    (tmp_path / "masks").mkdir()
    cv2.imwrite(str(tmp_path / "masks" / "a_mask.png"), np.eye(6, dtype=np.uint8)[:5] * 255)
    rgb = images(tmp_path, "a")
    prepare(tmp_path / "masks", tmp_path / "out", "--classes", "background,person", "--images", rgb)
    assert np.array_equal(read(tmp_path / "out" / "labels" / "a.png"), np.eye(6, dtype=np.uint8)[:5])
    prepare(tmp_path / "masks", tmp_path / "plain")
    assert load_config(tmp_path / "plain" / "data.yaml").data.classes == ["background", "foreground"]
    line = refused(tmp_path / "masks", tmp_path / "b", "--classes", "person,car")
    assert "'foreground' (1 shape(s) in 1 frame(s))" in line and "--merge 'foreground=CLASS'" in line


def test_unknown_labels_are_listed_with_counts(tmp_path, refused):
    labelme(tmp_path / "a", square("person"), square("cart"), square("cart"), square("dog"), name="1")
    labelme(tmp_path / "a", square("cart"), name="2")
    line = refused(tmp_path / "a", tmp_path / "out", "--classes", "person,car")
    assert line.startswith(f"{tmp_path / 'a'}: labels that are no class: 'cart' (3 shape(s) in 2 frame(s)), 'dog' (1 ")
    assert "Did you mean 'car'?" in line and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--classes", "person,background"], "--classes: got 'background' behind 'person'"),
        (["--classes", "person,person"], "expected different names"),
        (["--classes", "person,,car"], "none of them empty"),
        (["--classes", "person,ignore"], "'ignore', which is ignored, as a class"),
        (["--ignore", "person"], "got 1 class(es) (background)"),
        (["--merge", "peson=car"], "--merge: got 'peson', which no shape is labelled with; labels are person"),
        (["--ignore", "peson"], "--ignore: got 'peson', which no shape"),
        (["--background", "ignore"], "--background: got 'ignore'"),
        (["--split", "0.5,0.5,0.5"], "--split: got 0.5,0.5,0.5, expected the shares"),
        (["--split", "0.8,0.1,0.1"], "--split: got 1 frame(s) for 3 splits"),
        (["--rgb", "rgb/picture.png"], "rgb: expected a path with {name} in it once"),
        (["--images", "nowhere"], "nowhere: no such folder"),
        (["--format", "coco"], "a.json.categories: got nothing, expected a list"),
    ],
)
def test_mistakes(arguments, words, tmp_path, refused):
    labelme(tmp_path / "drawn", square("person"))
    assert words in refused(tmp_path / "drawn", tmp_path / "out", *arguments)
    assert not (tmp_path / "out").exists()


def test_nothing_is_overwritten_without_force(tmp_path, prepare, refused):
    labelme(tmp_path / "drawn", square("person"))
    prepare(tmp_path / "drawn", tmp_path / "out")
    before = {file: file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file()}
    assert {file.name for file in before} == {"a.png", "train.txt", "data.yaml"}
    labelme(tmp_path / "drawn", square("person", 0, 0, 5))
    line = refused(tmp_path / "drawn", tmp_path / "out")
    assert "a.png: is there already (3 of 3 files to write are)" in line and "--force" in line
    assert all(file.read_bytes() == content for file, content in before.items())
    prepare(tmp_path / "drawn", tmp_path / "out", "--force")
    assert (read(tmp_path / "out" / "labels" / "a.png") == 1).sum() == 25


def test_what_is_read_is_never_written(tmp_path, refused):
    file = tmp_path / "out" / "labels" / "a.png"
    file.parent.mkdir(parents=True)
    cv2.imwrite(str(file), np.eye(6, dtype=np.uint8) * 255)
    before = file.read_bytes()
    assert "is an annotation that is read" in refused(file.parent, tmp_path / "out", "--force")
    assert file.read_bytes() == before


def test_a_mistake_in_the_last_frame_leaves_nothing(tmp_path, refused):
    labelme(tmp_path / "drawn", square("person"), name="1")
    (tmp_path / "drawn" / "2.json").write_text('{"shapes": [}')
    assert "2.json, line 1, column 13: damaged JSON" in refused(tmp_path / "drawn", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_images_tell_which_frames_exist_and_how_large_they_are(tmp_path, prepare, refused):
    rgb = images(tmp_path / "yard", "a", "b")
    drawn = labelme(tmp_path / "drawn", square("person"), imageHeight=None)
    labelme(drawn, square("person"), name="gone")
    printed = prepare(drawn, tmp_path / "out", "--images", rgb)
    assert (
        "left out: 1: gone" in printed and "nothing is drawn on them, left out (or --empty background): 1: b" in printed
    )
    assert (tmp_path / "out" / "train.txt").read_text() == "a\n"
    prepare(drawn, tmp_path / "all", "--images", rgb, "--empty", "background")
    assert (tmp_path / "all" / "train.txt").read_text() == "a\nb\n"
    assert np.array_equal(read(tmp_path / "all" / "labels" / "b.png"), np.zeros((5, 6), np.uint8))
    labelme(drawn, square("person"), imageHeight=6, imageWidth=5)
    line = refused(drawn, tmp_path / "c", "--images", rgb)
    assert line.startswith(str(drawn / "a.json")) and "6x5" in line and "5x6" in line


def test_masks_of_another_size_than_their_image(tmp_path, refused):
    (tmp_path / "masks").mkdir()
    cv2.imwrite(str(tmp_path / "masks" / "a.png"), np.eye(7, dtype=np.uint8) * 255)
    line = refused(tmp_path / "masks", tmp_path / "out", "--images", images(tmp_path, "a"))
    assert "7x7" in line and "5x6" in line


def test_frames_of_coco_that_nobody_has_drawn_on(tmp_path, prepare, refused):
    rows = [{"id": n, "file_name": f"{n}.jpg", "height": 5, "width": 6} for n in (1, 2)]
    place = coco(tmp_path, {"segmentation": [ring(0, 0, 2, 2)]}, images=rows)
    assert "nothing is drawn on them, left out (or --empty background): 1: 2" in prepare(place, tmp_path / "one")
    prepare(place, tmp_path / "two", "--empty", "background")
    assert (tmp_path / "two" / "train.txt").read_text() == "1\n2\n"
    assert "nothing is drawn on any of the 2 frame(s)" in refused(coco(tmp_path, images=rows), tmp_path / "three")


def test_splits_of_roboflow_are_kept_and_their_names_mended(tmp_path, prepare, refused):
    for split, name in (("train", "a"), ("train", "b"), ("test", "c")):
        file = tmp_path / "export" / split / "_annotations.coco.json"
        content = json.loads(file.read_text()) if file.exists() else {"images": [], "annotations": []}
        id = len(content["images"])
        content["images"].append({"id": id, "file_name": f"{name}_png.rf.12ab.jpg", "height": 5, "width": 6})
        content["annotations"].append(
            {"id": id, "image_id": id, "category_id": 1, "segmentation": [ring(0, 0, 2, 2)], "iscrowd": id}
        )
        content["categories"] = [{"id": 1, "name": "person"}]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content))
    rgb = images(tmp_path / "out", "a", "b", "c")
    prepare(tmp_path / "export", tmp_path / "out", "--images", rgb)
    assert (tmp_path / "out" / "train.txt").read_text() == "a\nb\n"
    data = load_config(tmp_path / "out" / "data.yaml").data
    assert (data.val_split, data.holdout, data.test_split) == (None, 0.1, "test")
    prepare(tmp_path / "export", tmp_path / "out", "--images", rgb, "--crowd", "ignore", "--force")
    assert (
        read(tmp_path / "out" / "labels" / "b.png").max() == 255
        and read(tmp_path / "out" / "labels" / "a.png").max() == 1
    )
    (tmp_path / "export" / "train").rename(tmp_path / "export" / "valid")
    assert "no frame for the train split among val, test" in refused(tmp_path / "export", tmp_path / "no")


def test_a_folder_beside_the_shipped_configurations_names_them_relatively(repository):
    options = {"val_split": None, "holdout": 0.1}
    text = config_text(repository / "data" / "yard" / "data.yaml", options, (480, 640))
    assert yaml.safe_load(text)["_base_"][0] == "../../configs/_base_/runtime.yaml"


def test_frames_are_dealt_out_by_a_seed():
    names = [f"{number:03}" for number in range(50)]
    splits = share_out(names, (0.8, 0.1, 0.1), 0)
    assert [len(splits[split]) for split in ("train", "val", "test")] == [40, 5, 5]
    assert sorted(sum(splits.values(), [])) == names
    assert share_out(names[::-1], (0.8, 0.1, 0.1), 0) == splits != share_out(names, (0.8, 0.1, 0.1), 1)
    assert {split: len(part) for split, part in share_out(names[:3], (0.9, 0.05, 0.05), 0).items()} == {
        "train": 1, "val": 1, "test": 1,
    }  # fmt: skip
    assert set(share_out(names, (0.7, 0.0, 0.3), 0)) == {"train", "test"}
    with pytest.raises(ConfigError, match="--split"):
        share_out(names, (0.0, 0.5, 0.5), 0)


def test_one_image_for_two_annotations(tmp_path):
    rgb = images(tmp_path, "a")
    with pytest.raises(DataError, match="is the image of two annotations, 'a' and 'a_mask'"):
        match_images(["a", "a_mask"], rgb)
    with pytest.raises(DataError, match="none of its 1 images"):
        match_images(["x"], rgb)
    assert match_images(["city/a"], rgb).names == {"city/a": "a"}
