"""Folders as people have them: links, circles, pipes, names of all kinds."""

from __future__ import annotations

import errno
import os
import unicodedata
from pathlib import Path

import pytest

from mdg.data.reading.files import (
    Paths,
    check_complete,
    flat_name,
    folders_beside,
    list_folder,
    list_others,
    nearest_path,
    require_room,
    unread,
    walk,
    without_suffix,
)
from mdg.errors import DataError, MachineError


def touch(root: Path, *files: str) -> Path:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    return root


def walked(root: Path, **options) -> list[str]:
    return [file.relative_to(root).as_posix() for file in walk(root, **options)]


# --- walking -----------------------------------------------------------------------------------------------------


def test_all_files_in_the_order_of_their_names(tmp_path):
    root = touch(tmp_path, "b/2", "b/1", "a/x/1", "a/y", "c", ".hidden/1", "a/.z")
    assert walked(root) == ["c", "a/y", "a/x/1", "b/1", "b/2"]
    assert walked(root, skip=lambda name: name == "a") == ["c", ".hidden/1", "b/1", "b/2"]


@pytest.mark.parametrize("target", [".", "..", "../..", "../a"])
def test_links_that_lead_round_in_a_circle(tmp_path, target):
    """To the folder itself, above it, or above the place where walking starts."""
    root = touch(tmp_path / "up" / "root", "1", "a/2")
    (root / "a" / "loop").symlink_to(target)
    assert walked(root) == ["1", "a/2"]
    assert walked(root / "a") == ["2"]


def test_folders_that_link_to_each_other(tmp_path):
    root = touch(tmp_path, "a/1", "b/2")
    (root / "a" / "to_b").symlink_to("../b")
    (root / "b" / "to_a").symlink_to("../a")
    assert walked(root) == ["a/1", "a/to_b/2", "b/2", "b/to_a/1"]
    assert walked(root, once=True) == ["a/1", "a/to_b/2"]


def test_links_to_folders_elsewhere_are_followed_under_every_name(tmp_path):
    touch(tmp_path / "elsewhere", "1")
    root = touch(tmp_path / "root", "x")
    for name in ("a", "b"):
        (root / name).symlink_to(tmp_path / "elsewhere")
    assert walked(root) == ["x", "a/1", "b/1"]
    assert walked(root, once=True) == ["x", "a/1"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_what_is_no_file(tmp_path):
    """A pipe would keep its reader waiting; a link that leads nowhere is an error when it is read."""
    root = touch(tmp_path, "1.png")
    os.mkfifo(root / "2.png")
    (root / "3.png").symlink_to("nowhere")
    (root / "4.png").symlink_to("4.png")
    (root / "5.png").mkdir()
    assert walked(root) == ["1.png", "3.png", "4.png"]
    assert list(list_folder(root)) == ["1", "3", "4"]


def test_a_folder_that_may_not_be_listed_is_an_error(tmp_path, monkeypatch):
    root, scandir = touch(tmp_path, "a/1", "b/2"), os.scandir

    def refuse(path):
        if Path(path).name == "b":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match="cannot be listed .Permission denied"):
        walked(root)


def test_more_files_than_the_limit(tmp_path, monkeypatch):
    root = touch(tmp_path, "a/1", "a/2", "b/3")
    monkeypatch.setenv("MDG_LIMIT_FOLDER_FILES", "3")
    assert len(walked(root)) == 3
    monkeypatch.setenv("MDG_LIMIT_FOLDER_FILES", "2")
    with pytest.raises(DataError, match="--limit folder_files=3"):
        walked(root)


# --- names -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, stem",
    [("a.png", "a"), ("a.PNG", "a"), ("v1.2", "v1.2"), ("a.png.jpg", "a.png"), (".png", ".png"), ("a.tif", "a.tif")],
)
def test_image_suffixes_are_cut_off(name, stem):
    assert without_suffix(name) == stem


@pytest.mark.parametrize("line", ["a", "a.png", "rgb/a.png", "./rgb/a", "rgb\\a.JPG", "C:\\data\\rgb\\a.bmp"])
def test_flat_names(line):
    assert flat_name(line) == "a"


def test_files_that_are_not_taken(tmp_path):
    root = touch(tmp_path, "1.png", "2.JPG", "3.heic", "4.txt", "5", "._6.heic")
    assert list(list_folder(root)) == ["1", "2"] and list(list_others(root)) == ["3", "4", "5"]
    line = unread(list_others(root), ["1", "2"], "train")
    assert line.startswith("train: 1 image file(s)") and "(1 .heic)" in line and "3.heic" in line
    assert unread(list_others(root), ["1", "3"], "train") is None, "another file of the frame is read"


def test_paths_that_are_spelt_otherwise_on_disk(tmp_path):
    decomposed = unicodedata.normalize("NFD", "größe")
    root = touch(tmp_path, f"{decomposed}/{decomposed}.PNG", "rgb/1.jpg", "rgb/c\\d.jpg", "rgb/A.jpg")
    paths = Paths(root)
    assert paths.find("größe/größe.png") == root / decomposed / f"{decomposed}.PNG"
    assert (
        paths.find("rgb/1.JPG") == paths.find("rgb\\1.jpg") == paths.find(str(root / "rgb/1.jpg")) == root / "rgb/1.jpg"
    )
    assert paths.find("rgb/c\\d.jpg") == root / "rgb/c\\d.jpg", "a name may hold a backslash here"
    assert not paths.find("rgb/a.jpg").exists() or os.path.exists(root / "RGB"), "the case of names matters"
    assert not paths.find("no/such").exists()


def test_many_missing_paths_list_a_folder_once(tmp_path, monkeypatch):
    root, scandir, listed = touch(tmp_path, "rgb/1.jpg"), os.scandir, []
    monkeypatch.setattr(os, "scandir", lambda path: listed.append(path) or scandir(path))
    paths = Paths(root)
    assert not any(paths.find(f"rgb/{k}.jpg").exists() for k in range(5, 50))
    assert len(listed) == 1


def test_what_is_near_a_path(tmp_path):
    touch(tmp_path, "Train/RGB/1.png")
    if (tmp_path / "train").exists():
        pytest.skip("this file system does not tell upper from lower case")
    assert "'Train' is there: the case of letters matters" in nearest_path(tmp_path / "train" / "RGB")
    assert "Did you mean 'RGB'?" in nearest_path(tmp_path / "Train" / "RGBs")
    assert nearest_path(tmp_path / "Train" / "zz") == "" and nearest_path(tmp_path / "Train") == ""


def test_folders_that_lie_where_one_was_expected_are_named(tmp_path):
    for name in ("visible", "infrared"):
        (tmp_path / name).mkdir()
    (tmp_path / "read_me.txt").touch()
    assert folders_beside(tmp_path / "vi" / "night") == " Folders there: infrared, visible."
    assert folders_beside(tmp_path / "visible" / "vi") == ""


def test_incomplete_splits_say_what_was_seen():
    place = Path("rgb")
    with pytest.raises(DataError) as caught:
        check_complete(Path("train.txt"), {place: ["A", "b", "c"]}, {(place, name): f"why {name}" for name in "Abc"})
    assert "3 without a file in rgb: A, b, c. Seen there: A: why A; b: why b; and 1 more" in str(caught.value)
    check_complete(Path("train.txt"), {place: []})


def test_room(tmp_path, monkeypatch):
    require_room(tmp_path / "not" / "yet", 1, "x")
    with pytest.raises(MachineError, match="MB are needed and .* are free; name another") as caught:
        require_room(tmp_path / "not" / "yet", 1 << 80, "name another")
    assert caught.value.exit_code == 3
