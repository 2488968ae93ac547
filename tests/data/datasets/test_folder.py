"""`type: Folder`: anyone's data from YAML alone, and mistakes in the YAML or the files told by key and file."""

from __future__ import annotations

import json
import logging
import os
import pickle
import shutil
import sys
import unicodedata
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from layouts import CUSTOM_IDS, custom_options, raw_counts, scenes_of, write_image

from mdg.config import RunConfig, dump_yaml, load_config
from mdg.data import build_dataset
from mdg.data.datasets.folder import make_palette
from mdg.errors import ConfigError, DataError
from mdg.metrics.confusion import ConfusionMatrix

VOC = [
    (0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128), (0, 128, 128), (128, 128, 128),
    (64, 0, 0), (192, 0, 0), (64, 128, 0), (192, 128, 0), (64, 0, 128), (192, 0, 128), (64, 128, 128), (192, 128, 128),
    (0, 64, 0), (128, 64, 0), (0, 192, 0), (128, 192, 0), (0, 64, 128),
]  # fmt: skip
PARTS = (("rgb", "rgb"), ("thermal", "thermal"), ("label", "labels"))
PLAIN = {"type": "Folder", "root": "x", "classes": ["bg", "person"], "val_split": None, "holdout": 0.1}


def error_of(action) -> str:
    with pytest.raises(DataError) as caught:
        action()
    return str(caught.value)


def load(folder: Path, **options) -> RunConfig:
    file = folder / "run.yaml"
    file.write_text(yaml.safe_dump({"data": {**PLAIN, **options}}, sort_keys=False))
    return load_config(file)


def config_error(folder: Path, **options) -> str:
    with pytest.raises(ConfigError) as caught:
        load(folder, **options)
    return str(caught.value)


def write_plain(root: Path, train: int = 2, test: int = 1, ids=lambda label_HW: label_HW) -> Path:
    """``{split}/{rgb,thermal,labels}/NAME.png`` with ids, as the default patterns want it."""
    for split, count in (("train", train), ("test", test)):
        for number, scene in scenes_of(split, count):
            for folder, image in (("rgb", scene.rgb), ("thermal", scene.thermal), ("labels", ids(scene.label))):
                write_image(root / split / folder / f"{number}.png", image)
    return root


def build_plain(root: Path, role: str = "test", classes: int = 9, **options):
    return build_dataset({**PLAIN, "root": root, "classes": [f"c{k}" for k in range(classes)], **options}, role)


# --- reading -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role, count", [("train", 6), ("test", 3)])
def test_custom_layout_reads_what_was_written(custom, role, count):
    dataset = build_dataset(custom_options(custom, holdout=None), role)
    assert len(dataset) == count
    scenes = {f"{number:03d}": scene for number, scene in scenes_of(role, count)}
    for frame in dataset:
        scene = scenes[frame.name.split("/")[1][:3]]
        assert np.abs(frame.rgb_HW3.astype(int) - scene.rgb).mean() < 8, "JPEG loses a little"
        np.testing.assert_array_equal(frame.thermal_HW, scene.thermal)
        np.testing.assert_array_equal(frame.label_HW, CUSTOM_IDS[scene.label])


def test_default_patterns(tmp_path):
    dataset = build_plain(write_plain(tmp_path))
    (_, scene), frame = next(scenes_of("test", 1)), dataset[0]
    np.testing.assert_array_equal(frame.label_HW, scene.label)
    np.testing.assert_array_equal(frame.rgb_HW3, scene.rgb)


def test_ids_are_mapped(tmp_path):
    root = write_plain(tmp_path, ids=lambda label_HW: np.array([0, 10, 20, 9, 9, 9, 9, 9, 300], np.uint16)[label_HW])
    mapping = {0: "c0", 10: "c2", 20: 1, 9: "ignore", 300: 0}
    dataset = build_plain(root, classes=3, label_map=mapping)
    (_, scene) = next(scenes_of("test", 1))
    expected = np.array([0, 2, 1, 255, 255, 255, 255, 255, 0])[scene.label]
    np.testing.assert_array_equal(dataset[0].label_HW, expected)
    assert len(np.unique(expected)) >= 3, "the scene no longer tests what it should"


