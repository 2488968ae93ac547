"""Data sets in shards: what is written, and that it is the data set it was made of."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import tarfile
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from layouts import RAW_SCALING, custom_options

from mdg.data import build_dataset
from mdg.data.base import ROLES
from mdg.data.shards import make
from mdg.data.shards.index import parse_index
from mdg.data.shards.make import Made, Size, make_shards
from mdg.errors import ConfigError, DataError
from mdg.registry import DATASETS

SYNTHETIC = {
    "type": "Synthetic", "height": 32, "width": 40, "train_images": 11, "val_images": 3, "test_images": 4,
}  # fmt: skip
SETS = {
    "packed": lambda root: {"type": "MFNet", "root": root},
    "folders": lambda root: {"type": "MFNet", "root": root},
    "pst900": lambda root: {"type": "PST900", "root": root, "thermal": "thermal_raw", "thermal_scaling": RAW_SCALING},
    "fmb": lambda root: {"type": "FMB", "root": root, "unlabeled": "ignore"},
    "custom": custom_options,
}


def make_from(options: dict, out: Path, frames: int = 4, told=lambda text: None) -> Made:
    return make_shards(DATASETS.parse(options), out, Size(frames, None), told)


def content_of(folder: Path) -> dict[str, bytes]:
    """The files that are the shards; not the notes of how they were made."""
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir()) if file.is_file()}


def members_of(file: Path) -> dict[str, bytes]:
    with tarfile.open(file, "r:") as archive:
        return {member.name: archive.extractfile(member).read() for member in archive}


def assert_same_data_set(original, shards) -> None:
    assert shards.names == original.names and shards.identities() == original.identities()
    assert shards.facts() == original.facts() and shards.fingerprint() == original.fingerprint()
    assert shards.scoring_rules() == original.scoring_rules() and shards.background == original.background
    assert list(shards.published_frames) == list(original.published_frames)
    np.testing.assert_array_equal(shards.palette_K3, original.palette_K3)
    for place, name in enumerate(original.names):
        one, other = original[place], shards[place]
        assert shards.condition(place) == original.condition(place) and shards.scene(name) == original.scene(name)
        assert one.name == other.name
        for part in ("rgb_HW3", "thermal_HW", "label_HW"):
            assert getattr(other, part).dtype == np.uint8
            np.testing.assert_array_equal(getattr(one, part), getattr(other, part))


# --- the same data set ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SETS)
def test_every_split_is_that_of_the_original(kind, request, tmp_path):
    options = SETS[kind](request.getfixturevalue(kind))
    made = make_from(options, tmp_path / "shards")
    assert set(made.content.splits) == set(ROLES) and not made.kept
    for role in ROLES:
        assert_same_data_set(
            build_dataset(options, role), build_dataset({"type": "Shards", "root": tmp_path / "shards"}, role)
        )


def test_generated_frames_and_frames_that_are_mirrored(packed, tmp_path):
    make_from(SYNTHETIC, tmp_path / "generated")
    shards = build_dataset({"type": "Shards", "root": tmp_path / "generated"}, "train")
    assert_same_data_set(build_dataset(SYNTHETIC, "train"), shards)
    with open(packed / "train.txt", "a") as stream:
        stream.write("00001N_flip\n")
    make_from({"type": "MFNet", "root": packed}, tmp_path / "mirrored")
    shards = build_dataset({"type": "Shards", "root": tmp_path / "mirrored"}, "train")
    assert_same_data_set(build_dataset({"type": "MFNet", "root": packed}, "train"), shards)
    assert shards.scene("00001N_flip") == "00001N"


def test_real_frames(mfnet_mini, tmp_path):
    options = {"type": "MFNet", "root": mfnet_mini, "limit": 3}
    make_from(options, tmp_path / "shards", frames=2)
    for role in ROLES:
        assert_same_data_set(
            build_dataset(options, role), build_dataset({"type": "Shards", "root": tmp_path / "shards"}, role)
        )


def test_a_holdout_of_shards_holds_out_the_frames_of_the_original(custom, tmp_path):
    whole = custom_options(custom, holdout=None, train_split="train")
    make_from(whole, tmp_path / "shards", frames=2)
    chosen = {"val_split": None, "holdout": 0.4, "holdout_seed": 3}
    for role in ("train", "val"):
        original = build_dataset({**whole, **chosen}, role)
        assert_same_data_set(original, build_dataset({"type": "Shards", "root": tmp_path / "shards", **chosen}, role))


def test_splits_of_the_same_frames_share_their_shards(packed, tmp_path):
    options = {"type": "MFNet", "root": packed, "val_split": "test"}
    splits = make_from(options, tmp_path).content.splits
    assert [shard.name for shard in splits["val"].shards] == ["val-000000.tar"] and splits["test"] == splits["val"]
    assert not list(tmp_path.glob("test-*.tar"))


# --- what is written -----------------------------------------------------------------------------------------------


def test_files_that_need_no_change_are_kept_byte_for_byte(folders, tmp_path):
    make_from({"type": "MFNet", "root": folders}, tmp_path, frames=2)
    members = members_of(tmp_path / "train-000001.tar")
    keys = ["00000002-00002D", "00000003-00003N"]
    assert list(members) == [f"{key}.{end}" for key in keys for end in ("rgb.png", "thermal.png", "label.png", "json")]
    for key in keys:
        for part, folder in (("rgb", "rgb"), ("thermal", "thermal"), ("label", "labels")):
            assert members[f"{key}.{part}.png"] == (folders / folder / f"{key[9:]}.png").read_bytes()
    assert json.loads(members["00000003-00003N.json"]) == {"name": "00003N", "condition": "night"}


def test_what_has_to_be_converted_becomes_png_and_a_photo_stays_one(custom, tmp_path):
    options = custom_options(custom)
    make_from(options, tmp_path)
    frame, name = build_dataset(options, "test")[0], build_dataset(options, "test").names[0]
    members = members_of(tmp_path / "test-000000.tar")
    key = f"00000000-{name.replace('/', '_')}"
    assert members[f"{key}.rgb.jpg"] == (custom / "color/test" / f"{name}.jpg").read_bytes()
    for part, image in (("thermal", frame.thermal_HW), ("label", frame.label_HW)):
        stored = cv2.imdecode(np.frombuffer(members[f"{key}.{part}.png"], np.uint8), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(stored, image)
    assert json.loads(members[f"{key}.json"])["name"] == name


def test_the_same_set_gives_the_same_bytes(packed, tmp_path):
    make_from({"type": "MFNet", "root": packed}, tmp_path / "one")
    shutil.copytree(packed, tmp_path / "copy", copy_function=shutil.copyfile)  # with other times
    make_from({"type": "MFNet", "root": tmp_path / "copy"}, tmp_path / "two")
    first, second = content_of(tmp_path / "one"), content_of(tmp_path / "two")
    assert first == second and len(first) == 5
    assert set(first) == {"index.json", "train-000000.tar", "train-000001.tar", "val-000000.tar", "test-000000.tar"}


def test_webdataset_reads_the_shards(packed, tmp_path):
    if importlib.util.find_spec("webdataset") is None:
        pytest.skip("webdataset is not installed: no oracle for the format")
    import webdataset

    make_from({"type": "MFNet", "root": packed}, tmp_path, frames=4)
    files = [str(tmp_path / f"train-{number:06d}.tar") for number in range(2)]
    samples = list(webdataset.WebDataset(files, shardshuffle=False))
    dataset = build_dataset({"type": "MFNet", "root": packed}, "train")
    assert [json.loads(sample["json"])["name"] for sample in samples] == dataset.names
    for place, sample in enumerate(samples):
        rgb_HW3 = cv2.imdecode(np.frombuffer(sample["rgb.png"], np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
        np.testing.assert_array_equal(rgb_HW3, dataset[place].rgb_HW3)
        assert {"__key__", "rgb.png", "thermal.png", "label.png", "json"} <= set(sample)


def test_a_shard_ends_before_it_exceeds_its_size(tmp_path):
    most = 64 << 10
    made = make_shards(DATASETS.parse(SYNTHETIC), tmp_path, Size(None, most))
    shards = made.content.splits["train"].shards
    assert len(shards) > 1 and sum(len(shard.frames) for shard in shards) == 11
    for shard in shards:
        # What is left to the full record at the end of a tar does not count.
        assert shard.bytes <= most + tarfile.RECORDSIZE and (tmp_path / shard.name).stat().st_size == shard.bytes
        for frame in shard.frames:
            for part in ("rgb", "thermal", "label"):
                member = frame.member(part)
                content = (tmp_path / shard.name).read_bytes()[member.offset : member.offset + member.length]
                assert content == members_of(tmp_path / shard.name)[frame.member_name(part)]


# --- going on ------------------------------------------------------------------------------------------------------


def test_a_killed_run_goes_on_and_gives_the_same_bytes(tmp_path, monkeypatch):
    make_from(SYNTHETIC, tmp_path / "whole", frames=4)
    killed = tmp_path / "killed"
    child = os.fork()
    if child == 0:
        original = make.encode_frame

        def encode_or_die(dataset, place):
            if dataset.split == "train" and place == 6:
                while not (killed / ".made" / "train-000000.tar.json").exists():
                    time.sleep(0.001)
                os.kill(os.getpid(), signal.SIGKILL)
            return original(dataset, place)

        make.encode_frame = encode_or_die
        make_from(SYNTHETIC, killed, frames=4)
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert (killed / "train-000000.tar").exists() and not (killed / "index.json").exists()
    with pytest.raises(DataError, match=r"index.json: no such file.*goes on where it stopped"):
        build_dataset({"type": "Shards", "root": killed}, "train")
    made = make_from(SYNTHETIC, killed, frames=4)
    assert made.kept == ["train-000000.tar"] and content_of(killed) == content_of(tmp_path / "whole")
    assert len(make_from(SYNTHETIC, killed, frames=4).kept) == 5


def test_a_damaged_shard_is_made_again(tmp_path):
    make_from(SYNTHETIC, tmp_path)
    before = content_of(tmp_path)
    damage(tmp_path / "train-000001.tar", 5000)
    assert make_from(SYNTHETIC, tmp_path).kept == [
        "train-000000.tar",
        "train-000002.tar",
        "val-000000.tar",
        "test-000000.tar",
    ]
    assert content_of(tmp_path) == before


def test_frames_that_changed_are_written_again(folders, tmp_path):
    options, out = {"type": "MFNet", "root": folders}, tmp_path / "out"
    make_from(options, out, frames=2)
    file = folders / "labels" / "00003N.png"
    file.write_bytes((folders / "labels" / "00002D.png").read_bytes())
    made = make_from(options, out, frames=2)
    # The shard before looked at this frame, to know whether it is full.
    assert "train-000001.tar" not in made.kept and {"train-000002.tar", "test-000000.tar"} <= set(made.kept)
    assert_same_data_set(build_dataset(options, "train"), build_dataset({"type": "Shards", "root": out}, "train"))


def test_shards_of_an_earlier_size_are_removed_and_other_files_are_not(tmp_path):
    make_from(SYNTHETIC, tmp_path, frames=2)
    (tmp_path / "train-999999.tar").write_bytes(b"mine")
    made = make_from(SYNTHETIC, tmp_path, frames=8)
    named = {shard.name for split in made.content.splits.values() for shard in split.shards}
    assert {file.name for file in tmp_path.glob("*.tar")} == named | {"train-999999.tar"}


def test_a_frame_that_cannot_be_read_leaves_no_half_shard(folders, tmp_path):
    (folders / "rgb" / "00003N.png").write_bytes(b"nothing")
    with pytest.raises(DataError, match="00003N.png: not a readable image"):
        make_from({"type": "MFNet", "root": folders}, tmp_path, frames=2)
    assert set(content_of(tmp_path)) == {"train-000000.tar"}


def test_shards_of_shards_and_two_writers_are_refused(tmp_path):
    make_from(SYNTHETIC, tmp_path)
    with pytest.raises(ConfigError, match="got Shards, expected a data set that is not in shards"):
        make_from({"type": "Shards", "root": str(tmp_path)}, tmp_path / "again")
    with make._alone(tmp_path), pytest.raises(DataError, match="another process makes shards there"):
        make_from(SYNTHETIC, tmp_path)


# --- mistakes ------------------------------------------------------------------------------------------------------


def damage(file: Path, place: int) -> None:
    content = bytearray(file.read_bytes())
    content[place] ^= 255
    file.write_bytes(content)


@pytest.fixture
def made(tmp_path) -> Path:
    make_from(SYNTHETIC, tmp_path / "made")
    return tmp_path / "made"


def read_all(root: Path, role: str = "train") -> None:
    dataset = build_dataset({"type": "Shards", "root": str(root)}, role)
    for place in range(len(dataset)):
        dataset[place]


def test_a_truncated_tar(made):
    file = made / "train-000001.tar"
    os.truncate(file, file.stat().st_size // 2)
    with pytest.raises(DataError, match=r"train-000001.tar: got [\d,]+ bytes, expected [\d,]+: the shard was cut off"):
        read_all(made)
    read_all(made, "test")


def test_a_tar_that_is_cut_while_it_is_used(made):
    dataset = build_dataset({"type": "Shards", "root": made}, "train")
    os.truncate(made / "train-000000.tar", 700)
    with pytest.raises(DataError, match=r"train-000000.tar, frame 00000D: ends within or before .*rgb.png.*cut off"):
        dataset[0]


def test_damaged_bytes_are_named(made):
    member = parse_index((made / "index.json").read_bytes(), "").splits["train"].frames[1][1].thermal
    damage(made / "train-000000.tar", member.offset + member.length // 2)
    with pytest.raises(DataError, match=r"train-000000.tar, frame 00001N: .*thermal.png is not as it was written"):
        read_all(made)


def test_a_missing_shard_and_a_missing_member(made):
    shutil.copyfile(made / "train-000001.tar", made / "train-000000.tar")  # of the same size
    assert (made / "train-000000.tar").stat().st_size == (made / "train-000001.tar").stat().st_size
    with pytest.raises(DataError, match=r"holds no member 00000000-00000D.rgb.png .*but 00000004-00004D.rgb.png"):
        read_all(made)
    (made / "train-000002.tar").unlink()
    with pytest.raises(DataError, match=r"train-000002.tar: no such shard, though index.json names it"):
        read_all(made)


def change_index(made: Path, change) -> None:
    content = json.loads((made / "index.json").read_text())
    change(content)
    (made / "index.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.update(format=99), "index of format 99, expected at most 1: it was written by a newer version"),
        (lambda c: c["splits"]["train"]["shards"][0]["frames"][2].pop("thermal"), "frame 00002D has no thermal member"),
        (lambda c: c["splits"]["train"]["shards"][0]["frames"][2].update(condition="dusk"), "is not as it was written"),
        (lambda c: c["splits"]["train"]["shards"][0].update(name="../../etc/x.tar"), r"splits.train.shards.0.name"),
        (lambda c: c["splits"]["train"]["shards"][0].update(bytes=2000), "would end behind the end"),
        (lambda c: c.pop("splits"), "got another JSON file, expected the index"),
        (lambda c: c["dataset"].update(classes=["a"]), "do not fit the classes"),
    ],
)
def test_an_index_that_is_not_as_it_was_written(made, change, said):
    change_index(made, change)
    with pytest.raises(DataError, match=said):
        read_all(made)


@pytest.mark.parametrize(("content", "said"), [("", "an empty file"), ("<html>", "a web page"), ("{", "1 bytes of")])
def test_an_index_that_is_none(made, content, said):
    (made / "index.json").write_text(content)
    with pytest.raises(DataError, match=f"got {said}.*, expected the index that scripts/make_shards.py writes"):
        read_all(made)


def test_a_split_that_is_not_there(made):
    with pytest.raises(DataError, match=r"no split 'vall' for data.val_split; splits here: train, val, test.*Did you"):
        build_dataset({"type": "Shards", "root": made, "val_split": "vall"}, "val")
    with pytest.raises(DataError, match="no such folder"):
        build_dataset({"type": "Shards", "root": made / "nowhere"}, "val")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"root": "http://127.0.0.1/x"}, "without `cache`"),
        ({"root": ["a", "b"]}, "without `cache`"),
        ({"root": "s3://bucket/x"}, "expected http://, https:// or a folder"),
        ({"root": "a", "cache": "packed"}, "which is a cache of other data sets"),
        ({"root": "a", "cache_dir": "b"}, "which is for packed splits"),
        ({"root": "$HOME/x"}, "variables of a shell are not replaced"),
        ({"root": 5}, "expected a folder, an address"),
    ],
)
def test_options_that_cannot_be(options, said):
    with pytest.raises(ValueError, match=said):
        DATASETS.parse({"type": "Shards", **options})
