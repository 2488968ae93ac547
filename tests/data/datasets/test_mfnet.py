from __future__ import annotations

import re
import shutil
import unicodedata
from pathlib import Path

import cv2
import numpy as np
import pytest

from mdg.data import build_dataset
from mdg.data.datasets.mfnet import MFNet
from mdg.errors import DataError
from mdg.options.datasets import MFNetOptions
from mdg.registry import DATASETS


def error_of(action) -> str:
    with pytest.raises(DataError) as caught:
        action()
    return str(caught.value)


def assert_equals_scene(frame, scene) -> None:
    np.testing.assert_array_equal(frame.rgb_HW3, scene.rgb)
    np.testing.assert_array_equal(frame.thermal_HW, scene.thermal)
    np.testing.assert_array_equal(frame.label_HW, scene.label)


# --- reading -----------------------------------------------------------------------------------------------------


def test_packed_reads_what_was_written(packed, scenes):
    dataset = MFNet(MFNetOptions(root=packed), role="train")
    assert len(dataset) == 6
    for index, name in enumerate(dataset.names):
        assert dataset[index].name == name
        assert_equals_scene(dataset[index], scenes[name])


@pytest.mark.parametrize("layout", ["folders", "title_folders"])
def test_folders_read_what_was_written(layout, request, scenes):
    dataset = MFNet(MFNetOptions(root=request.getfixturevalue(layout)), role="test")
    assert len(dataset) == 4
    for index, name in enumerate(dataset.names):
        assert_equals_scene(dataset[index], scenes[name])


def test_channel_order_of_a_hand_made_pixel(packed):
    # PNG stores R, G, B, A; OpenCV writes from B, G, R, A.
    image = np.zeros((48, 64, 4), np.uint8)
    image[5, 7] = (30, 20, 10, 200)
    cv2.imwrite(str(packed / "images" / "00000D.png"), image)
    frame = MFNet(MFNetOptions(root=packed), role="train")[0]
    assert frame.rgb_HW3[5, 7].tolist() == [10, 20, 30]
    assert frame.thermal_HW[5, 7] == 200
    assert frame.rgb_HW3.dtype == frame.thermal_HW.dtype == frame.label_HW.dtype == np.uint8


def test_thermal_of_three_equal_channels(folders, scenes):
    cv2.imwrite(str(folders / "thermal" / "00000D.png"), np.dstack([scenes["00000D"].thermal] * 3))
    assert_equals_scene(MFNet(MFNetOptions(root=folders), role="train")[0], scenes["00000D"])


@pytest.mark.parametrize("role, first, count", [("train", "00000D", 6), ("val", "00006D", 3), ("test", "00009N", 4)])
def test_each_role_reads_its_own_file(packed, role, first, count):
    dataset = build_dataset({"type": "MFNet", "root": str(packed)}, role)
    assert (dataset.split, dataset.split_name, dataset.names[0], len(dataset)) == (role, role, first, count)


def test_val_never_falls_back_to_test(packed):
    (packed / "val.txt").unlink()
    message = error_of(lambda: MFNet(MFNetOptions(root=packed), role="val"))
    assert str(packed / "val.txt") in message and "test, train" in message


def test_split_can_be_named(packed):
    shutil.copy(packed / "test.txt", packed / "test_day.txt")
    dataset = build_dataset({"type": "MFNet", "root": packed, "test_split": "test_day"}, "test")
    assert dataset.facts()["split"] == "test_day" and dataset.facts()["role"] == "test"


def test_names_may_carry_suffix_blank_lines_and_windows_ends(packed):
    (packed / "val.txt").write_bytes(b"\xef\xbb\xbf00006D.png\r\n\r\n  00007N.png \r\n00008D\r\n")
    assert MFNet(MFNetOptions(root=packed), role="val").names == ["00006D", "00007N", "00008D"]


