"""Copies of the three data sets as found in the wild, brought into the folders that the loaders expect."""

from __future__ import annotations

import errno
import gzip
import importlib.util
import io
import os
import shutil
import sys
import tarfile
import unicodedata
import zipfile
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
import pytest
from layouts import write_fmb, write_pst900

from mdg.data import build_dataset
from mdg.data.datasets.mfnet import MFNet
from mdg.data.prepare import FMBLayouts, MFNetLayouts, PST900Layouts, prepare
from mdg.data.prepare.archives import open_source
from mdg.data.prepare.plan import Item
from mdg.data.prepare.report import SplitCount, published_lines
from mdg.data.prepare.source import safe_path
from mdg.data.prepare.transfer import transfer
from mdg.errors import DataError, MachineError, UserError
from mdg.options.datasets import MFNetOptions

KINDS = ("folder", "zip", "tar", "tar.gz")
Files = dict[str, bytes]


def png(text: str) -> bytes:
    """A tiny image that differs between texts."""
    pixels_HW = np.frombuffer(text.encode().ljust(48, b"."), np.uint8)[:48].reshape(6, 8)
    return cv2.imencode(".png", pixels_HW)[1].tobytes()


def pngs(folder: str, names: str, salt: str = "") -> Files:
    return {f"{folder}/{name}.png": png(f"{salt or folder}{name}") for name in names.split()}


def lists(**splits: str) -> Files:
    return {f"{split}.txt": "".join(f"{name}\n" for name in names.split()).encode() for split, names in splits.items()}


def below(prefix: str, files: Files) -> Files:
    return {f"{prefix}{name}": content for name, content in files.items()}


def write_folder(root: Path, files: Files) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def write_tar(file: Path, files: Files) -> Path:
    with tarfile.open(file, "w:gz" if file.suffix != ".tar" else "w:") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file


def write_zip(file: Path, files: Files, compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return file


def write(place: Path, kind: str, files: Files, name: str = "copy") -> Path:
    place.mkdir(parents=True, exist_ok=True)
    if kind == "folder":
        return write_folder(place / name, files)
    return (write_zip if kind == "zip" else write_tar)(place / f"{name}.{kind}", files)


def tree_of(root: Path) -> Files:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def state_of(root: Path) -> dict:
    return {path: (path.lstat().st_mtime_ns, path.lstat().st_ino) for path in [root, *root.rglob("*")]}


def run(layouts, sources: Path | list[Path], destination: Path, **options) -> Files:
    """The tree that comes of it; the sources must be as they were."""
    sources = sources if isinstance(sources, list) else [sources]
    before = [(state_of(source), tree_of(source) or source.read_bytes()) for source in sources]
    prepare(layouts, sources, destination, **options)
    assert [(state_of(source), tree_of(source) or source.read_bytes()) for source in sources] == before
    return tree_of(destination)


def error_of(action) -> str:
    with pytest.raises(DataError) as caught:
        action()
    return str(caught.value)


FRAMES = "00001D 00002N 00003D 00004N"
SPLITS = lists(train="00001D", val="00002N", test="00003D 00004N")
MADE = lists(test_day="00003D", test_night="00004N")
PACKED = {**pngs("images", FRAMES), **pngs("labels", FRAMES), **SPLITS}
PST: Files = {}
for _part in ("rgb", "thermal", "thermal_raw", "depth", "labels"):
    PST |= {**pngs(f"train/{_part}", "a b c"), **pngs(f"test/{_part}", "d e")}


@pytest.fixture
def goal(tmp_path: Path) -> Path:
    return tmp_path / "goal"


# --- MFNet -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prefix", ["", "./", "ir_seg_dataset/", "a/MFNet/"])
def test_mfnet_packed(kind, prefix, tmp_path, goal):
    source = write(tmp_path, kind, below(prefix, PACKED))
    assert run(MFNetLayouts(), source, goal) == {**PACKED, **MADE}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "folders", [("RGB", "Thermal", "Label"), ("rgb", "th", "labels"), ("Rgb", "IR", "label")], ids="-".join
)
def test_mfnet_folders_keep_their_files(kind, folders, tmp_path, goal):
    found, expected = dict(SPLITS), {**SPLITS, **MADE}
    for theirs, ours in zip(folders, ("rgb", "thermal", "labels"), strict=True):
        found |= pngs(theirs, FRAMES, ours)
        expected |= pngs(ours, FRAMES, ours)
    assert run(MFNetLayouts(), write(tmp_path, kind, found), goal) == expected


def test_published_lists_of_day_and_night_are_kept(tmp_path, goal):
    given = {**PACKED, "test_day.txt": b"00003D\r\n", "train_day.txt": b"00001D\n"}
    result = run(MFNetLayouts(), write(tmp_path, "zip", given), goal)
    assert result == {**given, "test_night.txt": b"00004N\n"}


def test_split_files_in_a_subfolder_and_the_nearest_ones(tmp_path, goal):
    images = {name: content for name, content in PACKED.items() if name.endswith(".png")}
    files = {**below("x/MF/", images), **below("x/MF/splits/", SPLITS), **below("old/", lists(train="q", test="r"))}
    assert run(MFNetLayouts(), write(tmp_path, "zip", files), goal) == {**PACKED, **MADE}


