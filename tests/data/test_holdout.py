"""The seeded hold-out for data without a val split: train and val share no frame, on any machine."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import yaml

from mdg.config import load_config
from mdg.data import build_dataset
from mdg.data.base import RGBTDataset, palette
from mdg.data.datasets.mfnet import MFNet
from mdg.errors import ConfigError, DataError
from mdg.options.datasets import MFNetOptions
from mdg.options.files import DatasetOptions

NAMES = [f"frame{k:03d}" for k in range(40)]


class Listed(RGBTDataset):
    """Frames that are names only."""

    dataset_name = "Listed"
    classes = ("a", "b")
    palette_K3 = palette([(0, 0, 0), (255, 255, 255)])

    def __init__(self, names, role: str, **options):
        super().__init__(DatasetOptions(**{"val_split": None, "holdout": 0.1, **options}), role=role)
        self.names = self._share(names)

    def read(self, index: int):
        raise NotImplementedError


def split(names=NAMES, **options) -> tuple[list[str], list[str]]:
    """Names that train and names that are held out."""
    return Listed(names, "train", **options).names, Listed(names, "val", **options).names


def config_error(folder: Path, data: str, *opts: str) -> str:
    (folder / "run.yaml").write_text(f"data: {data}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(folder / "run.yaml", opts)
    return str(caught.value)


# --- which frames ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("holdout", [0.01, 0.1, 0.25, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("count", [2, 3, 5, 10, 40])
def test_train_and_val_share_out_all_frames(holdout, count):
    train, val = split(NAMES[:count], holdout=holdout)
    assert not set(train) & set(val) and sorted(train + val) == NAMES[:count]
    assert train and val
    assert abs(len(val) - holdout * count) <= 1 or 1 in (len(train), len(val))


def test_a_tenth_of_forty_is_four():
    train, val = split()
    assert (len(train), len(val)) == (36, 4)


@pytest.mark.parametrize("count, holdout, held_out", [(2, 0.1, 1), (2, 0.9, 1), (3, 0.1, 1), (3, 0.5, 2), (3, 0.99, 2)])
def test_of_few_frames_one_is_left_on_either_side(count, holdout, held_out):
    assert len(split(NAMES[:count], holdout=holdout)[1]) == held_out


@pytest.mark.parametrize("role", ["train", "val"])
def test_nothing_can_be_held_out_of_one_frame(role):
    with pytest.raises(DataError, match="'train' of Listed has a single frame.*data.holdout: null"):
        Listed(NAMES[:1], role)


def test_frames_are_those_with_the_lowest_hash():
    """By hand, so that the frames of a seed stay the same in every version."""
    ranked = sorted(NAMES, key=lambda name: hashlib.sha256(f"3/{name}".encode()).hexdigest())
    assert set(split(holdout_seed=3)[1]) == set(ranked[:4])


def test_held_out_frames_are_scattered():
    places = [NAMES.index(name) for name in split(holdout=0.25)[1]]
    assert min(places) < 10 and max(places) >= 30


def test_seed_changes_the_frames():
    chosen = {tuple(split(holdout_seed=seed)[1]) for seed in range(6)}
    assert len(chosen) == 6
    assert split(holdout_seed=2) == split(holdout_seed=2)


def test_order_of_names_is_kept_and_changes_nothing():
    train, val = split(NAMES[::-1])
    assert train == sorted(train, reverse=True) and val == sorted(val, reverse=True)
    assert (set(train), set(val)) == tuple(map(set, split()))


def test_a_larger_share_contains_the_smaller():
    assert set(split(holdout=0.1)[1]) < set(split(holdout=0.5)[1])


def test_limit_leaves_the_shares_apart():
    train, val = split(limit=3)
    assert len(train) == len(val) == 3
    assert train == split()[0][:3] and val == split()[1][:3]


def test_test_split_and_other_roles_are_whole():
    assert Listed(NAMES, "test").names == NAMES
    assert Listed(NAMES, "train", holdout=None).names == NAMES


def test_mirrored_frames_stay_with_their_originals(folders):
    names = (folders / "train.txt").read_text().split()
    (folders / "train.txt").write_text("".join(f"{name}\n{name}_flip\n" for name in names))
    roles = [
        MFNet(MFNetOptions(root=folders, val_split=None, holdout=0.34), role=role).names for role in ("train", "val")
    ]
    train, val = ({name.removesuffix("_flip") for name in part} for part in roles)
    assert (len(train), len(val)) == (4, 2) and not train & val
    assert [len(part) for part in roles] == [8, 4]


def test_pst900_and_fmb_hold_a_tenth_out_by_default(pst900, fmb):
    for kind, root in (("PST900", pst900), ("FMB", fmb)):
        roles = {role: build_dataset({"type": kind, "root": str(root)}, role) for role in ("train", "val", "test")}
        assert {role: len(dataset) for role, dataset in roles.items()} == {"train": 5, "val": 1, "test": 3}
        identities = [set(dataset.identities()) for dataset in roles.values()]
        assert len(set.union(*identities)) == 9, "the three share no frame"


# --- what results say --------------------------------------------------------------------------------------------


def test_label_of_the_split_says_what_was_taken_out():
    assert Listed(NAMES, "val", holdout_seed=7).split_label == "train, held-out 10 % (seed 7)"
    assert Listed(NAMES, "train", holdout=0.125).split_label == "train, without the held-out 12.5 % (seed 0)"
    assert Listed(NAMES, "train", holdout=0.07).split_label.endswith("7 % (seed 0)")
    assert Listed(NAMES, "test").split_label == "test"
    assert Listed(NAMES, "train", holdout=None).split_label == "train"


def test_facts_of_the_held_out_split():
    facts = Listed(NAMES, "val", train_split="all").facts()
    assert (facts["role"], facts["split"], facts["files"]) == ("val", "all, held-out 10 % (seed 0)", 4)


def test_fingerprint_tells_the_shares_apart():
    prints = {Listed(NAMES, role, holdout_seed=seed).fingerprint() for role in ("train", "val") for seed in (0, 1)}
    assert len(prints) == 4
    assert Listed(NAMES[::-1], "val").fingerprint() == Listed(NAMES, "val").fingerprint()


# --- options -----------------------------------------------------------------------------------------------------


def test_val_split_and_holdout_exclude_each_other(tmp_path):
    message = config_error(tmp_path, "{type: Synthetic, holdout: 0.1}")
    assert "got val_split 'val' and holdout 0.1, expected one of them" in message
    assert f"{tmp_path / 'run.yaml'}:1: data" in message


@pytest.mark.parametrize("holdout", [0, 1, -0.1, 10])
def test_share_lies_between_none_and_all(tmp_path, holdout):
    message = config_error(tmp_path, f"{{type: Synthetic, val_split: null, holdout: {holdout}}}")
    assert "data.holdout" in message and ("greater than 0" in message or "less than 1" in message)


def test_neither_is_an_error_that_offers_the_ways_out(tmp_path):
    message = config_error(tmp_path, "{type: PST900, root: x, holdout: null}")
    for part in ("eval.selection is 'val', but data.val_split is null", "data.holdout: 0.1", "eval.selection: last"):
        assert part in message
    with pytest.raises(DataError, match="data.val_split is null.*eval.selection=last.*data.holdout=0.1"):
        Listed(NAMES, "val", holdout=None)


def test_no_train_split_to_hold_out_of():
    with pytest.raises(DataError, match="data.train_split is null"):
        Listed(NAMES, "val", train_split=None)


def test_holdout_is_enough_for_a_configuration(tmp_path):
    file = tmp_path / "run.yaml"
    data = {"type": "Synthetic", "val_split": None, "holdout": 0.25, "holdout_seed": 5, "train_images": 8}
    file.write_text(yaml.safe_dump({"data": data}))
    config = load_config(file)
    sizes = {role: len(build_dataset(config.data, role)) for role in ("train", "val", "test")}
    assert sizes == {"train": 6, "val": 2, "test": 16}


def test_last_needs_no_validation_at_all(tmp_path, pst900):
    file = tmp_path / "run.yaml"
    file.write_text(f"data: {{type: PST900, root: {pst900}, holdout: null}}\neval: {{selection: last}}\n")
    assert len(build_dataset(load_config(file).data, "train")) == 6