def test_255_is_ignored_unless_ignore_ids_says_otherwise(tmp_path):
    root = write_plain(tmp_path)
    write_image(root / "test" / "labels" / "0.png", np.full((48, 64), 255, np.uint8))
    assert (build_plain(root)[0].label_HW == 255).all()
    assert "got label ids 255" in error_of(lambda: build_plain(root, ignore_ids=[])[0])


def test_ignored_ids_may_be_classes(tmp_path):
    (_, scene) = next(scenes_of("test", 1))
    label_HW = build_plain(write_plain(tmp_path), ignore_ids=[0])[0].label_HW
    np.testing.assert_array_equal(label_HW, np.where(scene.label == 0, 255, scene.label))


def test_masks_of_0_and_255(tmp_path):
    root = write_plain(tmp_path, ids=lambda label_HW: np.where(label_HW == 2, 255, 0).astype(np.uint8))
    dataset = build_plain(root, role="train", label_map={0: 0, 255: 1}, holdout=None)
    person = [np.isin(scene.label, 2) for _, scene in scenes_of("train", 2)]
    assert any(mask.any() for mask in person)
    for frame, mask in zip(dataset, person, strict=True):
        np.testing.assert_array_equal(frame.label_HW, mask)


def test_unknown_colour_names_the_file(custom):
    file = custom / "test" / "masks" / "cam0" / "000_day.png"
    image = cv2.imread(str(file))
    image[0, 0] = (3, 2, 1)
    cv2.imwrite(str(file), image)
    dataset = build_dataset(custom_options(custom), "test")
    assert f"{file}: got 1 colour(s) that are no class on 1 pixels: [1, 2, 3];" in error_of(lambda: dataset[0])
    ignoring = build_dataset(custom_options(custom, ignore_colours=[[1, 2, 3]]), "test")
    assert ignoring[0].label_HW[0, 0] == 255


def test_colour_twice_is_an_error_at_the_start(custom):
    options = custom_options(custom, ignore_colours=[[220, 20, 60]])
    assert "name [220, 20, 60] twice" in error_of(lambda: build_dataset(options, "test"))


def test_16_bit_without_scaling(custom):
    dataset = build_dataset(custom_options(custom, thermal_scaling={"mode": "none"}), "test")
    message = error_of(lambda: dataset[0])
    assert "000_day_ir.tiff: got uint16 values" in message and "data.thermal_scaling" in message


@pytest.mark.parametrize("change", [{}, {"thermal_scaling": {"mode": "minmax"}}, {"ignore_colours": [[10, 10, 11]]}])
def test_cached_frames_equal_those_of_the_files(custom, tmp_path, change):
    """Names with folders, and a cache of other options beside it."""
    for options in (custom_options(custom), custom_options(custom, **change)):
        plain = build_dataset(options, "test")
        cached = build_dataset({**options, "cache": "packed", "cache_dir": str(tmp_path / "cache")}, "test")
        for first, second in zip(plain, cached, strict=True):
            assert first.name == second.name
            np.testing.assert_array_equal(first.thermal_HW, second.thermal_HW)
            np.testing.assert_array_equal(first.label_HW, second.label_HW)


def test_pickles_for_loader_processes(custom):
    dataset = build_dataset(custom_options(custom), "test")
    again = pickle.loads(pickle.dumps(dataset))
    for index in range(3):
        np.testing.assert_array_equal(again[index].label_HW, dataset[index].label_HW)


# --- lists -------------------------------------------------------------------------------------------------------


def test_list_of_names_chooses_and_orders(tmp_path):
    root = write_plain(tmp_path, train=4)
    (root / "lists").mkdir()
    (root / "lists" / "train.txt").write_text("3\n0\n1\n")
    dataset = build_plain(root, "train", split_file="lists/{split}.txt", holdout=None)
    assert dataset.names == ["3", "0", "1"] and dataset.listed_in == root / "lists" / "train.txt"


def test_list_of_names_without_a_file(tmp_path):
    root = write_plain(tmp_path)
    (root / "test.txt").write_text("0\n7\n")
    message = error_of(lambda: build_plain(root, split_file="{split}.txt"))
    assert str(root / "test.txt") in message
    for folder in ("rgb", "thermal", "labels"):
        assert f"1 without a file in {root / 'test' / folder / '{name}.*'}: 7" in message