def test_two_equally_near_sets_of_split_files(tmp_path, goal):
    images = {name: content for name, content in PACKED.items() if name.endswith(".png")}
    source = write(tmp_path, "folder", {**images, **below("one/", SPLITS), **below("two/", SPLITS)})
    message = error_of(lambda: run(MFNetLayouts(), source, goal))
    assert "one/" in message and "two/" in message and not goal.exists()


def test_flip_names_are_kept_and_count(tmp_path, goal, capsys):
    files = {**PACKED, **pngs("images", "00001D_flip"), "train.txt": b"00001D\n00001D_flip\n00002N_flip\n"}
    assert run(MFNetLayouts(), write(tmp_path, "zip", files), goal) == {**files, **MADE}
    printed = capsys.readouterr().out
    assert "2 names of train.txt end in _flip" in printed and "incomplete" not in printed


def test_names_that_tell_neither_day_nor_night(tmp_path, goal):
    files = {**pngs("images", "a b"), **pngs("labels", "a b"), **lists(train="a", val="a", test="b")}
    assert run(MFNetLayouts(), write(tmp_path, "zip", files), goal) == files


def test_clutter_is_not_taken(tmp_path, goal, capsys):
    clutter = {
        "__MACOSX/images/._00001D.png": b"x",
        "images/.DS_Store": b"x",
        "images/._00001D.png": b"x",
        "images/Thumbs.db": b"x",
        "make_flip.py": b"x",
        "images/old/00009D.png": b"x",
    }
    assert run(MFNetLayouts(), write(tmp_path, "zip", {**PACKED, **clutter}), goal) == {**PACKED, **MADE}
    assert "left where they are: 2 files: make_flip.py, images/old/ (1)" in capsys.readouterr().out


def test_two_copies_in_one_source(tmp_path, goal):
    source = write(tmp_path, "zip", {**below("one/", PACKED), **below("two/", PACKED)})
    message = error_of(lambda: run(MFNetLayouts(), source, goal))
    assert "one/" in message and "two/" in message


def test_folders_that_differ_in_case_only(tmp_path, goal):
    source = write(tmp_path, "zip", {**PACKED, **pngs("Images", "00001D", "other")})
    message = error_of(lambda: run(MFNetLayouts(), source, goal))
    assert "two files for images/00001D.png" in message and "Images/00001D.png" in message


def test_the_loader_reads_what_was_prepared(packed, tmp_path, goal):
    files = tree_of(packed)
    run(MFNetLayouts(), write(tmp_path / "in", "tar.gz", below("MFNet/", files)), goal)
    for role in ("train", "val", "test"):
        prepared, original = MFNet(MFNetOptions(root=goal), role=role), MFNet(MFNetOptions(root=packed), role=role)
        assert prepared.fingerprint() == original.fingerprint()
        np.testing.assert_array_equal(prepared[0].thermal_HW, original[0].thermal_HW)
    assert MFNet(MFNetOptions(root=goal, test_split="test_night"), role="test").names == ["00009N", "00011N"]


# --- PST900 and FMB ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prefix", ["", "PST900_RGBT_Dataset/"])
def test_pst900_as_published(kind, prefix, tmp_path, goal):
    assert run(PST900Layouts(), write(tmp_path, kind, below(prefix, PST)), goal) == PST


def test_pst900_other_case_and_only_what_is_necessary(tmp_path, goal, capsys):
    found, expected = {}, {}
    for split, frames in (("train", "a b"), ("test", "c")):
        for theirs, ours in (("RGB", "rgb"), ("Thermal", "thermal"), ("Label", "labels")):
            found |= pngs(f"{split.title()}/{theirs}", frames, ours)
            expected |= pngs(f"{split}/{ours}", frames, ours)
    assert run(PST900Layouts(), write(tmp_path, "zip", found), goal) == expected
    assert "thermal_raw" not in capsys.readouterr().out


@pytest.mark.parametrize("kind", KINDS)
def test_pst900_flat_is_sorted_by_its_lists(kind, tmp_path, goal, capsys):
    found = {**lists(train="a b.png", test="rgb/c.png missing"), "val.txt": b"d\n"}
    found["train.txt"] = b"\xef\xbb\xbf" + found["train.txt"].replace(b"\n", b"\r\n") + b"\r\n"  # as some editors do
    expected = {}
    for theirs, ours in (("rgb", "rgb"), ("thermal", "thermal"), ("label", "labels")):
        found |= pngs(theirs, "a b c d", ours)
        expected |= {**pngs(f"train/{ours}", "a b", ours), **pngs(f"test/{ours}", "c", ours)}
    assert run(PST900Layouts(), write(tmp_path, kind, below("PST/", found)), goal) == expected
    printed = capsys.readouterr().out
    assert "1 frames stand in neither list and are left out: d" in printed
    assert "incomplete in test: 1 of 2 frames: missing (no rgb, thermal, labels)" in printed


