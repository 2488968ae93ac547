"""PST900 and FMB: folders of splits, their rules by hand, and mistakes that must not pass unseen."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from layouts import FMB_IDS, PST900_IDS, RAW_SCALING, pst900_name, scenes_of, write_image

from mdg.config import load_config
from mdg.data import build_dataset
from mdg.data.datasets.fmb import CLASSES as FMB_CLASSES
from mdg.data.datasets.fmb import FMB
from mdg.data.datasets.pst900 import PST900
from mdg.errors import ConfigError, DataError
from mdg.metrics.confusion import ConfusionMatrix

FOLDERS = {"PST900": ("rgb", "thermal", "labels"), "FMB": ("Visible", "Infrared", "Label")}


def error_of(action) -> str:
    with pytest.raises(DataError) as caught:
        action()
    return str(caught.value)


def build(kind: str, root: Path, role: str = "train", **options):
    return build_dataset({"type": kind, "root": str(root), "holdout": None, **options}, role)


def rename(folder: Path, name: str) -> None:
    folder.rename(folder.with_name(name))


# --- reading -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind, ids", [("PST900", PST900_IDS), ("FMB", FMB_IDS)])
@pytest.mark.parametrize("role, count", [("train", 6), ("test", 3)])
def test_reads_what_was_written(kind, ids, role, count, request):
    dataset = build(kind, request.getfixturevalue(kind.lower()), role)
    assert len(dataset) == count and dataset.preparation() == "as stored"
    for frame, (_, scene) in zip(dataset, scenes_of(role, count), strict=True):
        np.testing.assert_array_equal(frame.rgb_HW3, scene.rgb)
        np.testing.assert_array_equal(frame.thermal_HW, scene.thermal)
        np.testing.assert_array_equal(frame.label_HW, ids[scene.label])


def test_files_of_a_frame(pst900):
    name = f"{pst900_name(0)}.png"
    expected = [pst900 / "test" / folder / name for folder in ("rgb", "thermal", "labels")]
    assert build("PST900", pst900, "test").sources(0) == expected


def test_raw_thermal_of_pst900(pst900):
    raw = build("PST900", pst900, thermal="thermal_raw", thermal_scaling=RAW_SCALING)
    stored = build("PST900", pst900)
    for first, second in zip(raw, stored, strict=True):
        np.testing.assert_array_equal(first.thermal_HW, second.thermal_HW)
    assert raw.sources(0)[1].parent.name == "thermal_raw"
    assert raw.preparation() == "16-bit thermal_raw; thermal [7000.0, 9550.0] to 8 bits"


def test_raw_thermal_needs_a_scaling(pst900):
    dataset = build("PST900", pst900, thermal="thermal_raw")
    message = error_of(lambda: dataset[0])
    assert "thermal_raw" in message and "got uint16 values" in message and "data.thermal_scaling" in message


def test_unlabeled_of_fmb_can_be_ignored(fmb):
    classes, ignored = build("FMB", fmb), build("FMB", fmb, unlabeled="ignore")
    assert any((frame.label_HW == 0).any() for frame in classes)
    for first, second in zip(classes, ignored, strict=True):
        np.testing.assert_array_equal(np.where(first.label_HW == 0, 255, first.label_HW), second.label_HW)
    assert ignored.preparation() == "unlabeled pixels ignored in training and scoring; as stored"


@pytest.mark.parametrize("kind, wrong, expected", [("PST900", 5, "0..4"), ("FMB", 15, "0..14")])
def test_label_ids_out_of_range(kind, wrong, expected, request):
    dataset = build(kind, request.getfixturevalue(kind.lower()), "test")
    file = dataset.sources(0)[2]
    write_image(file, np.full((48, 64), wrong, np.uint8))
    assert f"{file}: got label ids {wrong}, expected {expected};" in error_of(lambda: dataset[0])


def test_rendered_labels_are_refused(fmb):
    dataset = build("FMB", fmb, "test")
    shutil.copy(fmb / "test" / "color" / "00000.png", fmb / "test" / "Label" / "00000.png")
    assert "Label/00000.png: got colours" in error_of(lambda: dataset[0])


def test_pickles_for_loader_processes(fmb):
    dataset = build("FMB", fmb, "test", unlabeled="ignore")
    again = pickle.loads(pickle.dumps(dataset))
    np.testing.assert_array_equal(again[1].label_HW, dataset[1].label_HW)


# --- facts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind, classes", [("PST900", 5), ("FMB", 15)])
def test_facts(kind, classes, request):
    root = request.getfixturevalue(kind.lower())
    facts = build(kind, root, "test").facts()
    assert (facts["dataset"], facts["role"], facts["split"], facts["files"]) == (kind, "test", "test", 3)
    assert len(facts["classes"]) == classes and facts["preparation"] == "as stored" and len(facts["sha256"]) == 64


@pytest.mark.parametrize("kind", ["PST900", "FMB"])
def test_identities_differ_between_train_and_test(kind, request):
    """Frames are numbered alike in both; the overlap that results warn of is counted by identity."""
    root = request.getfixturevalue(kind.lower())
    train, test = build(kind, root, "train"), build(kind, root, "test")
    assert set(test.names) < set(train.names)
    assert not set(train.identities()) & set(test.identities())
    assert len(set(train.identities())) == 6 and test.identities()[0] == f"test/{test.names[0]}"


def test_fingerprint_does_not_depend_on_the_case_of_folders(pst900):
    before = build("PST900", pst900, "test").fingerprint()
    rename(pst900 / "test", "TEST")
    assert build("PST900", pst900, "test").fingerprint() == before
    assert build("PST900", pst900, "test", test_split="Test").fingerprint() == before


def test_palettes_are_those_of_the_authors(pst900, fmb):
    assert PST900.palette_K3.tolist() == [[0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]
    colours = cv2.imread(str(fmb / "test" / "color" / "00001.png"))[..., ::-1]
    np.testing.assert_array_equal(FMB.palette_K3[build("FMB", fmb, "test")[1].label_HW], colours)
    assert FMB.palette_K3[FMB_CLASSES.index("bicycle")].tolist() == [158, 215, 222]


# --- scoring rules, by hand --------------------------------------------------------------------------------------


def fmb_matrix() -> ConfusionMatrix:
    """Road: 80 right, 15 as sky, 5 as bicycle. Sky: 50 right. Unlabeled: 10 right, 20 as road. Nothing else."""
    counts = np.zeros((15, 15), np.int64)
    unlabeled, road, sky, bicycle = (FMB_CLASSES.index(name) for name in ("unlabeled", "road", "sky", "bicycle"))
    counts[road, [road, sky, bicycle]] = 80, 15, 5
    counts[sky, sky] = 50
    counts[unlabeled, [unlabeled, road]] = 10, 20
    return ConfusionMatrix(15, counts)


def test_three_rules_of_fmb_from_one_matrix(fmb):
    rules = {rule.name: rule for rule in build("FMB", fmb, "test").scoring_rules()}
    means = {name: rule.means(fmb_matrix(), FMB_CLASSES) for name, rule in rules.items()}
    assert list(rules) == ["C", "B", "A"]
    # C: road 80 / (100 + 20 as road), sky 50 / (50 + 15), unlabeled 10 / 30. B and A drop the 30 unlabeled pixels.
    assert means["C"]["mIoU"] == pytest.approx((80 / 120 + 50 / 65 + 10 / 30) / 3)
    assert means["B"]["mIoU"] == pytest.approx((80 / 100 + 50 / 65) / 2)
    assert means["A"]["mIoU"] == pytest.approx((80 / 100 + 50 / 65) / 14)
    assert means["C"]["mAcc"] == pytest.approx((0.8 + 1 + 1 / 3) / 3)
    assert means["A"]["mAcc"] == pytest.approx((0.8 + 1) / 14)
    assert means["B"]["mF1"] == pytest.approx((160 / 180 + 100 / 115) / 2)
    assert means["C"]["pixel_accuracy"] == pytest.approx(140 / 180)
    assert means["A"]["pixel_accuracy"] == means["B"]["pixel_accuracy"] == pytest.approx(130 / 150)


def test_rules_leave_the_matrix_alone(fmb):
    confusion = fmb_matrix()
    for rule in build("FMB", fmb, "test").scoring_rules():
        rule.means(confusion, FMB_CLASSES)
    np.testing.assert_array_equal(confusion.counts, fmb_matrix().counts)


def test_ignored_unlabeled_scores_the_same_under_a_and_b_and_has_no_c(fmb):
    ignoring = {rule.name: rule for rule in build("FMB", fmb, "test", unlabeled="ignore").scoring_rules()}
    assert list(ignoring) == ["B", "A"]
    without_row = fmb_matrix()
    without_row.counts[0] = 0  # what a matrix without unlabeled pixels looks like
    for rule in build("FMB", fmb, "test").scoring_rules()[1:]:
        assert ignoring[rule.name].means(without_row, FMB_CLASSES) == rule.means(fmb_matrix(), FMB_CLASSES)


def test_rules_in_words(pst900, fmb):
    absent = "absent classes (no labelled pixel) left out"
    assert [rule.describe() for rule in build("FMB", fmb, "test").scoring_rules()] == [
        f"mean over 15 classes, {absent}",
        f"mean over 14 classes, unlabeled ignored, {absent}",
        "mean over 14 classes, unlabeled ignored, an absent class counts 0",
    ]
    (rule,) = build("PST900", pst900, "test").scoring_rules()
    assert (rule.name, rule.describe()) == ("five classes", f"mean over 5 classes, {absent}")


# --- layouts -----------------------------------------------------------------------------------------------------


def test_case_of_folders_does_not_matter(pst900, fmb):
    for folder, name in (("rgb", "RGB"), ("thermal", "Thermal"), ("labels", "Label")):
        rename(pst900 / "train" / folder, name)
    rename(pst900 / "train", "Train")
    assert len(build("PST900", pst900)) == 6
    for folder in ("Visible", "Infrared", "Label"):
        rename(fmb / "test" / folder, folder.lower())
    assert len(build("FMB", fmb, "test")) == 3


def test_raw_thermal_is_not_taken_for_thermal(pst900):
    shutil.rmtree(pst900 / "train" / "thermal")
    message = error_of(lambda: build("PST900", pst900))
    assert "found depth/, labels/, rgb/, thermal_raw/, expected rgb/, thermal/, labels/" in message


@pytest.mark.parametrize(
    "kind, folder", [("PST900", "labels"), ("PST900", "rgb"), ("FMB", "Label"), ("FMB", "Infrared")]
)
def test_missing_folder(kind, folder, request):
    root = request.getfixturevalue(kind.lower())
    shutil.rmtree(root / "test" / folder)
    message = error_of(lambda: build(kind, root, "test"))
    assert f"{root / 'test'}: found " in message and f"{folder.lower()}/" in message.split("expected")[1]
    assert "scripts/" in message


@pytest.mark.parametrize("kind, folder", [(kind, folder) for kind, folders in FOLDERS.items() for folder in folders])
def test_missing_partner_is_named_in_any_folder(kind, folder, request):
    root = request.getfixturevalue(kind.lower())
    file = sorted((root / "train" / folder).iterdir())[1]
    file.unlink()
    message = error_of(lambda: build(kind, root))
    assert f"1 without a file in {file.parent}: {file.stem}" in message and str(root / "train") in message
    assert message.count("without a file") == 1


def test_a_file_alone_is_an_error_too(pst900):
    write_image(pst900 / "train" / "labels" / "extra.png", np.zeros((48, 64), np.uint8))
    message = error_of(lambda: build("PST900", pst900))
    for folder in ("rgb", "thermal"):
        assert f"1 without a file in {pst900 / 'train' / folder}: extra" in message


def test_labels_must_be_lossless(fmb):
    file = fmb / "train" / "Label" / "00000.png"
    file.rename(file.with_suffix(".jpg"))
    assert f"1 without a file in {file.parent}: 00000" in error_of(lambda: build("FMB", fmb))


def test_jpeg_images_are_fine(fmb):
    file = fmb / "train" / "Visible" / "00000.png"
    cv2.imwrite(str(file.with_suffix(".JPG")), cv2.imread(str(file)))
    file.unlink()
    assert build("FMB", fmb)[0].rgb_HW3.shape == (48, 64, 3)


def test_files_of_file_managers_do_not_count(fmb):
    for folder in ("Visible", "Infrared", "Label"):
        (fmb / "train" / folder / "._00000.png").write_bytes(b"\0\5\26\7")
    (fmb / "train" / "Visible" / "Thumbs.db").touch()
    assert len(build("FMB", fmb)) == 6


def test_missing_root(tmp_path):
    message = error_of(lambda: build("FMB", tmp_path / "nowhere"))
    for part in (str(tmp_path / "nowhere"), "there is no FMB here", "docs/datasets.md", "--opts data.root="):
        assert part in message


def test_missing_split_names_the_nearest(pst900):
    message = error_of(lambda: build("PST900", pst900, train_split="trian"))
    assert "no folder 'trian' for data.train_split; folders here: test, train. Did you mean 'train'?" in message


def test_empty_split(fmb):
    for folder in ("Visible", "Infrared", "Label"):
        shutil.rmtree(fmb / "test" / folder)
        (fmb / "test" / folder).mkdir()
    message = error_of(lambda: build("FMB", fmb, "test"))
    assert "the split is empty; expected images in Visible/, Infrared/, Label/" in message


def test_sizes_that_differ(pst900):
    file = pst900 / "test" / "thermal" / f"{pst900_name(0)}.png"
    write_image(file, np.zeros((24, 32), np.uint8))
    assert f"{file} is 24x32" in error_of(lambda: build("PST900", pst900, "test")[0])
    assert build("PST900", pst900, "test", align="rgb")[0].thermal_HW.shape == (48, 64)


# --- configurations ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["pst900/mdg_b2", "pst900/mdg_b4", "fmb/mdg_b2", "fmb/mdg_b4"])
def test_shipped_configurations_read_the_data(name, repository, request):
    root = request.getfixturevalue(name.partition("/")[0])
    config = load_config(repository / "configs" / f"{name}.yaml", [f"data.root={root}"])
    counts = {role: len(build_dataset(config.data, role)) for role in ("train", "val", "test")}
    assert counts == {"train": 5, "val": 1, "test": 3}
    crop = next(step for step in config.pipeline.train if step.type == "RandomResizedCrop")
    assert tuple(crop.size) == {"pst900": (720, 1280), "fmb": (600, 800)}[name.partition("/")[0]]


@pytest.mark.parametrize(
    "options, message",
    [
        ("{type: PST900, root: x, thermal: raw}", "data.thermal: got 'raw'; expected 'thermal' or 'thermal_raw'"),
        ("{type: FMB, root: x, unlabeled: drop}", "data.unlabeled: got 'drop'; expected 'class' or 'ignore'"),
        ("{type: FMB, root: x, val_split: val}", "set val_split: null to hold frames out"),
        ("{type: PST900}", "data.root: missing"),
    ],
)
def test_options_are_checked(tmp_path, options, message):
    file = tmp_path / "run.yaml"
    file.write_text(f"data: {options}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert str(file) in str(caught.value) and message in str(caught.value)
