from __future__ import annotations

import errno
import json
import logging
import multiprocessing
import os
import pickle
import shutil
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from mdg.data import TrainLoader, build_dataset, cache
from mdg.data.datasets.mfnet import MFNet
from mdg.data.synthetic.dataset import Synthetic
from mdg.errors import DataError, MachineError


def build(root: Path, cache_dir: Path, role: str = "train", **options):
    return build_dataset({"type": "MFNet", "root": root, "cache": "packed", "cache_dir": cache_dir, **options}, role)


def packed_folders(cache_dir: Path) -> list[Path]:
    return sorted(path for path in cache_dir.iterdir() if path.is_dir())


def assert_equal_frames(first, second) -> None:
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert a.name == b.name
        for part in ("rgb_HW3", "thermal_HW", "label_HW"):
            np.testing.assert_array_equal(getattr(a, part), getattr(b, part))
            assert getattr(a, part).dtype == np.uint8


@pytest.fixture
def no_decoding(monkeypatch):
    """Any further decoding of a file is an error."""

    def forbid():
        monkeypatch.setattr(MFNet, "read", lambda self, index: pytest.fail("decoded again"))

    return forbid


@pytest.mark.parametrize("kind", ["packed", "ram"])
@pytest.mark.parametrize("role", ["train", "val", "test"])
def test_frames_equal_those_of_the_files(packed, tmp_path, kind, role):
    plain = build_dataset({"type": "MFNet", "root": packed}, role)
    assert_equal_frames(build(packed, tmp_path / "cache", role, cache=kind), plain)


def test_second_run_decodes_nothing(packed, tmp_path, no_decoding):
    first = list(build(packed, tmp_path / "cache"))
    no_decoding()
    assert_equal_frames(build(packed, tmp_path / "cache"), first)


def test_ram_decodes_once(packed, tmp_path, no_decoding):
    dataset = build(packed, tmp_path / "cache", cache="ram")
    no_decoding()
    assert len(list(dataset)) == 6 and not (tmp_path / "cache").exists()


def test_default_folder_lies_in_the_root(packed):
    build(packed, None)
    assert len(packed_folders(packed / ".mdg_cache")) == 1


def test_images_of_different_sizes(packed, tmp_path):
    for name, height in (("00001N", 31), ("00004D", 77)):
        for folder, shape in (("images", (height, 50, 4)), ("labels", (height, 50))):
            image = np.random.default_rng(height).integers(0, 9, shape, dtype=np.uint8)
            cv2.imwrite(str(packed / folder / f"{name}.png"), image)
    dataset = build(packed, tmp_path / "cache")
    assert_equal_frames(dataset, build_dataset({"type": "MFNet", "root": packed}, "train"))
    assert {frame.label_HW.shape for frame in dataset} == {(48, 64), (31, 50), (77, 50)}


@pytest.mark.parametrize("change", ["size", "mtime"])
def test_changed_source_is_packed_again_and_the_old_pack_goes(packed, tmp_path, change):
    old = build(packed, tmp_path / "cache")
    before = packed_folders(tmp_path / "cache")
    file = packed / "labels" / "00000D.png"
    if change == "size":
        cv2.imwrite(str(file), np.full((48, 64), 7, np.uint8))
    else:
        label = np.array(old[0].label_HW)
        label[0, 0] = 8 - label[0, 0]
        cv2.imwrite(str(file), label)
        status = file.stat()
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000_000))
    new = build(packed, tmp_path / "cache")
    after = packed_folders(tmp_path / "cache")
    assert len(after) == 1 and after != before
    assert_equal_frames(new, build_dataset({"type": "MFNet", "root": packed}, "train"))
    assert not np.array_equal(new[0].label_HW, old[0].label_HW)  # what was open still shows the old frame


@pytest.mark.parametrize("options", [{"limit": 2}, {"thermal_scaling": {"mode": "minmax"}}, {"test_split": "val"}])
def test_what_shapes_the_frames_is_part_of_the_key(packed, tmp_path, options):
    build(packed, tmp_path / "cache")
    plain = build_dataset({"type": "MFNet", "root": packed, **options}, "train")
    assert_equal_frames(build(packed, tmp_path / "cache", **options), plain)
    # Where the test split lies changes no training frame.
    assert len(packed_folders(tmp_path / "cache")) == (1 if "test_split" in options else 2)