def test_list_of_triples_needs_no_patterns(tmp_path):
    root = write_plain(tmp_path)
    (root / "train.txt").write_text("# mine\ntrain/rgb/1.png,train/thermal/1.png,train/labels/1.png\r\n")
    dataset = build_plain(root, "train", split_file="{split}.txt", rgb="no/{name}.png", holdout=None)
    (_, _), (_, scene) = scenes_of("train", 2)
    assert dataset.names == ["train/rgb/1"] and dataset.identities() == ["train/rgb/1.png"]
    np.testing.assert_array_equal(dataset[0].label_HW, scene.label)


def test_list_of_triples_without_a_file(tmp_path):
    root = write_plain(tmp_path)
    (root / "test.txt").write_text("test/rgb/0.png\ttest/thermal/0.tiff\ttest/labels/0.png\n")
    message = error_of(lambda: build_plain(root, split_file="{split}.txt"))
    assert f"1 without a file in {root / 'test.txt'} (column thermal): test/rgb/0" in message
    assert "column rgb" not in message and "column label" not in message
    assert f"test/rgb/0: no {root / 'test/thermal/0.tiff'}. '0.png' is there" in message


def test_files_outside_the_root(tmp_path):
    files = write_plain(tmp_path / "files") / "test"
    (tmp_path / "root").mkdir()
    row = [str(files / folder / "0.png") for folder in ("rgb", "thermal", "labels")]
    (tmp_path / "root" / "test.txt").write_text("\t".join(row))
    dataset = build_plain(tmp_path / "root", split_file="{split}.txt")
    assert dataset.identities() == [row[0]] and dataset[0].label_HW.shape == (48, 64)
    assert len(dataset.fingerprint()) == 64


def test_a_list_of_names_with_blanks(tmp_path):
    root = write_plain(tmp_path)
    for part in ("rgb", "thermal", "labels"):
        (root / "test" / part / "0.png").rename(root / "test" / part / "A 0.png")
    (root / "test.txt").write_text("A 0\n")
    assert build_plain(root, split_file="{split}.txt").names == ["A 0"]


@pytest.mark.parametrize("encode", [lambda text: text.encode("utf-16"), lambda text: text.encode("utf-8-sig")])
def test_lists_of_other_encodings(tmp_path, encode):
    root = write_plain(tmp_path, train=3)
    (root / "train.txt").write_bytes(encode("2.png\r\n0\r\n"))
    assert build_plain(root, "train", split_file="{split}.txt", holdout=None).names == ["2", "0"]


def test_a_list_that_names_one_file_for_two_parts(tmp_path):
    root = write_plain(tmp_path)
    (root / "test.txt").write_text("test/rgb/0.png,test/rgb/0.png,test/labels/0.png\n")
    message = error_of(lambda: build_plain(root, split_file="{split}.txt"))
    assert f"fit both {root / 'test.txt'} (column rgb) and {root / 'test.txt'} (column thermal)" in message


def test_a_list_in_the_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "test.txt").write_text("0\n")
    assert build_plain(write_plain(tmp_path / "root"), split_file="~/{split}.txt").names == ["0"]


# --- names -------------------------------------------------------------------------------------------------------


def rename_all(folder: Path, name) -> None:
    for file in list(folder.iterdir()):
        file.rename(folder / name(file))


@pytest.mark.parametrize("listed", [False, True])
def test_parts_whose_names_are_spelt_in_two_ways(tmp_path, listed):
    root = write_plain(tmp_path)
    forms = {"rgb": "NFD", "thermal": "NFC", "labels": "NFD"}
    for part, form in forms.items():
        rename_all(root / "test" / part, lambda file, form=form: unicodedata.normalize(form, f"größe_{file.name}"))
    (root / "test.txt").write_text(unicodedata.normalize("NFC", "größe_0\n"), encoding="utf-8")
    dataset = build_plain(root, split_file="{split}.txt" if listed else None)
    (_, scene), frame = next(scenes_of("test", 1)), dataset[0]
    np.testing.assert_array_equal(frame.label_HW, scene.label)
    np.testing.assert_array_equal(frame.thermal_HW, scene.thermal)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no file names that are not UTF-8")