@pytest.mark.parametrize(
    "content",
    [
        "00006D\r\n00007N\r\n".encode("utf-16"),
        b"images/00006D.png\n./images/00007N.png\n",
        b"images\\00006D.png\r\nimages\\00007N.JPG\r\n",
    ],
)
def test_lists_as_people_write_them(packed, content):
    (packed / "val.txt").write_bytes(content)
    dataset = MFNet(MFNetOptions(root=packed), role="val")
    dataset.require_complete()
    assert dataset.names == ["00006D", "00007N"]


def test_a_list_that_is_no_text(packed):
    (packed / "val.txt").write_bytes((packed / "images" / "00000D.png").read_bytes())
    assert f"{packed / 'val.txt'}: holds a byte" in error_of(lambda: MFNet(MFNetOptions(root=packed), role="val"))


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_names_spelt_in_two_ways_are_one_and_not_mirrored(packed, scenes, form):
    for folder in ("images", "labels"):
        (packed / folder / "00006D.png").rename(packed / folder / unicodedata.normalize(form, "é6D.png"))
    other = {"NFC": "NFD", "NFD": "NFC"}[form]
    (packed / "val.txt").write_text(unicodedata.normalize(other, "é6D\né6D_flip\n"), encoding="utf-8")
    dataset = MFNet(MFNetOptions(root=packed), role="val")
    dataset.require_complete()
    np.testing.assert_array_equal(dataset[0].label_HW, scenes["00006D"].label)
    np.testing.assert_array_equal(dataset[1].label_HW, scenes["00006D"].label[:, ::-1])


def test_a_name_in_another_case_is_told(packed):
    (packed / "val.txt").write_text("00006d\n")
    if not (packed / "images" / "00006d.png").exists():
        message = error_of(MFNet(MFNetOptions(root=packed), role="val").require_complete)
        assert "00006d: '00006D' is there, which differs in the case of letters" in message


def test_condition_by_last_letter(packed):
    (packed / "val.txt").write_text("00006D\n00007N\n00007N_flip\n")
    dataset = MFNet(MFNetOptions(root=packed), role="val")
    assert [dataset.condition(index) for index in range(3)] == ["day", "night", "night"]


@pytest.mark.parametrize("layout", ["packed", "folders"])
def test_flip_name_without_a_file_mirrors_the_frame(layout, request, scenes):
    root = request.getfixturevalue(layout)
    (root / "train.txt").write_text("00000D\n00000D_flip\n")
    scene, mirrored = scenes["00000D"], MFNet(MFNetOptions(root=root), role="train")[1]
    assert mirrored.name == "00000D_flip"
    for part, original in (
        (mirrored.rgb_HW3, scene.rgb),
        (mirrored.thermal_HW, scene.thermal),
        (mirrored.label_HW, scene.label),
    ):
        np.testing.assert_array_equal(part, original[:, ::-1])
        assert not np.array_equal(part, original)


def test_flip_file_is_taken_as_it_is(packed, scenes):
    for folder in ("images", "labels"):
        shutil.copy(packed / folder / "00001N.png", packed / folder / "00000D_flip.png")
    (packed / "train.txt").write_text("00000D_flip\n")
    assert_equals_scene(MFNet(MFNetOptions(root=packed), role="train")[0], scenes["00001N"])


def test_facts_and_fingerprint(packed):
    dataset = MFNet(MFNetOptions(root=packed), role="train")
    facts = dataset.facts()
    assert (facts["dataset"], facts["files"], len(facts["classes"])) == ("MFNet", 6, 9)
    assert dataset.palette_K3.shape == (9, 3)
    names = (packed / "train.txt").read_text().split()
    (packed / "train.txt").write_text("\n".join(reversed(names)))
    assert MFNet(MFNetOptions(root=packed), role="train").fingerprint() == facts["sha256"]
    (packed / "train.txt").write_text("\n".join(names[:-1]))
    assert MFNet(MFNetOptions(root=packed), role="train").fingerprint() != facts["sha256"]


def test_home_is_expanded(packed, monkeypatch):
    monkeypatch.setenv("HOME", str(packed.parent))
    monkeypatch.setenv("USERPROFILE", str(packed.parent))
    assert len(MFNet(MFNetOptions(root="~/packed"), role="val")) == 3


