"""Cityscapes: folders, lists and both forms of its labels; one camera, of which nothing is said that is not so."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from layouts import (
    CITYSCAPES_TRAIN_IDS,
    cityscapes_name,
    scenes_of,
    write_cityscapes,
    write_cityscapes_list,
    write_image,
)

from mdg.data import build_dataset
from mdg.data.check import inspect_dataset
from mdg.data.check.output import as_document, overview_rows
from mdg.data.check.samples import make_samples
from mdg.data.corruptions import CORRUPTIONS
from mdg.data.corruptions.dataset import Corrupted
from mdg.data.datasets.cityscapes import CLASSES, PALETTE_K3, TRAIN_ID_OF_ID
from mdg.data.shards.make import Size, make_shards
from mdg.errors import ConfigError, DataError
from mdg.registry import DATASETS

SIZE = (64, 128)
LABELLED = "gtFine/train/aachen/aachen_000000_000019"


@pytest.fixture
def cityscapes(tmp_path) -> Path:
    return write_cityscapes(tmp_path / "cityscapes")


def build(root: Path, role: str = "train", **options):
    return build_dataset({"type": "Cityscapes", "root": str(root), **options}, role)


def error_of(action) -> str:
    with pytest.raises(DataError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message
    return message


def label_of(root: Path, split: str, number: int, form: str = "labelTrainIds") -> Path:
    return root / "gtFine" / split / f"{cityscapes_name(split, number)}_gtFine_{form}.png"


# --- reading ------------------------------------------------------------------------------------------------------


def test_the_table_of_ids_by_hand():
    """From the official table of labels: 34 ids, nineteen of which are classes, in the order of train ids."""
    named = {
        7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole", 19: "traffic light",
        20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky", 24: "person", 25: "rider", 26: "car",
        27: "truck", 28: "bus", 31: "train", 32: "motorcycle", 33: "bicycle",
    }  # fmt: skip
    assert sorted(TRAIN_ID_OF_ID) == list(range(34)) and len(CLASSES) == len(PALETTE_K3) == 19
    assert {k: CLASSES[v] for k, v in TRAIN_ID_OF_ID.items() if v != 255} == named
    assert PALETTE_K3[CLASSES.index("person")].tolist() == [220, 20, 60]
    assert PALETTE_K3[CLASSES.index("vegetation")].tolist() == [107, 142, 35]
    assert len(np.unique(PALETTE_K3, axis=0)) == 19


@pytest.mark.parametrize("forms", [("labelTrainIds", "labelIds"), ("labelTrainIds",), ("labelIds",)], ids=str)
@pytest.mark.parametrize(("role", "split", "count"), [("train", "train", 6), ("test", "val", 3)])
def test_reads_what_was_written(tmp_path, forms, role, split, count):
    dataset = build(write_cityscapes(tmp_path / "data", forms=forms), role)
    by_name = {cityscapes_name(split, number): scene for number, scene in scenes_of(split, count, SIZE)}
    assert dataset.names == sorted(by_name) and dataset.split_label == split and dataset.cameras == ("rgb",)
    for frame, (_, scene) in zip(dataset, sorted(by_name.items()), strict=True):
        np.testing.assert_array_equal(frame.rgb_HW3, scene.rgb)
        np.testing.assert_array_equal(frame.label_HW, CITYSCAPES_TRAIN_IDS[scene.label])
        assert frame.thermal_HW.shape == SIZE and not frame.thermal_HW.any()
    assert dataset.condition(0) is None and dataset.preparation() == "RGB alone, no thermal camera"


def test_which_form_of_a_label_is_read(cityscapes):
    write_image(label_of(cityscapes, "train", 0), np.full(SIZE, 3, np.uint8))
    write_image(label_of(cityscapes, "train", 0, "labelIds"), np.full(SIZE, 33, np.uint8))
    for form, expected in (("auto", 3), ("trainIds", 3), ("labelIds", 18)):
        dataset = build(cityscapes, labels=form)
        assert set(np.unique(dataset[0].label_HW)) == {expected}
        assert [file.name.split("_")[-2:] for file in dataset.sources(0)][0] == ["000019", "leftImg8bit.png"]
    label_of(cityscapes, "train", 0).unlink()
    assert set(np.unique(build(cityscapes)[0].label_HW)) == {18}
    message = error_of(lambda: build(cityscapes, labels="trainIds"))
    assert f"1 without a file in {cityscapes / 'gtFine/train'}: {cityscapes_name('train', 0)}" in message


def test_a_val_split_and_a_holdout(cityscapes):
    assert len(build(cityscapes, "val", val_split="val")) == 3
    parts = [set(build(cityscapes, role, holdout=0.3).names) for role in ("train", "val")]
    assert len(parts[0]) == 4 and len(parts[1]) == 2 and not parts[0] & parts[1]
    with pytest.raises(DataError, match=r"data.val_split is null"):
        build(cityscapes, "val")


# --- lists --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("separator", [" ", "\t"], ids=["blank", "tab"])
def test_a_list_names_a_part_of_train(cityscapes, tmp_path, separator):
    file = write_cityscapes_list(tmp_path / "labeled.txt", "train", [4, 1], separator)
    dataset, whole = build(cityscapes, train_list=str(file)), build(cityscapes)
    assert dataset.names == [cityscapes_name("train", number) for number in (4, 1)]
    assert dataset.split_label == "train, list labeled.txt" and dataset.listed_in == file
    for frame in dataset:
        other = whole[whole.names.index(frame.name)]
        np.testing.assert_array_equal(frame.rgb_HW3, other.rgb_HW3)
        np.testing.assert_array_equal(frame.label_HW, other.label_HW)
    assert len(build(cityscapes, "test", train_list=str(file))) == 3  # another split


@pytest.mark.parametrize("separator", [" ", "\t"], ids=["blank", "tab"])
def test_a_list_names_whose_labels_count(cityscapes, tmp_path, separator):
    """All others of train are images without a label; bare names are taken too."""
    listed, others = ({cityscapes_name("train", number) for number in numbers} for numbers in ((4, 1), (0, 2, 3, 5)))
    file = write_cityscapes_list(tmp_path / "labeled.txt", "train", [4, 1], separator)
    (tmp_path / "names.txt").write_text("\n".join(listed))
    for each in (file, tmp_path / "names.txt"):
        labelled = {"list": str(each)}
        assert set(build(cityscapes, labelled=labelled).names) == listed
        assert set(build(cityscapes, "unlabelled", labelled=labelled).names) == others
    file.write_text("leftImg8bit/train/aachen/aachn_1_leftImg8bit.png gtFine/x.png\n")
    message = error_of(lambda: build(cityscapes, labelled={"list": str(file)}))
    assert "1 of its 1 names are not in the split 'train' of Cityscapes, such as 'aachen/aachn_1'" in message


def test_a_list_of_train_ids_that_were_not_made(tmp_path):
    root = write_cityscapes(tmp_path / "data", forms=("labelIds",))
    file = write_cityscapes_list(tmp_path / "labeled.txt", "train", [0, 2])
    assert [path.name[-12:] for path in build(root, train_list=str(file)).sources(0)] == [
        "ftImg8bit.png"[1:],
        "labelIds.png",
    ]


def test_images_of_a_list_without_their_labels(cityscapes, tmp_path):
    """Label files are not even there."""
    file = write_cityscapes_list(tmp_path / "unlabeled.txt", "train", [0, 2, 5])
    shutil.rmtree(cityscapes / "gtFine")
    for options, count in (({"train_list": str(file)}, 3), ({}, 6)):
        dataset = build(cityscapes, "unlabelled", **options)
        assert len(dataset) == count and not dataset[0].label_HW.any() and dataset[0].rgb_HW3.any()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a b_leftImg8bit.png c.png", r"labeled.txt:2: got a line of 3 entries .*put a tab between the two"),
        ("alone.png", r"labeled.txt:2: got a line of 1 entries"),
        (
            f"leftImg8bit/train/aachen/aachn_1_leftImg8bit.png {LABELLED}_gtFine_labelIds.png",
            r"1 without a file in .*labeled.txt \(column rgb\): aachen/aachn_1\. Seen there: .*no .*aachn_1_left",
        ),
        (
            "leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png gtFine/train/aachen/none.png",
            r"1 without a file in .*labeled.txt \(column label\): aachen/aachen_000000_000019",
        ),
        (
            "x/aachen/aachen_000002_000019_leftImg8bit.png y.png",
            r"labeled.txt.*aachen/aachen_000002_000019",
        ),
    ],
)
def test_lists_that_cannot_be_used(cityscapes, tmp_path, line, message):
    file = write_cityscapes_list(tmp_path / "labeled.txt", "train", [2])
    file.write_text(file.read_text() + line + "\n")
    with pytest.raises(DataError, match=message):
        build(cityscapes, train_list=str(file))


def test_lists_that_are_not_there(cityscapes, tmp_path):
    (tmp_path / "labeled.txt").write_text("# nothing\n")
    assert "the list is empty" in error_of(lambda: build(cityscapes, train_list=str(tmp_path / "labeled.txt")))
    message = error_of(lambda: build(cityscapes, train_list=str(tmp_path / "labelled.txt")))
    assert "labelled.txt: no such list; data.train_list names it" in message and "labeled.txt" in message


# --- what is wrong ------------------------------------------------------------------------------------------------


def test_missing_folders_and_files(cityscapes, tmp_path):
    assert "so there is no Cityscapes here" in error_of(lambda: build(tmp_path / "none"))
    assert "no such folder" in error_of(lambda: build(cityscapes, "test", test_split="tset"))
    label_of(cityscapes, "train", 3).unlink()
    label_of(cityscapes, "train", 3, "labelIds").unlink()
    name = cityscapes_name("train", 3)
    assert f"1 without a file in {cityscapes / 'gtFine/train'}: {name}" in error_of(lambda: build(cityscapes))
    (cityscapes / "leftImg8bit/train" / f"{cityscapes_name('train', 1)}_leftImg8bit.png").unlink()
    assert "leftImg8bit/train" in error_of(lambda: build(cityscapes))


@pytest.mark.parametrize(
    ("form", "wrong", "expected"), [("labelTrainIds", 19, "0..18, 255"), ("labelIds", 34, "0..33")]
)
def test_unknown_ids(tmp_path, form, wrong, expected):
    root = write_cityscapes(tmp_path / "data", forms=(form,))
    write_image(label_of(root, "train", 0, form), np.full(SIZE, wrong, np.uint8))
    message = error_of(lambda: build(root)[0])
    assert f"got label ids {wrong}, expected {expected}" in message and form in message


def test_a_label_of_another_size(cityscapes):
    write_image(label_of(cityscapes, "train", 0), np.zeros((32, 64), np.uint8))
    message = error_of(lambda: build(cityscapes)[0])
    assert "is 32x64 and" in message and "is 64x128 (height x width); expected a label of the size of its" in message


# --- one camera ---------------------------------------------------------------------------------------------------


def inspected(root: Path, **options):
    return inspect_dataset(DATASETS.parse({"type": "Cityscapes", "root": str(root), **options}), workers=1)


def test_a_check_says_nothing_of_thermal(cityscapes):
    report = inspected(cityscapes)
    assert not report.count(problems=True) and "constant" not in {finding.kind for finding in report.findings}
    labels = {label for label, cells in overview_rows(report)}
    assert {"RGB mean", "RGB std", "size"} <= labels and not any("thermal" in label for label in labels)
    document = as_document(report)
    assert document["splits"]["train"]["thermal"] is None and set(document["splits"]["train"]["stored"]) == {
        "rgb",
        "label",
    }
    assert document["splits"]["train"]["frames"]["readable"] == 6 and json.dumps(document)
    assert set(document["normalize"]) == {"rgb_mean", "rgb_std"} and not any(
        "thermal" in x for x in report.yaml_lines()
    )
    assert "Cityscapes has no thermal camera: nothing is said of thermal, and networks see RGB alone" in report.notes
    assert any("frames of train/val: 6/3; published: 2975/500" in note for note in report.notes)
    captions = {caption for sample in make_samples(report.splits["train"]) for caption, _ in sample.pictures}
    assert captions == {"RGB", "label over RGB"}


def test_a_check_names_what_is_wrong(cityscapes):
    write_image(label_of(cityscapes, "train", 0), np.full(SIZE, 77, np.uint8))
    label_of(cityscapes, "train", 2).unlink()
    label_of(cityscapes, "train", 2, "labelIds").unlink()
    kinds = {finding.kind for finding in inspected(cityscapes).findings if finding.problem}
    assert kinds == {"label", "missing"}


def test_what_wraps_it_knows_its_camera(cityscapes, tmp_path):
    dataset = build(cityscapes)
    assert Corrupted(dataset, next(iter(CORRUPTIONS.values()))("rgb"), 1.0).cameras == ("rgb",)
    with pytest.raises(ConfigError, match="Cityscapes has no thermal camera"):
        make_shards(DATASETS.parse({"type": "Cityscapes", "root": str(cityscapes)}), tmp_path / "shards", Size(2, None))


def test_frames_come_from_a_cache(cityscapes):
    plain, packed = build(cityscapes), build(cityscapes, cache="packed", cache_dir=str(cityscapes / "cache"))
    for frame, other in zip(plain, packed, strict=True):
        np.testing.assert_array_equal(frame.rgb_HW3, other.rgb_HW3)
        np.testing.assert_array_equal(frame.label_HW, other.label_HW)
        assert not other.thermal_HW.any()