def test_pst900_flat_with_a_frame_in_both_lists(tmp_path, goal):
    files = {k: v for part in ("rgb", "thermal", "labels") for k, v in pngs(part, "a b").items()}
    source = write(tmp_path, "folder", {**files, **lists(train="a b", test="b")})
    assert "1 frames stand in train.txt and in test.txt: b" in error_of(lambda: run(PST900Layouts(), source, goal))
    assert not goal.exists()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prefix", ["", "FMB/"])
@pytest.mark.parametrize(
    "folders",
    [("Visible", "Infrared", "Label", "color"), ("visible", "infrared", "label", "Color"), ("VI", "ir", "label", None)],
)
def test_fmb(kind, prefix, folders, tmp_path, goal):
    found, expected = {}, {}
    for split, frames in (("train", "00001 00002"), ("test", "00003")):
        for theirs, ours in zip(folders, ("Visible", "Infrared", "Label", "color"), strict=True):
            if theirs:
                found |= pngs(f"{prefix}{split}/{theirs}", frames, ours)
                expected |= pngs(f"{split}/{ours}", frames, ours)
    assert run(FMBLayouts(), write(tmp_path, kind, found), goal) == expected


@pytest.mark.parametrize(
    "layouts, name, write_copy", [(PST900Layouts, "PST900", write_pst900), (FMBLayouts, "FMB", write_fmb)]
)
def test_the_loaders_read_what_was_prepared(layouts, name, write_copy, tmp_path, goal):
    copy = write_copy(tmp_path / "copy")
    renamed = {name.lower().replace("labels/", "label/"): content for name, content in tree_of(copy).items()}
    assert run(layouts(), write(tmp_path / "in", "tar.gz", below("top/", renamed)), goal) == tree_of(copy)
    prepared, original = (build_dataset({"type": name, "root": root}, "test") for root in (goal, copy))
    assert len(prepared) == 3
    np.testing.assert_array_equal(prepared[2].label_HW, original[2].label_HW)


@pytest.mark.parametrize("kind", KINDS)
def test_bare_archives_named_after_their_split(kind, tmp_path, goal):
    # Equal names in both splits: only the names of the archives tell them apart.
    parts = {split: {n: c for p in ("rgb", "thermal", "labels") for n, c in pngs(p, "a b", split + p).items()}
             for split in ("train", "test")}  # fmt: skip
    sources = [write(tmp_path, kind, files, name=split) for split, files in parts.items()]
    assert run(PST900Layouts(), sources, goal) == {**below("train/", parts["train"]), **below("test/", parts["test"])}


def test_parts_of_one_download(tmp_path, goal):
    names = sorted(below("PST900/", PST))
    halves = [{n: PST[n.removeprefix("PST900/")] for n in names[start::2]} for start in (0, 1)]
    sources = [write(tmp_path, "zip", half, name=f"PST900-2024-00{i}") for i, half in enumerate(halves)]
    assert run(PST900Layouts(), sources, goal) == PST


def test_an_archive_per_folder(tmp_path, goal):
    files = {part: {f"{name}.png": png(part + name) for name in FRAMES.split()} for part in ("images", "labels")}
    sources = [write(tmp_path, "zip", content, name=part) for part, content in files.items()]
    sources.append(write(tmp_path, "folder", SPLITS, name="splits"))
    assert run(MFNetLayouts(), sources, goal) == {**PACKED, **MADE}


def test_splits_prepared_one_after_the_other(tmp_path, goal, capsys):
    for split in ("train", "test"):
        part = {name: content for name, content in PST.items() if name.startswith(split)}
        run(PST900Layouts(), write(tmp_path, "zip", part, name=split), goal)
    assert tree_of(goal) == PST
    assert "counts of PST900 (train/test): 3/2;" in capsys.readouterr().out


def test_names_written_by_windows(tmp_path, goal):
    file = write_zip(tmp_path / "copy.zip", {name.replace("/", "\\"): content for name, content in PST.items()})
    assert run(PST900Layouts(), file, goal) == PST


# --- stopping and going on ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError(errno.ENOSPC, "No space left on device")])
def test_an_interrupted_run_goes_on(kind, stop, tmp_path, goal, monkeypatch, capsys):
    source, replace, done = write(tmp_path, kind, PACKED), os.replace, []

    def replace_five(partial, target):
        if len(done) == 5:
            raise stop
        done.append(target)
        replace(partial, target)

    with monkeypatch.context() as patch, pytest.raises((KeyboardInterrupt, MachineError)) as stopped:
        patch.setattr(os, "replace", replace_five)
        run(MFNetLayouts(), source, goal)
    if stopped.type is MachineError:
        assert stopped.value.exit_code == 3 and "finished files are kept" in str(stopped.value)
    finished, state = tree_of(goal), {path: s for path, s in state_of(goal).items() if path.is_file()}
    assert len(finished) == 5 and finished.items() <= {**PACKED, **MADE}.items()
    assert run(MFNetLayouts(), source, goal) == {**PACKED, **MADE}
    assert state.items() <= state_of(goal).items(), "a finished file was written again"
    assert "8 files copied" in capsys.readouterr().out


