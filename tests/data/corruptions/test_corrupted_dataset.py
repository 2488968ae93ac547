"""A data set under a corruption."""

from __future__ import annotations

import numpy as np
import pytest
from torch.utils.data import DataLoader

from mdg.data import Frame, build_dataset
from mdg.data.corruptions import CORRUPTIONS, Corrupted, Images, every_corruption, generator_for
from mdg.errors import ConfigError

SMALL = {"type": "Synthetic", "height": 48, "width": 64, "test_images": 6}
EVERY = {corruption.name: corruption for corruption in every_corruption()}


@pytest.fixture(scope="module")
def clean():
    return build_dataset(SMALL, "test")


def same(one: Frame, two: Frame) -> bool:
    parts = ("rgb_HW3", "thermal_HW", "label_HW")
    return one.name == two.name and all(np.array_equal(getattr(one, part), getattr(two, part)) for part in parts)


def just_the_frame(frames: list[Frame]) -> Frame:
    return frames[0]


@pytest.mark.parametrize("corruption", EVERY.values(), ids=list(EVERY))
def test_a_frame_does_not_depend_on_what_was_read_before(clean, corruption):
    dataset = Corrupted(clean, corruption, 3, seed=1)
    forwards = [dataset[index] for index in range(len(dataset))]
    again = Corrupted(build_dataset(SMALL, "test"), type(corruption)(corruption.camera), 3.0, seed=1)
    backwards = [again[index] for index in reversed(range(len(again)))]
    assert all(same(one, two) for one, two in zip(forwards, backwards[::-1], strict=True))
    for index, frame in enumerate(forwards):
        assert frame.name == clean.names[index]
        np.testing.assert_array_equal(frame.label_HW, clean[index].label_HW)


def test_nor_on_the_number_of_processes(clean):
    dataset = Corrupted(clean, EVERY["Rain of rgb"], 4)
    loader = DataLoader(dataset, num_workers=2, collate_fn=just_the_frame)
    assert all(same(one, dataset[index]) for index, one in enumerate(loader))


def test_seed_name_and_corruption_choose_what_is_drawn(clean):
    noise, names = EVERY["ThermalNoise of thermal"], clean.names
    draws = {
        generator_for(seed, name, corruption).integers(2**62)
        for seed in (0, 1)
        for name in names
        for corruption in (noise, EVERY["MotionBlur of rgb"], EVERY["MotionBlur of thermal"])
    }
    assert len(draws) == 2 * 3 * len(names)


@pytest.mark.parametrize("name", [name for name, corruption in EVERY.items() if corruption.of_camera])
def test_what_belongs_to_a_camera_is_the_same_in_every_frame(clean, name):
    one, other = (generator_for(0, frame, EVERY[name]).integers(2**62) for frame in clean.names[:2])
    assert one == other != generator_for(1, clean.names[0], EVERY[name]).integers(2**62)
    assert {type(EVERY[name]).__name__} <= {"FixedPattern", "DeadPixels", "DeadRows"}


def test_dead_pixels_stay_where_they_are(clean):
    dataset = Corrupted(clean, EVERY["DeadPixels of thermal"], 5)
    changed = [dataset[index].thermal_HW != clean[index].thermal_HW for index in range(2)]
    assert 0.04 < changed[0].mean() < 0.12 and (changed[0] ^ changed[1]).mean() < 0.01


def test_frozen_shows_frames_before_it_and_the_last_ones_before_the_first(clean):
    dataset = Corrupted(clean, CORRUPTIONS["Frozen"]("thermal"), 3)  # 4 frames old
    for index in range(6):
        np.testing.assert_array_equal(dataset[index].thermal_HW, clean[(index + 2) % 6].thermal_HW)
        np.testing.assert_array_equal(dataset[index].rgb_HW3, clean[index].rgb_HW3)


def test_it_is_the_corruption(clean):
    corruption = EVERY["Parallax of thermal"]
    frame, got = clean[4], Corrupted(clean, corruption, 2.5, seed=3)[4]
    generator = generator_for(3, frame.name, corruption)
    expected = corruption.corrupt(Images(frame.rgb_HW3, frame.thermal_HW, frame.label_HW), 2.5, generator)
    np.testing.assert_array_equal(got.thermal_HW, expected.thermal_HW)
    assert same(Corrupted(clean, corruption, 0)[4], frame)


def test_facts(clean):
    dataset = Corrupted(clean, EVERY["Fog of rgb"], 2, seed=5)
    assert dataset.preparation() == "as stored; corrupted: Fog of rgb at severity 2 of 5, seed 5"
    facts = dataset.facts()
    assert facts.pop("corruption") == {
        "type": "Fog",
        "camera": "rgb",
        "severity": 2,
        "strength": 16.0,
        "unit": "extinction per km",
        "seed": 5,
    }
    assert facts == {**clean.facts(), "preparation": dataset.preparation()}
    assert dataset.identities() == clean.identities() and dataset.fingerprint() == clean.fingerprint()
    assert dataset.scoring_rules() == clean.scoring_rules() and dataset.content_state() == clean.content_state()
    assert [dataset.condition(k) for k in range(6)] == [clean.condition(k) for k in range(6)]
    assert dataset.background == clean.background and dataset.split_label == clean.split_label
    assert len(dataset) == 6 and dataset.scene("x") == clean.scene("x")


def test_files_of_a_real_layout(packed):
    """Held-out frames, files and rules are those of the split."""
    options = {"type": "MFNet", "root": str(packed), "val_split": None, "holdout": 0.4}
    for role in ("train", "val"):
        clean = build_dataset(options, role)
        dataset = Corrupted(clean, EVERY["Darkness of rgb"], 1)
        dataset.require_complete()
        assert dataset.sources(0) == clean.sources(0) and dataset.split_label == clean.split_label
        assert dataset.content_hash() == clean.content_hash()
        assert dataset[0].rgb_HW3.mean() < 0.9 * clean[0].rgb_HW3.mean()


def test_a_severity_outside_0_to_5_is_refused(clean):
    with pytest.raises(ConfigError, match="got severity 6"):
        Corrupted(clean, EVERY["Fog of rgb"], 6)
