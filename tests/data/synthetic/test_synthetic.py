from __future__ import annotations

import numpy as np
import pytest

from mdg.data import build_dataset
from mdg.data.datasets.mfnet import MFNet
from mdg.data.synthetic import render_scene
from mdg.data.synthetic.dataset import Synthetic
from mdg.errors import DataError
from mdg.options.datasets import SyntheticOptions
from mdg.registry import DATASETS

OPTIONS = {"type": "Synthetic", "height": 32, "width": 48, "train_images": 5, "val_images": 3, "test_images": 2}


def test_splits_have_their_sizes_and_share_no_scene():
    names = [name for role in ("train", "val", "test") for name in build_dataset(OPTIONS, role).names]
    assert len(names) == len({name[:-1] for name in names}) == 10


def test_size_of_one_split_does_not_move_another():
    more = {**OPTIONS, "train_images": 50}
    assert build_dataset(more, "val").fingerprint() == build_dataset(OPTIONS, "val").fingerprint()


def test_largest_splits_stay_disjoint():
    largest = {**OPTIONS, "train_images": 50_000, "val_images": 25_000, "test_images": 25_000}
    names = [name for role in ("train", "val", "test") for name in build_dataset(largest, role).names]
    assert len(set(names)) == len({name[:-1] for name in names}) == 100_000


def test_frames_are_the_scenes_of_their_names():
    dataset = build_dataset({**OPTIONS, "seed": 4}, "val")
    for index, name in enumerate(dataset.names):
        scene, frame = render_scene(4, int(name[:-1]), 32, 48), dataset[index]
        np.testing.assert_array_equal(frame.rgb_HW3, scene.rgb)
        np.testing.assert_array_equal(frame.thermal_HW, scene.thermal)
        np.testing.assert_array_equal(frame.label_HW, scene.label)
        assert dataset.condition(index) == ("night" if scene.night else "day")
        assert frame.name == name and name.endswith("N" if scene.night else "D")


def test_half_are_night():
    dataset = Synthetic(SyntheticOptions(height=32, width=48, train_images=8), role="train")
    assert [dataset.condition(index) for index in range(8)].count("night") == 4


def test_seed_changes_the_world():
    first, second = (Synthetic(SyntheticOptions(height=32, width=48, seed=seed), role="train")[0] for seed in (0, 1))
    assert not np.array_equal(first.rgb_HW3, second.rgb_HW3)


def test_index_beyond_the_split():
    with pytest.raises(IndexError):
        build_dataset(OPTIONS, "test")[2]


def test_classes_are_those_of_mfnet():
    assert Synthetic.classes == MFNet.classes
    np.testing.assert_array_equal(Synthetic.palette_K3, MFNet.palette_K3)


def test_role_may_use_another_split_and_says_so():
    dataset = build_dataset({**OPTIONS, "val_split": "test"}, "val")
    assert dataset.names == build_dataset(OPTIONS, "test").names
    assert (dataset.facts()["role"], dataset.facts()["split"]) == ("val", "test")


def test_errors():
    with pytest.raises(DataError, match="data.test_split is null"):
        build_dataset({**OPTIONS, "test_split": None}, "test")


@pytest.mark.parametrize(
    "option",
    [{"height": 31}, {"seed": -1}, {"train_images": 0}, {"val_images": 25_001}, {"val_split": "valid"}, {"hight": 64}],
)
def test_options_are_checked(option):
    with pytest.raises(ValueError):
        DATASETS.parse({**OPTIONS, **option})


@pytest.mark.parametrize(("limit", "count"), [(3, 3), (99, 8), (None, 8)])
def test_limit_keeps_the_first_frames(limit, count):
    whole = build_dataset({"type": "Synthetic", "val_images": 8}, "val")
    part = build_dataset({"type": "Synthetic", "val_images": 8, "limit": limit}, "val")
    assert part.names == whole.names[:count]
