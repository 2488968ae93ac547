"""One policy for images in a whole data set: what training reads, what check_data says, what a protocol records."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from layouts import scenes_of, write_image
from PIL import Image

from mdg.data import build_dataset
from mdg.data.check import inspect_dataset
from mdg.data.check.frames import Stored
from mdg.data.check.report import DataReport
from mdg.errors import DataError
from mdg.registry import DATASETS

UNTURN = Image.Transpose.ROTATE_90  # a photo with orientation 6 is stored turned to the left


def write_folder(root: Path, classes: int = 9) -> Path:
    """``{split}/{rgb,thermal,labels}/NAME.png`` as the default patterns want it: four frames of train, two of test."""
    for split, count in (("train", 4), ("test", 2)):
        for number, scene in scenes_of(split, count):
            parts = {"rgb": scene.rgb, "thermal": scene.thermal, "labels": np.minimum(scene.label, classes - 1)}
            for folder, image in parts.items():
                write_image(root / split / folder / f"{number}.png", image)
    return root


def options(root: Path, classes: int = 9, **more: object) -> dict:
    names = [f"c{k}" for k in range(classes)]
    return {"type": "Folder", "root": str(root), "classes": names, "val_split": None, "holdout": 0.25, **more}


def inspect(root: Path, classes: int = 9, **more: object) -> DataReport:
    return inspect_dataset(DATASETS.parse(options(root, classes, **more)), workers=1)


def problems(report: DataReport) -> list[str]:
    return [finding.message for finding in report.findings if finding.problem]


def rewrite(file: Path, change, kind: str = "PNG", **saving: object) -> None:
    """Stores the image of a file in another way, under the same name."""
    with Image.open(file) as image:
        image.load()
        changed = change(image)
    changed.save(file, kind, **saving)


def error_of(action) -> str:
    with pytest.raises(DataError) as caught:
        action()
    return str(caught.value)


# --- orientation -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [("rgb",), ("rgb", "thermal", "labels")])
def test_turned_photos_are_read_upright_everywhere(tmp_path, parts):
    root = write_folder(tmp_path)
    upright = build_dataset(options(root), "test")[0]
    exif = Image.Exif()
    exif[274] = 6
    for part in parts:
        rewrite(root / "test" / part / "0.png", lambda image: image.transpose(UNTURN), exif=exif)
    turned = build_dataset(options(root), "test")[0]
    for image, expected in zip(
        (turned.rgb_HW3, turned.thermal_HW, turned.label_HW),
        (upright.rgb_HW3, upright.thermal_HW, upright.label_HW),
        strict=True,
    ):
        np.testing.assert_array_equal(image, expected)
    report = inspect(root)
    assert not problems(report)
    assert report.splits["test"].stored["rgb"] == {Stored(48, 64, 3): 2}, "sizes are those that are seen"


def test_a_turn_that_no_tag_tells_is_named(tmp_path):
    root = write_folder(tmp_path)
    rewrite(root / "test" / "rgb" / "0.png", lambda image: image.transpose(UNTURN))
    (message,) = problems(inspect(root))
    assert "turned by 90 degrees" in message and "EXIF orientation" in message and "data.align" not in message


# --- what is refused ---------------------------------------------------------------------------------------------


def test_every_file_that_is_not_one_whole_image_is_a_problem_of_its_part(tmp_path):
    root = write_folder(tmp_path)
    rewrite(root / "train" / "thermal" / "0.png", lambda image: image, "TIFF", save_all=True, append_images=[
        Image.new("L", (64, 48))
    ])  # fmt: skip
    rewrite(root / "train" / "labels" / "1.png", lambda image: image, "JPEG", quality=75)
    photo = root / "train" / "rgb" / "2.png"
    rewrite(photo, lambda image: image, "JPEG")
    photo.write_bytes(photo.read_bytes()[:-700])
    (root / "train" / "rgb" / "3.png").write_bytes(b"\0\0\0\x20ftypisom" + bytes(100))
    report = inspect(root)
    found = {(finding.kind, finding.message) for finding in report.findings if finding.problem}
    assert [kind for kind, _ in sorted(found)] == ["label", "rgb", "rgb", "thermal"]
    messages = "\n".join(message for _, message in found)
    for part in (
        "got several pages or frames in one TIFF",
        "got a JPEG file, compressed with loss",
        "a JPEG file, truncated",
    ):
        assert part in messages
    assert "it is a video" in messages


# --- masks of 0 and 255 ------------------------------------------------------------------------------------------


def make_binary(root: Path) -> None:
    for file in root.rglob("labels/*.png"):
        rewrite(file, lambda image: image.point([0] + 255 * [255]))


def test_binary_masks_are_no_data_to_train_on(tmp_path):
    root = write_folder(tmp_path)
    make_binary(root)
    for role in ("train", "val", "test"):
        message = error_of(lambda role=role: build_dataset(options(root, 2), role))
        assert "data.label_map: {0: 0, 255: 1}" in message and "which is ignored" in message
    report = inspect(root, 2)
    assert len(problems(report)) == 3 and all("data.label_map: {0: 0, 255: 1}" in text for text in problems(report))
    assert not problems(inspect(root, 2, label_map={0: 0, 255: 1}))
    assert build_dataset(options(root, 2, label_map={0: 0, 255: 1}), "test")[0].label_HW.max() == 1
    assert build_dataset(options(root, 2, label_map={0: 0, 1: 1, 255: "ignore"}), "test")[0].label_HW.max() == 255


def test_binary_masks_under_many_classes_are_a_warning(tmp_path, caplog):
    root = write_folder(tmp_path)
    make_binary(root)
    with caplog.at_level(logging.WARNING, "mdg.data"):
        build_dataset(options(root, 3), "test")
    assert "data.label_map: {0: 0, 1: 1, 2: 2, 255: ignore}" in caplog.text
    report = inspect(root, 3)
    assert not problems(report) and any("{0: 0, 255: 1}" in finding.message for finding in report.findings)


def test_two_classes_with_ignored_edges_are_fine(tmp_path, caplog):
    root = write_folder(tmp_path, classes=2)
    for file in root.rglob("labels/*.png"):
        rewrite(
            file, lambda image: Image.fromarray(np.pad(np.array(image)[1:-1], ((1, 1), (0, 0)), constant_values=255))
        )
    assert len(build_dataset(options(root, 2), "test")) == 2 and not caplog.text
    assert not problems(inspect(root, 2))


# --- grey photos -------------------------------------------------------------------------------------------------


def test_grey_photos_are_refused_or_repeated_by_a_key(tmp_path):
    root = write_folder(tmp_path)
    file = root / "test" / "rgb" / "1.png"
    rewrite(file, lambda image: image.convert("L"))
    dataset = build_dataset(options(root), "test")
    assert dataset.preparation() == "as stored"
    assert "data.grey_rgb: repeat" in error_of(lambda: dataset[1])
    assert [str(file) in text for text in problems(inspect(root))] == [True]
    dataset = build_dataset(options(root, grey_rgb="repeat"), "test")
    grey_HW = np.array(Image.open(file))
    np.testing.assert_array_equal(dataset[1].rgb_HW3, np.dstack([grey_HW] * 3))
    assert dataset.facts()["preparation"] == "RGB images of one channel repeated three times"
    assert not problems(inspect(root, grey_rgb="repeat"))