def test_a_file_left_half_written_is_made_again(tmp_path, goal):
    source = write(tmp_path, "folder", PACKED)
    (goal / "images").mkdir(parents=True)
    (goal / "images" / ".mdg-1-abc.partial").write_bytes(b"half")
    (goal / "images" / ".mdg-2-abc.partial").symlink_to(source / "images" / "00003D.png")
    (goal / ".mdg-3-abc.partial").write_bytes(b"half a list")
    assert run(MFNetLayouts(), source, goal) == {**PACKED, **MADE}


def test_a_second_run_has_nothing_to_do(tmp_path, goal, capsys):
    source = write(tmp_path, "tgz", PACKED)
    run(MFNetLayouts(), source, goal)
    state = state_of(goal)
    run(MFNetLayouts(), source, goal)
    assert state_of(goal) == state
    assert "0 files copied (0.0 MB in all), 13 there already" in capsys.readouterr().out


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "folder"])
@pytest.mark.parametrize("share", [0.001, 0.5, 0.9])
def test_truncated_archive(kind, share, tmp_path, goal):
    # The last percents of a tar are padding, where a cut loses no file.
    train = {name: content for name, content in PST.items() if name.startswith("train")}
    run(PST900Layouts(), write(tmp_path, "zip", train, name="train"), goal)
    rest = {**PST, "test/notes.bin": np.random.default_rng(0).bytes(200_000)}
    source = write(tmp_path, kind, rest)
    whole = source.read_bytes()
    source.write_bytes(whole[: int(share * len(whole))])
    message = error_of(lambda: run(PST900Layouts(), source, goal))
    assert str(source) in message and "get it again" in message and "repeat the command" in message
    assert tree_of(goal) == train
    source.write_bytes(whole)
    assert run(PST900Layouts(), source, goal) == PST


def test_tar_cut_between_two_files(tmp_path, goal):
    source = write(tmp_path, "tar", PST)
    with tarfile.open(source) as archive:
        cut = archive.getmembers()[-1].offset
    source.write_bytes(source.read_bytes()[:cut])
    assert "end mark" in error_of(lambda: run(PST900Layouts(), source, goal))


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_damaged_member(kind, tmp_path, goal):
    files = {**PACKED, "images/00004N.png": np.random.default_rng(1).bytes(100_000)}
    if kind == "zip":
        source = write_zip(tmp_path / "copy.zip", files, zipfile.ZIP_STORED)
    else:
        source = write(tmp_path, kind, files)
    whole = source.read_bytes()
    at = whole.index(files["images/00004N.png"][5000:5050]) if kind == "zip" else len(whole) // 2
    source.write_bytes(whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :])
    message = error_of(lambda: run(MFNetLayouts(), source, goal))
    assert str(source) in message and (kind != "zip" or "images/00004N.png" in message)
    finished = tree_of(goal)
    assert finished.items() <= {**files, **MADE}.items() and (kind != "zip" or len(finished) > 3)
    source.write_bytes(whole)
    assert run(MFNetLayouts(), source, goal) == {**files, **MADE}


@pytest.mark.parametrize("content", [b"shorter", b"longer than it was when it was listed"])
def test_a_file_that_changed_since_it_was_listed(content, tmp_path, goal):
    source = open_source(write(tmp_path, "folder", {"a.png": b"as it was listed"}))
    (source.origin / "a.png").write_bytes(content)
    items = [Item(PurePosixPath("b/a.png"), entry) for entry in source.entries]
    message = error_of(lambda: transfer(items, goal, link=False, advance=lambda size: None, say=print))
    assert "a.png" in message and "expected 16" in message and tree_of(goal) == {}


def test_encrypted_and_mislabelled_archives(tmp_path, goal):
    source = write(tmp_path, "zip", PACKED)
    data = bytearray(source.read_bytes())
    with zipfile.ZipFile(source) as archive:
        for info in archive.infolist():
            data[info.header_offset + 6] |= 1
    at = 0
    while (at := data.find(b"PK\x01\x02", at)) >= 0:
        data[at + 8] |= 1
        at += 4
    source.write_bytes(data)
    assert "encrypted" in error_of(lambda: run(MFNetLayouts(), source, goal))
    assert "7z x" in error_of(lambda: run(MFNetLayouts(), source, goal))