# --- errors ------------------------------------------------------------------------------------------------------


def test_missing_root_says_how_to_get_the_data(tmp_path):
    message = error_of(lambda: MFNet(MFNetOptions(root=tmp_path / "nowhere"), role="train"))
    for part in (
        str(tmp_path / "nowhere"),
        "MFNet: Towards Real-Time Semantic",
        "IROS 2017",
        "--opts data.root=",
        "make demo",
    ):
        assert part in message


def test_role_without_split():
    message = error_of(lambda: build_dataset({"type": "MFNet", "root": "any", "val_split": None}, "val"))
    assert "data.val_split is null" in message and "eval.selection=last" in message


@pytest.mark.parametrize(
    "layout, expected",
    [
        ("auto", "images/ and labels/, or rgb/"),
        ("packed", "images/ and labels/"),
        ("folders", "rgb/, thermal/ and labels/"),
    ],
)
def test_neither_layout(tmp_path, layout, expected):
    (tmp_path / "pictures").mkdir()
    message = error_of(lambda: MFNet(MFNetOptions(root=tmp_path, layout=layout), role="train"))
    assert str(tmp_path) in message and "found pictures/" in message and expected in message


def test_named_layout_is_not_replaced_by_another(packed):
    assert "layout 'folders'" in error_of(lambda: MFNet(MFNetOptions(root=packed, layout="folders"), role="train"))


def test_missing_split_names_the_nearest(packed):
    message = error_of(lambda: MFNet(MFNetOptions(root=packed, train_split="trian"), role="train"))
    assert str(packed / "trian.txt") in message and "Did you mean 'train'?" in message


def test_empty_split(packed):
    (packed / "val.txt").write_text("\n \n")
    message = error_of(lambda: MFNet(MFNetOptions(root=packed), role="val"))
    assert str(packed / "val.txt") in message and "empty" in message


def test_duplicate_names(packed):
    (packed / "val.txt").write_text("00006D\n00007N\n00006D.png\n")
    message = error_of(lambda: MFNet(MFNetOptions(root=packed), role="val"))
    assert str(packed / "val.txt") in message and "1 name(s)" in message and "00006D" in message


def test_split_file_that_is_no_text(packed):
    (packed / "val.txt").write_bytes(b"\xff\xfe0\x00D\n")
    assert str(packed / "val.txt") in error_of(MFNet(MFNetOptions(root=packed), role="val").require_complete)


def test_missing_halves_are_counted_for_the_whole_split(packed):
    for name in ("00000D", "00002D"):
        (packed / "labels" / f"{name}.png").unlink()
    (packed / "images" / "00005N.png").unlink()
    message = error_of(MFNet(MFNetOptions(root=packed), role="train").require_complete)
    assert str(packed / "train.txt") in message
    assert f"2 without a file in {packed / 'labels'}: 00000D, 00002D" in message
    assert f"1 without a file in {packed / 'images'}: 00005N" in message


def test_many_missing_files_are_cut_short(packed):
    shutil.rmtree(packed / "labels")
    (packed / "labels").mkdir()
    message = error_of(MFNet(MFNetOptions(root=packed), role="train").require_complete)
    assert "6 without a file" in message and "00004D and 1 more" in message and "00005N" not in message


def test_jpeg_labels_do_not_count(packed):
    (packed / "labels" / "00006D.png").rename(packed / "labels" / "00006D.jpg")
    message = error_of(MFNet(MFNetOptions(root=packed), role="val").require_complete)
    assert "00006D.jpg is there, but '.jpg' is not read here" in message


@pytest.mark.parametrize("kind", ["truncated", "empty", "text"])
def test_broken_png(packed, kind):
    file = packed / "images" / "00000D.png"
    data = {"truncated": file.read_bytes()[:-200], "empty": b"", "text": b"<html>404</html>"}[kind]
    file.write_bytes(data)
    message = error_of(lambda: MFNet(MFNetOptions(root=packed), role="train")[0])
    assert str(file) in message and f"{len(data)} bytes" in message and "copy it again" in message


