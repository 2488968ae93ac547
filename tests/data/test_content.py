"""What says whether the data of two runs, or two copies of a data set, are the same."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import pytest

from mdg.data import build_dataset
from mdg.data.base import hash_of_names
from mdg.data.datasets.mfnet import MFNet
from mdg.errors import DataError
from mdg.options.datasets import MFNetOptions


def state(root: Path, role: str = "val") -> dict[str, str]:
    return MFNet(MFNetOptions(root=root), role=role).content_state()


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.fixture
def copy(packed, tmp_path) -> Path:
    """The same files at another place and, as copies are, of another time."""
    shutil.copytree(packed, tmp_path / "copy", copy_function=shutil.copyfile)
    for file in (tmp_path / "copy").rglob("*.png"):
        os.utime(file, ns=(1_000_000_000, 1_000_000_000))
    return tmp_path / "copy"


def test_state_by_hand(packed):
    (packed / "val.txt").write_text("00007N\n00006D\n")
    rows, times = [], []
    for name in ("00006D", "00007N"):
        stats = [(packed / folder / f"{name}.png").stat() for folder in ("images", "labels")]
        rows.append(f"{name}\0{[stat.st_size for stat in stats]}")
        times.append(f"{name}\0{[(stat.st_size, stat.st_mtime_ns) for stat in stats]}")
    expected = {"names": sha("00006D\n00007N"), "sizes": sha("\n".join(rows)), "times": sha("\n".join(times))}
    assert state(packed) == expected


def test_a_copy_differs_in_its_times_alone(packed, copy):
    first, second = state(packed), state(copy)
    assert first["names"] == second["names"] and first["sizes"] == second["sizes"] and first["times"] != second["times"]
    assert (
        MFNet(MFNetOptions(root=packed), role="val").content_hash()
        == MFNet(MFNetOptions(root=copy), role="val").content_hash()
    )


def test_the_order_of_a_list_does_not_matter(packed):
    before, content = state(packed), MFNet(MFNetOptions(root=packed), role="val").content_hash()
    lines = (packed / "val.txt").read_text().split()
    (packed / "val.txt").write_text("\n".join(reversed(lines)))
    assert state(packed) == before and MFNet(MFNetOptions(root=packed), role="val").content_hash() == content


def test_one_byte_more_changes_the_sizes(packed, copy):
    file = copy / "labels" / "00006D.png"
    file.write_bytes(file.read_bytes() + b"\0")
    assert state(copy)["names"] == state(packed)["names"] and state(copy)["sizes"] != state(packed)["sizes"]
    assert state(copy, "test")["sizes"] == state(packed, "test")["sizes"], "the file is none of the test split"


def test_another_byte_changes_the_content_alone(packed, copy):
    file = copy / "labels" / "00006D.png"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert state(copy)["sizes"] == state(packed)["sizes"]
    assert (
        MFNet(MFNetOptions(root=copy), role="val").content_hash()
        != MFNet(MFNetOptions(root=packed), role="val").content_hash()
    )


def test_a_file_that_is_gone(packed):
    dataset = MFNet(MFNetOptions(root=packed), role="val")
    (packed / "labels" / "00006D.png").unlink()
    for action in (dataset.content_state, dataset.content_hash):
        with pytest.raises(DataError, match=r"00006D\.png: (cannot be read|No such file)"):
            action()


def test_generated_frames_are_their_options():
    options = {"type": "Synthetic", "height": 32, "width": 48, "val_images": 3}
    dataset = build_dataset(options, "val")
    assert set(dataset.content_state().values()) == {dataset.fingerprint()} == {dataset.content_hash()}
    for change in ({"seed": 1}, {"width": 64}, {"val_images": 4}):
        assert build_dataset({**options, **change}, "val").content_hash() != dataset.content_hash()


def test_hashes_of_names_are_what_they_always_were():
    assert hash_of_names(["b", "a", "ü"]) == sha("a\nb\nü")