@pytest.mark.parametrize(
    "name, content, shown",
    [
        ("page.zip", b"<html>too many downloads</html>", "is a web page"),
        ("page.tar.gz", b"\xef\xbb\xbf\r\n <!DOCTYPE HTML><html>", "is a web page"),
        ("answer.zip", b'{"error": "quota"}', "the answer of a server"),
        ("copy.zip", b"", "is empty (0 bytes)"),
        ("copy.zip", b"Rar!\x1a\x07\x00", "a RAR archive"),
        ("copy.tgz", b"7z\xbc\xaf\x27\x1c\x00", "a 7-Zip archive"),
        ("copy.zip", b"BZh91AY", "packed by bzip2"),
        ("copy.tar", b"\xfd7zXZ\x00", "packed by xz"),
        ("copy.tar", b"\x28\xb5\x2f\xfd", "packed by zstd"),
        ("copy.zip", b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
        ("copy.zip", b"%PDF-1.4", "a PDF"),
        ("copy.zip", b"no archive at all", "cannot be read (File is not a zip file)"),
        ("copy.tar", b"no archive at all", "cannot be read"),
        ("copy.rar", b"x", "unpack it"),
        ("copy.zip.001", b"PK\x03\x04", "one of several parts"),
        ("copy.z01", b"PK\x03\x04", "one of several parts"),
        ("copy.part1.rar", b"Rar!", "one of several parts"),
    ],
)
def test_what_is_no_archive_is_told_by_its_first_bytes(name, content, shown, tmp_path, goal):
    (tmp_path / name).write_bytes(content)
    message = error_of(lambda: prepare(MFNetLayouts(), [tmp_path / name], goal))
    assert str(tmp_path / name) in message and shown in message and not goal.exists()


@pytest.mark.parametrize("kind, name", [("zip", "copy.tar.gz"), ("tar.gz", "copy.zip"), ("tar", "download")])
def test_an_archive_under_the_name_of_another_is_read(kind, name, tmp_path, goal):
    source = write(tmp_path, kind, PACKED, name="in").rename(tmp_path / name)
    assert run(MFNetLayouts(), source, goal) == {**PACKED, **MADE}


def test_a_method_that_python_cannot_unpack(tmp_path, goal):
    source = write_zip(tmp_path / "copy.zip", PACKED, zipfile.ZIP_STORED)
    data = source.read_bytes()
    at = data.index(b"PK\x01\x02") + 10
    source.write_bytes(data[:at] + b"\x09\x00" + data[at + 2 :])
    message = error_of(lambda: run(MFNetLayouts(), source, goal))
    assert "method 9" in message and "unpack it (7z x)" in message


# --- bombs -------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_lists(monkeypatch):
    monkeypatch.setenv("MDG_LIMIT_LIST_BYTES", "1000")


@pytest.mark.parametrize("kind", KINDS)
def test_a_list_beyond_the_limit_is_not_read(kind, small_lists, tmp_path, goal):
    source = write(tmp_path, kind, {**PACKED, "train.txt": bytes(3_000_000)})
    message = error_of(lambda: run(MFNetLayouts(), source, goal))
    assert "train.txt: got 3,000,000 bytes of a list of frames" in message and "--limit list_bytes=" in message


def test_a_list_that_is_longer_than_the_zip_says(small_lists, tmp_path, goal):
    """The sizes in the index of a zip are what its author wrote there."""
    source = write_zip(tmp_path / "copy.zip", {**PACKED, "train.txt": bytes(3_000_000)})
    source.write_bytes(source.read_bytes().replace((3_000_000).to_bytes(4, "little"), (5).to_bytes(4, "little")))
    message = error_of(lambda: run(MFNetLayouts(), source, goal))
    assert "train.txt in it cannot be read (Bad CRC-32" in message


def test_a_header_of_gigabytes_is_not_read(tmp_path, goal):
    """tarfile reads an extended header in one piece; 2 GB of zeros are 2 MB of gzip."""
    member = tarfile.TarInfo("pax")
    member.type, member.size = tarfile.XHDTYPE, 1 << 40
    source = tmp_path / "copy.tar.gz"
    with gzip.open(source, "wb") as file:
        file.write(member.tobuf(tarfile.GNU_FORMAT) + bytes(10_000))
    assert "header of" in error_of(lambda: run(MFNetLayouts(), source, goal))


def test_images_that_are_no_images_by_their_size(monkeypatch, tmp_path, goal):
    monkeypatch.setenv("MDG_LIMIT_IMAGE_BYTES", "100000")
    source = write(tmp_path, "zip", {**PACKED, "images/00001D.png": bytes(200_000)})
    message = error_of(lambda: run(MFNetLayouts(), source, goal))
    assert "images/00001D.png: got 200,000 bytes" in message and tree_of(goal) == {}


def test_too_many_files_for_a_data_set(monkeypatch, tmp_path, goal):
    monkeypatch.setenv("MDG_LIMIT_FOLDER_FILES", "5")
    for kind in KINDS:
        message = error_of(lambda kind=kind: run(MFNetLayouts(), write(tmp_path, kind, PACKED), goal))
        assert "got 6 files below a folder or in an archive" in message


def test_no_room_is_seen_before_anything_is_written(monkeypatch, tmp_path, goal):
    monkeypatch.setattr("shutil.disk_usage", lambda folder: shutil._ntuple_diskusage(100, 99, 1))
    source = write(tmp_path, "folder", PACKED)
    with pytest.raises(MachineError, match="are free.*repeat the command") as caught:
        run(MFNetLayouts(), source, goal)
    assert caught.value.exit_code == 3 and not goal.exists()


# --- names of other systems --------------------------------------------------------------------------------------


class RawName(zipfile.ZipInfo):
    """A member whose name is written as bytes that no flag calls UTF-8."""

    def _encodeFilenameFlags(self) -> tuple[bytes, int]:  # noqa: N802  (the name is the standard library's)
        return self.filename.encode("cp437"), 0


def zip_of_raw_names(file: Path, files: dict[bytes, bytes]) -> Path:
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in files.items():
            archive.writestr(RawName(name.decode("cp437")), content)
    return file


@pytest.mark.parametrize("name", ["größe", "背景_01"])
def test_utf8_in_a_zip_that_does_not_say_so(name, tmp_path, goal):
    files = {**pngs("images", name), **pngs("labels", name), **lists(train=name, val=name, test=name)}
    source = zip_of_raw_names(tmp_path / "copy.zip", {place.encode(): content for place, content in files.items()})
    assert run(MFNetLayouts(), source, goal) == files


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no file names that are not UTF-8")
@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_names_that_are_not_utf8_keep_their_bytes(kind, tmp_path, goal, capsys):
    name = os.fsdecode("中".encode("gbk"))
    files = {**pngs("images", "a"), **pngs("labels", "a")}
    files = {place.replace("a.png", f"{name}.png"): content for place, content in files.items()}
    text = "中\n".encode("gbk")
    files |= {"train.txt": text, "val.txt": text, "test.txt": text}
    assert run(MFNetLayouts(), write(tmp_path, kind, files), goal) == files
    assert "incomplete" not in capsys.readouterr().out
    dataset = MFNet(MFNetOptions(root=goal), role="train")
    dataset.require_complete()
    assert dataset.names == [name]


def test_decomposed_names_are_those_of_the_list(tmp_path, goal, capsys):
    plain, decomposed = "für", unicodedata.normalize("NFD", "für")
    assert plain != decomposed
    files = {}
    for part in ("rgb", "thermal", "labels"):
        files |= pngs(part, f"{decomposed} b", part)
    source = write(tmp_path, "zip", {**files, **lists(train=plain, test="b")})
    run(PST900Layouts(), source, goal)
    assert f"train/rgb/{decomposed}.png" in tree_of(goal) and "neither list" not in capsys.readouterr().out


@pytest.mark.parametrize("encode", [lambda text: text.encode("utf-16"), lambda text: b"\xef\xbb\xbf" + text.encode()])
def test_lists_of_other_encodings(encode, tmp_path, goal, capsys):
    files = {**PACKED, **{name: encode(content.decode()) for name, content in SPLITS.items()}}
    assert run(MFNetLayouts(), write(tmp_path, "zip", files), goal) == {**files, **MADE}
    assert "incomplete" not in capsys.readouterr().out
    assert MFNet(MFNetOptions(root=goal), role="test").names == ["00003D", "00004N"]


def test_a_list_that_is_a_web_page(tmp_path, goal):
    source = write(tmp_path, "zip", {**PACKED, "test.txt": b"<!DOCTYPE html><html>404</html>"})
    message = error_of(lambda: run(MFNetLayouts(), source, goal))
    assert f"{source}: test.txt: is a web page" in message


def test_a_name_that_is_too_long_is_one_line(tmp_path, goal):
    source = write(tmp_path, "zip", {**PACKED, f"images/{'x' * 300}.png": b"x"})
    with pytest.raises(UserError, match="name too long.*finished files are kept"):
        run(MFNetLayouts(), source, goal)


# --- names that lead outside -------------------------------------------------------------------------------------

EVIL = ("../evil.png", "/evil.png", "images/../../evil.png", "..\\evil.png", "C:/evil.png", "images/..")


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_names_that_lead_outside_are_not_taken(kind, tmp_path, capsys):
    names = EVIL if kind == "zip" else [name for name in EVIL if "\\" not in name]
    source = write(tmp_path / "in", kind, {**{name: b"evil" for name in names}, **PACKED})
    goal = tmp_path / "deep" / "goal"
    assert run(MFNetLayouts(), source, goal) == {**PACKED, **MADE}
    outside = {path for path in tree_of(tmp_path) if not path.startswith("deep/goal/")}
    assert outside == {f"in/copy.{kind}"} and not Path("/evil.png").exists()
    printed = capsys.readouterr().out
    assert f"control characters: {len(names)}: '../evil.png'" in printed


def test_links_in_archives_are_not_followed(tmp_path, goal, capsys):
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    for source in (write(tmp_path, "zip", PACKED), write(tmp_path, "tar", PACKED)):
        if source.suffix == ".zip":
            link = zipfile.ZipInfo("images/link.png")
            link.external_attr = 0o120777 << 16
            with zipfile.ZipFile(source, "a") as archive:
                archive.writestr(link, str(secret))
        else:
            member = tarfile.TarInfo("images/link.png")
            member.type, member.linkname = tarfile.SYMTYPE, str(secret)
            with tarfile.open(source, "a") as archive:
                archive.addfile(member)
        assert run(MFNetLayouts(), source, goal / source.suffix) == {**PACKED, **MADE}
        assert "'images/link.png'" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["../a", "/a", "a/../b", "..", ".", "", "C:/a", "a\nb", "a\x1b[31mb", "\x7f"])