def test_names_that_are_not_utf8(tmp_path):
    root = write_plain(tmp_path, train=4)
    for part in ("rgb", "thermal", "labels"):
        rename_all(root / "train" / part, lambda file: os.fsdecode(b"\xd6\xd0_" + file.name.encode()))
    roles = [build_plain(root, role) for role in ("train", "val")]
    assert sum(map(len, roles)) == 4 and all(len(dataset.fingerprint()) == 64 for dataset in roles)
    cached = build_plain(root, "train", cache="packed", cache_dir=str(tmp_path / "cache"))
    assert cached[0].name == roles[0].names[0]
    again = build_plain(root, "train", cache="packed", cache_dir=str(tmp_path / "cache"))
    assert again._kept is not None and again[0].name == roles[0].names[0]
    assert json.loads(json.dumps(roles[0].identities())) == roles[0].identities()


def test_upper_case_suffixes(tmp_path):
    root = write_plain(tmp_path)
    for part in ("rgb", "thermal", "labels"):
        rename_all(root / "test" / part, lambda file: f"{file.stem}.PNG")
    patterns = {"rgb": "{split}/rgb/{name}.png", "thermal": "{split}/thermal/{name}.png"}
    assert build_plain(root, **patterns).names == ["0"]


def test_a_name_in_another_case_is_told(tmp_path):
    root = write_plain(tmp_path)
    (root / "test" / "labels" / "0.png").rename(root / "test" / "labels" / "Img.png")
    for part in ("rgb", "thermal"):
        (root / "test" / part / "0.png").rename(root / "test" / part / "img.png")
    if not (root / "test" / "labels" / "img.png").exists():
        message = error_of(lambda: build_plain(root))
        assert "img: 'Img' is there, which differs in the case of letters: rename one of them" in message


def test_an_image_of_a_kind_that_is_not_read_is_told(tmp_path):
    root = write_plain(tmp_path)
    (root / "test" / "rgb" / "0.png").rename(root / "test" / "rgb" / "0.heic")
    assert "0.heic is there, but '.heic' is not read here" in error_of(lambda: build_plain(root))


def test_frames_that_nobody_would_miss_are_counted(tmp_path, caplog):
    root = write_plain(tmp_path)
    for part in ("rgb", "thermal", "labels"):
        (root / "test" / part / "77.heic").write_bytes(b"x")
    with caplog.at_level(logging.WARNING, "mdg.data"):
        assert build_plain(root).names == ["0"]
    (line,) = caplog.messages
    assert "split 'test'" in line and "(1 .heic)" in line and "77.heic" in line


def test_webp_and_the_like_take_part(tmp_path):
    root = write_plain(tmp_path)
    file = root / "test" / "rgb" / "0.png"
    assert cv2.imwrite(str(file.with_suffix(".webp")), cv2.imread(str(file)), [cv2.IMWRITE_WEBP_QUALITY, 101])
    file.unlink()
    np.testing.assert_array_equal(build_plain(root)[0].rgb_HW3, next(scenes_of("test", 1))[1].rgb)


FLAT = {"thermal": "{split}/{name}_ir.png", "label": "{split}/{name}_mask.png"}


def write_flat(root: Path) -> Path:
    _, scene = next(scenes_of("test", 1))
    for ending, image in (("", scene.rgb), ("_ir", scene.thermal), ("_mask", scene.label)):
        write_image(root / "test" / f"a.jpg.rf.0b1{ending}.png", image)
    return root


def test_a_file_that_fits_two_patterns(tmp_path):
    message = error_of(lambda: build_plain(write_flat(tmp_path), rgb="{split}/{name}.*", **FLAT))
    assert "1 file(s) fit both data.rgb: '{split}/{name}.*' and data.thermal: '{split}/{name}_ir.png'" in message
    assert "a.jpg.rf.0b1_ir.png; write patterns of which only one fits" in message


def test_one_pattern_for_two_parts(tmp_path):
    message = error_of(lambda: build_plain(write_plain(tmp_path), thermal="{split}/rgb/{name}.*"))
    assert "fit both data.rgb: '{split}/rgb/{name}.*' and data.thermal: '{split}/rgb/{name}.*'" in message


def test_a_list_tells_files_apart_that_fit_two_patterns(tmp_path):
    root = write_flat(tmp_path)
    (root / "test.txt").write_text("a.jpg.rf.0b1\n")
    dataset = build_plain(root, rgb="{split}/{name}.*", split_file="{split}.txt", **FLAT)
    np.testing.assert_array_equal(dataset[0].label_HW, next(scenes_of("test", 1))[1].label)