def test_cached_frames_cannot_be_changed(packed, tmp_path):
    for kind in ("packed", "ram"):
        with pytest.raises(ValueError, match="read-only"):
            build(packed, tmp_path / "cache", cache=kind)[0].rgb_HW3[0, 0] = 1


def test_pickles_as_a_path(packed, tmp_path):
    dataset = build(packed, tmp_path / "cache")
    assert len(pickle.dumps(dataset._kept)) < 1000  # and not the pixels
    assert_equal_frames(pickle.loads(pickle.dumps(dataset)), dataset)


def test_loader_reads_from_the_cache_in_its_processes(packed, tmp_path, no_decoding):
    plain = build_dataset({"type": "MFNet", "root": packed}, "train")
    options = {"batch_size": 2, "seed": 0, "prefetch": 2}
    expected = [batch.rgb_B3HW for batch in TrainLoader(plain, [], workers=0, **options).epoch(0)]
    dataset = build(packed, tmp_path / "cache")
    no_decoding()
    for workers in (0, 2):
        got = [batch.rgb_B3HW for batch in TrainLoader(dataset, [], workers=workers, **options).epoch(0)]
        assert all((a == b).all() for a, b in zip(got, expected, strict=True))


def _open_and_sum(root: str, cache_dir: str, barrier, results) -> None:
    reads = 0
    read = MFNet.read

    def counted(self, index):
        nonlocal reads
        reads += 1
        return read(self, index)

    MFNet.read = counted
    barrier.wait()
    dataset = build(Path(root), Path(cache_dir))
    results.put((reads, sum(int(frame.rgb_HW3.sum()) for frame in dataset)))


def test_processes_at_once_pack_once(packed, tmp_path):
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(3), context.Queue()
    arguments = (str(packed), str(tmp_path / "cache"), barrier, results)
    processes = [context.Process(target=_open_and_sum, args=arguments) for _ in range(3)]
    for process in processes:
        process.start()
    got = sorted(results.get(timeout=60) for _ in processes)
    for process in processes:
        process.join()
    assert [reads for reads, _ in got] == [0, 0, 6]
    assert len({total for _, total in got}) == 1
    assert len(packed_folders(tmp_path / "cache")) == 1


def test_a_build_that_dies_leaves_no_pack(packed, tmp_path, monkeypatch):
    whole = MFNet.read

    def dies(self, index):
        if index == 4:
            raise KeyboardInterrupt
        return whole(self, index)

    monkeypatch.setattr(MFNet, "read", dies)
    with pytest.raises(KeyboardInterrupt):
        build(packed, tmp_path / "cache")
    assert packed_folders(tmp_path / "cache") == []
    monkeypatch.setattr(MFNet, "read", whole)
    assert len(list(build(packed, tmp_path / "cache"))) == 6


def test_leftover_of_a_killed_build_is_swept(packed, tmp_path):
    build(packed, tmp_path / "cache")
    (folder,) = packed_folders(tmp_path / "cache")
    leftover = folder.with_name(folder.name.rsplit("-", 1)[0] + "-partial-x1")
    shutil.move(folder, leftover)
    assert_equal_frames(build(packed, tmp_path / "cache"), build_dataset({"type": "MFNet", "root": packed}, "train"))
    assert packed_folders(tmp_path / "cache") == [folder]


def test_damaged_file_is_named(packed, tmp_path):
    (packed / "images" / "00003N.png").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"00003N\.png"):
        build(packed, tmp_path / "cache")
    assert packed_folders(tmp_path / "cache") == []


def test_no_room(packed, tmp_path, monkeypatch):
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(100, 99, 1))
    with pytest.raises(MachineError, match="data.cache_dir") as caught:
        build(packed, tmp_path / "cache")
    assert caught.value.exit_code == 3 and packed_folders(tmp_path / "cache") == []


def test_a_disk_that_fills_up_leaves_nothing(packed, tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cache.os, "fsync", full)
    with pytest.raises(MachineError, match=r"No space left on device.*data\.cache_dir"):
        build(packed, tmp_path / "cache")
    assert packed_folders(tmp_path / "cache") == []


# --- damage ------------------------------------------------------------------------------------------------------