def test_unsafe_paths(name):
    assert safe_path(name) is None


@pytest.mark.parametrize("name, safe", [("./a//b", "a/b"), ("a..b/c", "a..b/c"), ("12:30/a", "12:30/a")])
def test_safe_paths(name, safe):
    assert str(safe_path(name)) == safe


def test_links_in_folders_are_followed_once(tmp_path, goal):
    store = write(tmp_path / "store", "folder", PACKED)
    source = tmp_path / "source"
    source.mkdir()
    for name in ("images", "labels"):
        (source / name).symlink_to(store / name)
    for name in SPLITS:
        (source / name).symlink_to(store / name)
    (source / "again").symlink_to(source)
    (source / "images_lost").symlink_to(tmp_path / "nowhere")
    assert run(MFNetLayouts(), source, goal, link=True) == {**PACKED, **MADE}
    assert not any(path.is_symlink() for path in goal.rglob("*"))


# --- places that conflict ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("inside", ["", "out", "images", "images/deep/out"])
def test_destination_in_the_source(inside, tmp_path):
    source = write(tmp_path, "folder", PACKED)
    for place in (source / inside, source / ".." / "copy" / inside):
        message = error_of(lambda place=place: run(MFNetLayouts(), source, place))
        assert str(source) in message and "inside the source" in message
    link = tmp_path / "link"
    link.symlink_to(source)
    assert "inside the source" in error_of(lambda: run(MFNetLayouts(), source, link / inside))
    assert tree_of(source) == PACKED