def test_nothing_fits_but_for_the_suffix(tmp_path):
    root = write_plain(tmp_path)
    patterns = {part: f"{{split}}/{folder}/{{name}}.jpg" for part, folder in PARTS}
    message = error_of(lambda: build_plain(root, **patterns))
    assert f"{root / 'test/rgb/0.png'} would, but for its suffix '.png'" in message


# --- facts -------------------------------------------------------------------------------------------------------


def test_facts_name_the_set_and_its_preparation(custom):
    facts = build_dataset(custom_options(custom, align="thermal"), "test").facts()
    assert (facts["dataset"], facts["split"], facts["files"]) == ("Courtyard", "test", 3)
    assert facts["preparation"] == (
        "thermal [7000.0, 9550.0] to 8 bits; images resized to the size of thermal where sizes differ"
    )
    assert facts["classes"] == ["background", "person", "vehicle", "small thing"]


def test_identities_differ_between_splits(custom):
    train, test = (build_dataset(custom_options(custom, holdout=None), role) for role in ("train", "test"))
    assert set(test.names) < set(train.names) and not set(train.identities()) & set(test.identities())
    assert test.identities()[0] == "color/test/cam0/000_day.jpg"


def test_conditions_by_name(custom):
    dataset = build_dataset(custom_options(custom), "test")
    groups = {name: dataset.condition(index) for index, name in enumerate(dataset.names)}
    assert groups == {"cam0/000_day": "day", "cam0/002_day": "day", "cam1/001_night": "night"}


@pytest.mark.parametrize(
    "conditions, expected",
    [
        ({}, [None, None, None]),
        ({"left": "cam0/*"}, ["left", "left", None]),
        ({"first": "*00[01]_*", "rest": "*"}, ["first", "rest", "first"]),
        ({"upper": "CAM*"}, [None, None, None]),
    ],
)
def test_first_condition_that_fits(custom, conditions, expected):
    dataset = build_dataset(custom_options(custom, conditions=conditions), "test")
    assert [dataset.condition(index) for index in range(3)] == expected


def test_scores_with_and_without_the_unlabeled_class(custom):
    dataset = build_dataset(custom_options(custom), "test")
    everything, without = dataset.scoring_rules()
    assert (everything.name, without.name) == ("all classes", "without background")
    confusion = ConfusionMatrix(4, np.array([[90, 10, 0, 0], [5, 15, 0, 0], [0, 0, 20, 0], [0, 0, 0, 0]]))
    assert everything.means(confusion, dataset.classes)["mIoU"] == pytest.approx((90 / 105 + 15 / 30 + 1) / 3)
    assert without.means(confusion, dataset.classes)["mIoU"] == pytest.approx((15 / 30 + 1) / 2)
    (only,) = build_dataset(custom_options(custom, unlabeled=None), "test").scoring_rules()
    assert only == everything


# --- palette -----------------------------------------------------------------------------------------------------


def test_default_palette_is_that_of_pascal_voc():
    assert [tuple(colour) for colour in make_palette(21, None).tolist()] == VOC


def test_default_palette_has_no_colour_twice():
    palette_K3 = make_palette(255, None)
    assert palette_K3.dtype == np.uint8 and len(np.unique(palette_K3, axis=0)) == 255


def test_given_palette(custom):
    palette_K3 = build_dataset(custom_options(custom), "test").palette_K3
    assert palette_K3.dtype == np.uint8 and palette_K3[3].tolist() == [255, 170, 0]
    with pytest.raises(ValueError):
        palette_K3[0] = 1


# --- files that are wrong ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("part, place", [("rgb", "color/test"), ("thermal", "test/ir"), ("label", "test/masks")])
def test_missing_partner_is_named_with_its_pattern(custom, part, place):
    file = sorted((custom / place / "cam0").iterdir())[1]
    file.unlink()
    message = error_of(lambda: build_dataset(custom_options(custom), "test"))
    pattern = custom_options(custom)[part].replace("{split}", "test")
    assert f"1 without a file in {custom / pattern}: cam0/002_day" in message
    assert message.count("without a file") == 1


