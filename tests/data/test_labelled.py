"""Few labels: which frames have one, that those of the others are never opened, and the order in which both train."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import yaml
from layouts import custom_options

from mdg.config import load_config
from mdg.data import TrainLoader, build_dataset, build_transforms
from mdg.data.base import RGBTDataset, palette
from mdg.data.loaders import SemiLoader
from mdg.errors import ConfigError, DataError
from mdg.options.files import DatasetOptions

NAMES = [f"{scene:02d}{twin}" for scene in range(32) for twin in ("", "_flip")]


class Twins(RGBTDataset):
    """Names of which two show one scene."""

    dataset_name = "Twins"
    classes = ("a", "b")
    palette_K3 = palette([(0, 0, 0), (255, 255, 255)])

    def __init__(self, role: str, names=NAMES, **options):
        super().__init__(DatasetOptions(**options), role=role)
        self.names = self._share(names)

    def scene(self, name: str) -> str:
        return name.removesuffix("_flip")

    def read(self, index: int):
        raise NotImplementedError


def both(**labelled) -> tuple[list[str], list[str]]:
    return tuple(Twins(role, labelled=labelled).names for role in ("train", "unlabelled"))


@pytest.mark.parametrize("fraction, scenes", [("1/16", 2), ("1/8", 4), (0.5, 16), (" 1 / 2 ", 16), (0.001, 1)])
def test_a_fraction_of_the_scenes_with_all_their_frames(fraction, scenes):
    with_label, without = both(fraction=fraction)
    assert len(with_label) == 2 * scenes and sorted(with_label + without) == NAMES
    assert {name[:2] for name in with_label}.isdisjoint(name[:2] for name in without)
    assert [name for name in NAMES if name in set(with_label)] == with_label  # in the order of the split


def test_larger_fractions_hold_smaller_ones_and_seeds_differ():
    small, larger = both(fraction="1/8")[0], both(fraction="1/4")[0]
    assert set(small) < set(larger)
    assert set(both(fraction="1/8", seed=1)[0]) != set(small)
    shuffled = Twins("train", NAMES[::-1], labelled={"fraction": "1/8"}).names
    assert set(shuffled) == set(small)


def test_with_a_hold_out_and_a_limit():
    options = {"labelled": {"fraction": "1/4"}, "val_split": None, "holdout": 0.25}
    parts = [set(Twins(role, **options).names) for role in ("train", "unlabelled", "val")]
    assert sorted(set().union(*parts)) == NAMES and sum(map(len, parts)) == len(NAMES)
    assert [len(part) for part in parts] == [12, 36, 16]
    assert Twins("val", labelled={"fraction": "1/4"}).names == NAMES  # of other splits nothing is taken
    assert len(Twins("train", labelled={"fraction": "1/2"}, limit=3).names) == 3


def test_a_list_names_them(tmp_path):
    file = tmp_path / "labelled.txt"
    file.write_text("03\n\n07_flip\n")
    with_label, without = both(list=file)
    assert with_label == ["03", "03_flip", "07", "07_flip"] and len(without) == 60
    assert Twins("train", labelled={"list": file}).split_label == "train, those of labelled.txt with labels"
    file.write_text("03\nnobody\n")
    with pytest.raises(DataError, match="1 of its 2 names are not in the split 'train' of Twins, such as 'nobody'"):
        both(list=file)
    file.write_text("\n")
    with pytest.raises(DataError, match="holds no name"):
        both(list=file)
    with pytest.raises(DataError, match="cannot be read as a list of names"):
        both(list=tmp_path / "nowhere.txt")


def test_a_protocol_names_the_share():
    labels = [Twins(role, labelled={"fraction": "1/16", "seed": 3}).split_label for role in ("train", "unlabelled")]
    assert labels == ["train, 1/16 (seed 3) with labels", "train, all but 1/16 (seed 3) with labels"]
    assert "12.3 % (seed 0)" in Twins("train", labelled={"fraction": 0.123}).split_label


@pytest.mark.parametrize("labelled", ["{}", "{fraction: 1/4, list: a.txt}", "{fraction: 2/1}", "{fraction: 0}"])
def test_what_is_no_share_is_refused(labelled, tmp_path):
    (tmp_path / "run.yaml").write_text(f"data: {{type: Synthetic, labelled: {labelled}}}")
    with pytest.raises(ConfigError, match="data.labelled"):
        load_config(tmp_path / "run.yaml")


# --- frames without a label --------------------------------------------------------------------------------------


def test_labels_of_unlabelled_frames_are_never_opened(packed, custom, fmb):
    """The files are gone, or no images; with a label the same frames could not be read."""
    share = {"labelled": {"fraction": 0.5}}
    sets = [
        {"type": "MFNet", "root": packed, **share},
        {**custom_options(custom), **share},
        {"type": "FMB", "root": fmb, "val_split": None, **share},
    ]
    for options in sets:
        complete = build_dataset({**options, "labelled": None}, "train")
        names = build_dataset(options, "unlabelled").names
        expected = {frame.name: frame for frame in (complete[index] for index in range(len(complete)))}
        for index, name in enumerate(complete.names):
            file = complete.files[index]["label"]
            if name in names:
                file.write_bytes(b"no image") if index % 2 else file.unlink()
        unlabelled, labelled = build_dataset(options, "unlabelled"), build_dataset(options, "train")
        assert unlabelled.names == names and len(names) == len(complete) - len(labelled) > 0
        for frame in (unlabelled[index] for index in range(len(unlabelled))):
            assert np.array_equal(frame.rgb_HW3, expected[frame.name].rgb_HW3)
            assert np.array_equal(frame.thermal_HW, expected[frame.name].thermal_HW)
            assert frame.label_HW.shape == frame.thermal_HW.shape and not frame.label_HW.any()
        for index in range(len(labelled)):
            assert np.array_equal(labelled[index].label_HW, expected[labelled[index].name].label_HW)
        assert all("label" not in files for files in unlabelled.files)


@pytest.mark.parametrize("cache", ["none", "ram"])
def test_generated_scenes_lose_their_labels(cache):
    options = {"type": "Synthetic", "height": 32, "width": 40, "train_images": 6, "cache": cache}
    unlabelled = build_dataset({**options, "labelled": {"fraction": 0.5}}, "unlabelled")
    assert len(unlabelled) == 3
    assert not any(unlabelled[index].label_HW.any() for index in range(3))


# --- batches of both ---------------------------------------------------------------------------------------------


def loaders(workers: int = 0, size: int = 32) -> SemiLoader:
    options = {"type": "Synthetic", "height": 32, "width": 40, "train_images": 11, "cache": "ram"}
    options["labelled"] = {"fraction": "3/11"}
    crops = [build_transforms([{"type": "RandomResizedCrop", "size": [32, side]}]) for side in (32, size)]
    parts = [
        TrainLoader(build_dataset(options, role), chain, batch_size=2, seed=5, workers=workers, prefetch=2)
        for role, chain in zip(("train", "unlabelled"), crops, strict=True)
    ]
    return SemiLoader(*parts)


def test_every_batch_holds_both_and_labels_go_round():
    loader = loaders()
    epochs = [list(loader.epoch(epoch)) for epoch in range(3)]
    assert len(loader) == 4 and loader.images == 8 and [len(batches) for batches in epochs] == [4, 4, 4]
    labelled = []
    for batches in epochs:
        for batch in batches:
            assert batch.unlabelled == 2 and batch.rgb_B3HW.shape == (4, 3, 32, 32) and len(batch.names) == 4
            assert set(batch.label_BHW[2:].unique().tolist()) <= {0, 255} and batch.label_BHW[:2].max() > 0
            labelled.append(batch.names[:2])
        assert len({name for batch in batches for name in batch.names[2:]}) == 8
    # Two batches are a pass over the three frames with a label; passes go on across epochs.
    for first, second in zip(labelled[::2], labelled[1::2], strict=True):
        assert len({*first, *second}) == 3


@pytest.mark.parametrize("workers", [0, 1])
def test_an_epoch_goes_on_at_any_batch(workers):
    whole = [list(loaders().epoch(epoch)) for epoch in range(2)]
    loader = loaders(workers)
    for epoch, start in ((1, 3), (0, 2), (1, 0)):
        for batch, expected in zip(loader.epoch(epoch, start), whole[epoch][start:], strict=True):
            assert batch.names == expected.names and torch.equal(batch.rgb_B3HW, expected.rgb_B3HW)
            assert torch.equal(batch.label_BHW, expected.label_BHW)


def test_sizes_that_differ_are_one_sentence():
    with pytest.raises(DataError, match="images with labels are 32x32 and those without 32x64"):
        next(iter(loaders(size=64).epoch(0)))


def test_a_yaml_takes_a_fraction(tmp_path):
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({"data": {"type": "Synthetic", "labelled": {"fraction": "1/8"}}}))
    assert load_config(tmp_path / "run.yaml").data.labelled.fraction == 0.125
    assert load_config(tmp_path / "run.yaml", ["data.labelled.fraction=1/16"]).data.labelled.fraction == 0.0625