def test_folder_of_the_destination_that_leads_into_the_source(tmp_path, goal):
    source = write(tmp_path, "folder", {**below("MF/", PACKED), **pngs("other", "a")})
    goal.mkdir()
    (goal / "images").symlink_to(source / "other")
    assert "leads into the source" in error_of(lambda: run(MFNetLayouts(), source, goal))


def test_source_in_the_destination(tmp_path, goal):
    source = write(goal / "download", "zip", PACKED)
    assert run(MFNetLayouts(), source, goal) == {**PACKED, **MADE, "download/copy.zip": source.read_bytes()}


def test_destination_that_is_a_file(tmp_path, goal):
    source = write(tmp_path, "folder", PACKED)
    goal.write_bytes(b"x")
    assert f"{goal}: is a file" in error_of(lambda: run(MFNetLayouts(), source, goal))
    goal.unlink()
    goal.mkdir()
    (goal / "images").write_bytes(b"x")
    assert f"{goal / 'images'}: not a folder" in error_of(lambda: run(MFNetLayouts(), source, goal))


@pytest.mark.parametrize("link", [False, True])
def test_another_file_is_never_overwritten(link, tmp_path, goal):
    source = write(tmp_path, "folder", PACKED)
    other = {"images/00002N.png": b"other", "train.txt": b"other list\n", "test_day.txt": b"my own days\n"}
    write_folder(goal, other)
    message = error_of(lambda: run(MFNetLayouts(), source, goal, link=link))
    assert "3 files" in message and "Move them away" in message
    size = len(PACKED["images/00002N.png"])
    assert f"{goal / 'images' / '00002N.png'} (5 bytes, expected {size})" in message
    assert tree_of(goal) == other, "nothing is written where something is in the way"


def test_a_folder_in_the_place_of_a_file(tmp_path, goal):
    source = write(tmp_path, "zip", PACKED)
    (goal / "train.txt").mkdir(parents=True)
    assert f"{goal / 'train.txt'} (not a file)" in error_of(lambda: run(MFNetLayouts(), source, goal))


# --- options -----------------------------------------------------------------------------------------------------


def test_link_shares_the_files(tmp_path, goal, capsys):
    source = write(tmp_path, "folder", {name.replace("images", "Images"): content for name, content in PACKED.items()})
    prepare(MFNetLayouts(), [source], goal, link=True)
    assert tree_of(goal) == {**PACKED, **MADE}
    for name in PACKED:
        assert (goal / name).stat().st_ino == (source / name.replace("images", "Images")).stat().st_ino
    assert "11 files linked, 2 files copied" in capsys.readouterr().out


def test_link_falls_back_to_copies(tmp_path, goal, monkeypatch, capsys):
    def refuse(*_):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    source = write(tmp_path, "folder", PACKED)
    assert run(MFNetLayouts(), source, goal, link=True) == {**PACKED, **MADE}
    printed = capsys.readouterr().out
    assert f"{source}: hard links are not possible (Invalid cross-device link); 11 files are copied instead" in printed
    assert "\n13 files copied" in printed


def test_link_copies_from_archives(tmp_path, goal, capsys):
    assert run(MFNetLayouts(), write(tmp_path, "zip", PACKED), goal, link=True) == {**PACKED, **MADE}
    assert "\n13 files copied" in capsys.readouterr().out


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("link", [False, True])
def test_dry_run_writes_nothing(kind, link, tmp_path, goal, capsys):
    source = write(tmp_path, kind, PACKED)
    run(MFNetLayouts(), source, goal, link=link, dry_run=True)
    assert not goal.exists()
    printed = capsys.readouterr().out
    assert "dry run: 13 files" in printed and "train       1       1       1" in printed


def test_dry_run_on_a_started_destination(tmp_path, goal, capsys):
    write_folder(goal, {"train.txt": PACKED["train.txt"]})
    run(MFNetLayouts(), write(tmp_path, "zip", PACKED), goal, dry_run=True)
    assert list(tree_of(goal)) == ["train.txt"]
    assert "12 files" in (printed := capsys.readouterr().out) and "1 there already" in printed