def test_parts_of_one_folder_are_told_apart(tmp_path):
    for name, image in (("0_rgb", np.zeros((48, 64, 3))), ("0_t", np.zeros((48, 64))), ("1_t", np.zeros((48, 64)))):
        write_image(tmp_path / "test" / f"{name}.png", image.astype(np.uint8))
    patterns = {"rgb": "{split}/{name}_rgb.png", "thermal": "{split}/{name}_t.png", "label": "{split}/{name}_id.png"}
    message = error_of(lambda: build_plain(tmp_path, **patterns))
    assert f"1 without a file in {tmp_path / 'test/{name}_rgb.png'}: 1;" in message
    assert f"2 without a file in {tmp_path / 'test/{name}_id.png'}: 0, 1" in message


def test_missing_folder_names_the_pattern(custom):
    shutil.rmtree(custom / "test" / "masks")
    message = error_of(lambda: build_dataset(custom_options(custom), "test"))
    assert f"{custom / 'test/masks'}: no such folder" in message and "'{split}/masks/{name}.png'" in message


def test_case_of_folders_matters_and_is_told(custom):
    (custom / "color").rename(custom / "Color")
    assert f"{custom / 'color/test'}: no such folder" in error_of(lambda: build_dataset(custom_options(custom), "test"))


def test_missing_root(tmp_path):
    message = error_of(lambda: build_plain(tmp_path / "nowhere"))
    assert f"{tmp_path / 'nowhere'}: no such folder; data.root" in message


def test_no_file_fits(tmp_path):
    root = write_plain(tmp_path)
    patterns = {"rgb": "{split}/rgb/{name}.x", "thermal": "{split}/rgb/{name}.y", "label": "{split}/rgb/{name}.z"}
    message = error_of(lambda: build_plain(root, **patterns))
    assert "no file fits '{split}/rgb/{name}.x'" in message and "for the split 'test'" in message


def test_role_without_split(tmp_path):
    message = error_of(lambda: build_plain(write_plain(tmp_path), test_split=None))
    assert "data.test_split is null, so Folder has no test split" in message


# --- options through YAML ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, key, message",
    [
        ({"classes": ["a", "b", "a"]}, "classes", "expected different names"),
        ({"classes": ["a", "ignore"]}, "classes", "not 'ignore', which stands for no class"),
        ({"classes": ["a"]}, "classes", "at least 2"),
        ({"classes": [f"c{k}" for k in range(256)]}, "classes", "at most 255"),
        ({"palette": [[0, 0, 0]]}, "palette", "got 1 colours, expected 2, one per class"),
        ({"palette": [[0, 0, 0], [0, 0, 256]]}, "palette.1.2", "got 256; expected less than or equal to 255"),
        ({"palette": [[0, 0, 0], [0, 0]]}, "palette.1.2", "set this key"),
        ({"unlabeled": "persn"}, "unlabeled", "expected one of bg, person. Did you mean 'person'?"),
        ({"label_map": {0: "bg", 1: "persn"}}, "label_map", "id 1 becomes 'persn'; expected 0..1, a class name or"),
        ({"label_map": {0: "bg", 1: 2}}, "label_map", "id 1 becomes '2'"),
        ({"label_map": {0: "bg", 1: -1}}, "label_map", "id 1 becomes '-1'"),
        ({"label_map": {0: "bg", 70000: 1}}, "label_map", "got id 70000, expected 0..65535"),
        ({"label_map": {0: "bg", 1: True}}, "label_map.1.int", "expected a valid integer"),
        ({"label_format": "rgb"}, "label_format", "'ids' or 'colours'"),
        ({"ignore_ids": [-1]}, "ignore_ids.0", "greater than or equal to 0"),
        ({"ignore_ids": [65536]}, "ignore_ids.0", "less than 65536"),
        ({"rgb": "rgb/x.png"}, "rgb", "{name} in it once"),
        ({"label": "../{name}.png"}, "label", "below data.root"),
        ({"thermal_scaling": {"mode": "fixed"}}, "thermal_scaling", "mode 'fixed' and range None"),
        ({"thermal_scaling": {"mode": "minmaks"}}, "thermal_scaling.mode", "'minmax'"),
        ({"align": "both"}, "align", "'refuse', 'rgb', 'thermal' or 'label'"),
        ({"name": ""}, "name", "at least 1 character"),
        ({"labels": "x"}, "labels", "Did you mean 'label'?"),
    ],
)
def test_mistakes_name_file_line_and_key(tmp_path, options, key, message):
    text = config_error(tmp_path, **options)
    top = key.partition(".")[0]
    line = next(k for k, line in enumerate((tmp_path / "run.yaml").read_text().splitlines(), 1) if f" {top}:" in line)
    assert f"data.{key}: " in text and message in text
    named = int(text.partition(f"{tmp_path / 'run.yaml'}:")[2].partition(":")[0])
    assert named >= line, f"line {named} is above the key"