def flip(file: Path, at: int) -> None:
    content = bytearray(file.read_bytes())
    content[at] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    "damage, reason",
    [
        (lambda folder: (folder / "index.json").write_bytes(b""), "cannot be read"),
        (lambda folder: (folder / "index.json").write_bytes(b"[1, 2]"), "cannot be read"),
        (lambda folder: (folder / "index.json").write_bytes(b"\xff\x00"), "cannot be read"),
        (lambda folder: (folder / "index.json").unlink(), "cannot be read"),
        (
            lambda folder: flip(folder / "index.json", (folder / "index.json").read_bytes().index(b"00001N")),
            "index.json",
        ),
        (lambda folder: os.truncate(folder / "frames.u8", 1000), "1000 bytes, expected"),
        (lambda folder: os.truncate(folder / "frames.u8", 0), "0 bytes, expected"),
        (lambda folder: (folder / "frames.u8").unlink(), "cannot be read"),
    ],
)
def test_a_damaged_pack_is_made_again_with_one_line(packed, tmp_path, caplog, damage, reason):
    plain = build(packed, tmp_path / "cache")
    (folder,) = packed_folders(tmp_path / "cache")
    damage(folder)
    with caplog.at_level(logging.WARNING, "mdg.data"):
        again = build(packed, tmp_path / "cache")
    (line,) = caplog.messages
    assert str(folder) in line and reason in line and "packed again" in line
    assert_equal_frames(again, build_dataset({"type": "MFNet", "root": packed}, "train"))
    assert len(plain) == 6 and packed_folders(tmp_path / "cache") == [folder]


def test_no_bit_of_a_pack_can_flip_unnoticed(packed, tmp_path, caplog):
    """Frames with a flipped bit come from their files, and the next run packs again."""
    plain = build_dataset({"type": "MFNet", "root": packed}, "train")
    build(packed, tmp_path / "cache")
    (folder,) = packed_folders(tmp_path / "cache")
    size = (folder / "frames.u8").stat().st_size
    for at in (0, size // 2, size - 1):
        flip(folder / "frames.u8", at)
    dataset = build(packed, tmp_path / "cache")
    with caplog.at_level(logging.WARNING, "mdg.data"):
        assert_equal_frames(dataset, plain)
        assert_equal_frames(pickle.loads(pickle.dumps(dataset)), plain)
    assert [message for message in caplog.messages if "00000D is damaged" in message] and len(caplog.messages) == 1
    caplog.clear()
    with caplog.at_level(logging.WARNING, "mdg.data"):
        assert_equal_frames(build(packed, tmp_path / "cache"), plain)
    assert len(caplog.messages) == 1 and "packed again" in caplog.messages[0]
    assert not (folder / "damaged").exists()


def test_home_of_the_cache_is_expanded(packed, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    build(packed, Path("~/cache"))
    assert len(packed_folders(tmp_path / "cache")) == 1


def test_folder_that_cannot_be_made(packed, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="data.cache_dir"):
        build(packed, tmp_path / "file" / "cache")


def test_generated_scenes_are_rendered_once(tmp_path, monkeypatch):
    options = {"type": "Synthetic", "height": 32, "width": 48, "train_images": 5}
    plain = list(build_dataset(options, "train"))
    cached = {**options, "cache": "packed", "cache_dir": tmp_path}
    build_dataset(cached, "train")
    monkeypatch.setattr(Synthetic, "read", lambda self, index: pytest.fail("rendered again"))
    assert_equal_frames(build_dataset(cached, "train"), plain)
    with pytest.raises(pytest.fail.Exception):
        build_dataset({**cached, "seed": 1}, "train")


def test_index_is_plain(packed, tmp_path):
    build(packed, tmp_path / "cache")
    (folder,) = packed_folders(tmp_path / "cache")
    content = json.loads((folder / "index.json").read_text())
    assert content["format"] == cache.FORMAT and content["frames"][1][:4] == ["00001N", 48 * 64 * 5, 48, 64]
    start, end = 48 * 64 * 5, 2 * 48 * 64 * 5
    assert content["frames"][1][4] == zlib.crc32((folder / "frames.u8").read_bytes()[start:end])
    assert (folder / "frames.u8").stat().st_size == 6 * 48 * 64 * 5