# --- what is said ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layouts", [MFNetLayouts(), PST900Layouts(), FMBLayouts()])
def test_unknown_layout_shows_what_was_found(layouts, tmp_path, goal):
    files = {**pngs("pictures/day", "a b"), **pngs("pictures/night", "c"), "data.zip": b"x", "readme.txt": b"x"}
    source = write(tmp_path, "folder", files)
    message = error_of(lambda: run(layouts, source, goal))
    assert (
        f"not {layouts.dataset.dataset_name}" in message
        and f"{source}: 5 files" in message
        and layouts.expected in message
    )
    for line in ("pictures/: 3 files", "day/: 2 files", "night/: 1 files", "archives: data.zip"):
        assert line in message
    assert not goal.exists()


def test_mfnet_without_split_files_is_unknown(tmp_path, goal):
    source = write(tmp_path, "folder", {**pngs("images", "a"), **pngs("labels", "a")})
    assert "train.txt, val.txt and test.txt" in error_of(lambda: run(MFNetLayouts(), source, goal))


def test_sources_that_cannot_be_opened(tmp_path, goal):
    assert "no such file" in error_of(lambda: prepare(MFNetLayouts(), [tmp_path / "nowhere.zip"], goal))


def test_labels_count_where_the_loader_reads_them(tmp_path, goal, capsys):
    files = {**PST, "train/labels/a.jpg": b"x"}
    del files["train/labels/a.png"]
    assert run(PST900Layouts(), write(tmp_path, "zip", files), goal) == files
    assert "incomplete in train: 1 of 3 frames: a (no labels)" in capsys.readouterr().out


def test_a_folder_that_may_not_be_listed_is_not_passed_over(tmp_path, goal, monkeypatch):
    source, scandir = write(tmp_path, "folder", PST), os.scandir

    def refuse(path):
        if Path(path).name == "labels":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    message = error_of(lambda: prepare(PST900Layouts(), [source], goal))
    assert message.startswith(f"{source / 'test' / 'labels'}: cannot be listed (Permission denied)")


def test_incomplete_pairs_are_listed(tmp_path, goal, capsys):
    names = [f"f{i:02}" for i in range(14)]
    files = {**pngs("train/Visible", " ".join(names)), **pngs("train/Infrared", " ".join(names[:12])),
             **pngs("train/Label", names[0]), **pngs("test/Visible", "g"), **pngs("test/Infrared", "g"),
             **pngs("test/Label", "g")}  # fmt: skip
    run(FMBLayouts(), write(tmp_path, "folder", files), goal)
    printed = capsys.readouterr().out
    assert "train      14       14        12      1" in printed
    assert "incomplete in train: 13 of 14 frames: f01 (no Label), " in printed
    assert "f05 (no Label) and 8 more" in printed and "f06 (no" not in printed
    assert "incomplete in test" not in printed


@pytest.mark.parametrize(
    "layouts, frames, said",
    [
        (MFNetLayouts, {"train": 784, "val": 392, "test": 393, "test_day": 205}, None),
        (MFNetLayouts, {"train": 1568, "val": 392, "test": 393}, "1568/392/393; published are others"),
        (MFNetLayouts, {"train": 784, "test": 393}, "784/0/393; published are others"),
        (FMBLayouts, {"train": 1220, "test": 280}, None),
        (PST900Layouts, {"train": 606, "test": 288}, "606/288; published counts differ: 597/288 or 597/297 or 606/288"),
        (PST900Layouts, {"train": 606, "test": 297}, "606/297; published are others"),
    ],
)
def test_counts_beside_published_ones(layouts, frames, said):
    counts = [SplitCount(split, number, {}, {}) for split, number in frames.items()]
    lines = published_lines(layouts.dataset, counts)
    assert [said in line for line in lines] == ([True] if said else [])


@pytest.mark.parametrize("dataset, layouts", [("mfnet", MFNetLayouts), ("pst900", PST900Layouts), ("fmb", FMBLayouts)])
def test_scripts(dataset, layouts, repository, tmp_path, capsys):
    spec = importlib.util.spec_from_file_location(dataset, repository / "scripts" / f"prepare_{dataset}.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    with pytest.raises(SystemExit) as stopped:
        script.main([str(tmp_path / name) for name in ("a.zip", "b.zip", "goal")])
    assert stopped.value.code == 2 and f"prepare_{dataset}: error: " in capsys.readouterr().err
    files = {"mfnet": PACKED, "pst900": PST}.get(dataset)
    if files is None:
        folders = [f"{split}/{part}" for split in ("train", "test") for part in layouts.necessary]
        files = {name: content for folder in folders for name, content in pngs(folder, "a").items()}
    goal = tmp_path / "my goal"
    script.main([str(write(tmp_path, "zip", files)), str(goal)])
    assert files.items() <= tree_of(goal).items()
    command = f"next: python tools/check_data.py configs/{dataset}/mdg_b2.yaml --opts 'data.root={goal}'"
    assert capsys.readouterr().out.rstrip().endswith(command)