@pytest.mark.parametrize(
    "options, message",
    [
        ({"label_format": "colours"}, "colours needs a palette"),
        ({"label_format": "colours", "palette": [[0] * 3, [1] * 3], "label_map": {0: 0}}, "takes no label_map"),
        ({"ignore_colours": [[0, 0, 0]]}, "ignore_colours: expected label_format: colours"),
        ({"ignore_ids": [255, 1], "label_map": {0: 0, 1: 1}}, "got [1] both in ignore_ids and as classes in label_map"),
        ({"val_split": "val"}, "set val_split: null to hold frames out"),
        (
            {"rgb": "rgb/{name}.png", "thermal": "t/{name}.png", "label": "l/{name}.png"},
            "no {split} in rgb, thermal, label or split_file, so test, train would be the same frames",
        ),
    ],
)
def test_options_that_do_not_go_together(tmp_path, options, message):
    text = config_error(tmp_path, **options)
    assert f"{tmp_path / 'run.yaml'}:1: data: " in text and message in text


@pytest.mark.parametrize(
    "options",
    [
        {"split_file": "{split}.txt", "rgb": "r/{name}.png", "thermal": "t/{name}.png", "label": "l/{name}.png"},
        {"test_split": None, "rgb": "r/{name}.png", "thermal": "t/{name}.png", "label": "l/{name}.png"},
        {"ignore_ids": [255, 1], "label_map": {0: 0, 2: 1, 1: "ignore"}},
        {"ignore_ids": [0]},
    ],
)
def test_options_that_do(tmp_path, options):
    load(tmp_path, **options)


def test_several_mistakes_are_reported_at_once(tmp_path):
    text = config_error(tmp_path, palette=[[0, 0, 0]], unlabeled="sky", rgb="rgb.png")
    for key in ("data.palette", "data.unlabeled", "data.rgb"):
        assert key in text


def test_neither_val_split_nor_holdout(tmp_path):
    text = config_error(tmp_path, holdout=None)
    assert "data.val_split is null" in text and "data.holdout: 0.1" in text and "eval.selection: last" in text


def test_configuration_comes_back_from_its_dump(tmp_path):
    """Checkpoints carry the resolved configuration; ids are keys there."""
    config = load(
        tmp_path,
        label_map={0: "bg", 1: 1, 9: "ignore"},
        thermal_scaling={"mode": "fixed", "range": [7000, 9500]},
        conditions={"day": "*_d"},
        palette=[[0, 0, 0], [255, 0, 0]],
    )
    (tmp_path / "again.yaml").write_text(dump_yaml(config))
    assert load_config(tmp_path / "again.yaml") == config


def test_shipped_example_reads_data_of_its_layout(tmp_path, repository):
    for split, count in (("train", 4), ("test", 2)):
        for number, scene in scenes_of(split, count):
            rgb_HW3 = scene.rgb.repeat(2, axis=0).repeat(2, axis=1)
            write_image(tmp_path / split / "rgb" / f"{number}.jpg", rgb_HW3)
            write_image(tmp_path / split / "thermal" / f"{number}.tiff", raw_counts(scene.thermal))
            stored = np.array([0, 1, 2, 3, 4, 9, 0, 0, 0], np.uint8)[scene.label]
            write_image(tmp_path / split / "labels" / f"{number}.png", stored)
    config = load_config(repository / "configs" / "folder" / "example.yaml", [f"data.root={tmp_path}"])
    counts = {role: len(build_dataset(config.data, role)) for role in ("train", "val", "test")}
    assert counts == {"train": 3, "val": 1, "test": 2}
    for frame in build_dataset(config.data, "test"):
        assert frame.rgb_HW3.shape == (48, 64, 3) and set(np.unique(frame.label_HW)) <= {0, 1, 2, 3, 255}