def test_file_that_vanished(packed):
    dataset = MFNet(MFNetOptions(root=packed), role="train")
    (packed / "images" / "00000D.png").unlink()
    assert str(packed / "images" / "00000D.png") in error_of(lambda: dataset[0])


def replace(file: Path, image: np.ndarray) -> None:
    assert cv2.imwrite(str(file), image)


def test_three_channel_image(packed):
    file = packed / "images" / "00000D.png"
    replace(file, np.zeros((48, 64, 3), np.uint8))
    message = error_of(lambda: MFNet(MFNetOptions(root=packed), role="train")[0])
    assert str(file) in message and "got 3 channel(s), expected 4" in message


def test_sixteen_bits(packed):
    file = packed / "images" / "00000D.png"
    replace(file, np.zeros((48, 64, 4), np.uint16))
    message = error_of(lambda: MFNet(MFNetOptions(root=packed), role="train")[0])
    assert str(file) in message and "uint16" in message


@pytest.mark.parametrize("layout, folder", [("packed", "labels"), ("folders", "thermal"), ("folders", "labels")])
def test_sizes_that_differ(layout, folder, request):
    root = request.getfixturevalue(layout)
    file = root / folder / "00000D.png"
    replace(file, np.zeros((48, 60), np.uint8))
    message = error_of(lambda: MFNet(MFNetOptions(root=root), role="train")[0])
    assert f"{file} is 48x60" in message and "is 48x64" in message


@pytest.mark.parametrize("ids, shown", [((9, 12), "9, 12"), ((255,), "255")])
def test_label_ids_out_of_range(packed, ids, shown):
    file = packed / "labels" / "00000D.png"
    label = np.zeros((48, 64), np.uint8)
    label[0, : len(ids)] = ids
    replace(file, label)
    message = error_of(lambda: MFNet(MFNetOptions(root=packed), role="train")[0])
    assert str(file) in message and f"got label ids {shown}, expected 0..8" in message


@pytest.mark.parametrize("folder, expected", [("thermal", "got a colour image"), ("labels", "got colours")])
def test_colour_where_grey_is_expected(folders, folder, expected):
    file = folders / folder / "00000D.png"
    colour = np.zeros((48, 64, 3), np.uint8)
    colour[0, 0, 1] = 70
    replace(file, colour)
    message = error_of(lambda: MFNet(MFNetOptions(root=folders), role="train")[0])
    assert str(file) in message and expected in message


@pytest.mark.parametrize("channels, folder, shown", [(4, "thermal", "got 4 channels"), (1, "rgb", "got 1 channel")])
def test_channels_of_folders(folders, channels, folder, shown):
    file = folders / folder / "00000D.png"
    replace(file, np.zeros((48, 64, channels), np.uint8))
    message = error_of(lambda: MFNet(MFNetOptions(root=folders), role="train")[0])
    assert str(file) in message and shown in message


# --- options -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"root": "x", "layout": "zip"}, {"root": "x", "rot": "y"}])
def test_options_are_checked(options):
    with pytest.raises(ValueError):
        DATASETS.parse({"type": "MFNet", **options})


# --- real frames -------------------------------------------------------------------------------------------------


def test_real_frames(mfnet_mini):
    counts = {role: len(MFNet(MFNetOptions(root=mfnet_mini), role=role)) for role in ("train", "val", "test")}
    assert counts == {"train": 100, "val": 30, "test": 20}
    dataset = MFNet(MFNetOptions(root=mfnet_mini), role="test")
    conditions = [dataset.condition(index) for index in range(20)]
    assert conditions.count("day") == conditions.count("night") == 10
    for index in (0, 19):
        frame = dataset[index]
        assert frame.rgb_HW3.shape == (480, 640, 3) and frame.thermal_HW.shape == frame.label_HW.shape == (480, 640)
        assert re.fullmatch(r"\d{5}[DN]", frame.name)
    day, night = dataset[conditions.index("day")], dataset[conditions.index("night")]
    assert day.rgb_HW3.mean() > night.rgb_HW3.mean()
    assert not np.array_equal(day.thermal_HW, day.rgb_HW3[..., 2])
