"""Every kind of data set from files to ``results.json``: trained for a few steps, scored on test, used on new images.

Legend: K classes, H W size of a label.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest
import yaml
from layouts import (
    RAW_SCALING,
    custom_options,
    raw_counts,
    scenes_of,
    write_custom,
    write_fmb,
    write_image,
    write_mfnet_folders,
    write_pst900,
)

from mdg.config import load_config
from mdg.data import build_dataset
from mdg.data.reading.pairs import read_pair
from mdg.engine import evaluate, train
from mdg.engine.predict import find_pairs, predict
from mdg.errors import DataError, UserError
from mdg.options.files import PairOptions, ThermalScaling

pytestmark = pytest.mark.no_cover  # real frames, which other machines lack

TINY = {
    "custom_imports": ["reliability.tiny"],
    "pipeline": {"train": [{"type": "HorizontalFlip", "p": 0.5}], "workers": 0},
    "model": {"type": "TinySegmentor"},
    "optimizer": {"type": "AdamW", "lr": 1e-2},
    "schedule": {"type": "Poly", "warmup_epochs": 1},
    "train": {"epochs": 2, "batch_size": 2},
    "eval": {"pictures": 1},
    "log": {"every_steps": 3, "trackers": []},
    "device": "cpu",
    "threads": 1,
}
HELD_OUT = "held-out 10 % (seed 0)"
RAW_TEXT = "thermal [7000.0, 9550.0] to 8 bits"


def mfnet(root: Path) -> dict[str, Any]:
    return {"type": "MFNet", "root": str(write_mfnet_folders(root, train=5, val=2, test=3))}


def pst900(root: Path) -> dict[str, Any]:
    scaling = {"thermal": "thermal_raw", "thermal_scaling": RAW_SCALING}
    return {"type": "PST900", "root": str(write_pst900(root)), **scaling}


def fmb(root: Path) -> dict[str, Any]:
    return {"type": "FMB", "root": str(write_fmb(root))}


def custom(root: Path) -> dict[str, Any]:
    return custom_options(write_custom(root, rgb_scale=2), align="thermal", ignore_colours=[[255, 255, 255]])


class Expected(NamedTuple):
    """What the protocol and the rules of a data set must say."""

    dataset: str
    preparation: str
    trained_on: str
    selection: str
    rules: dict[str, int]  # number of averaged classes by name
    groups: set[str]


KINDS = {
    "mfnet": Expected(
        "MFNet",
        "as stored",
        "train (5 frames, ",
        "best mIoU on val",
        {"nine classes": 9, "without unlabeled": 8},
        {"day", "night"},
    ),
    "pst900": Expected(
        "PST900",
        f"16-bit thermal_raw; {RAW_TEXT}",
        f"train, without the {HELD_OUT} (5 frames, ",
        f"best mIoU on train, {HELD_OUT} as val",
        {"five classes": 5},
        set(),
    ),
    "fmb": Expected(
        "FMB",
        "as stored",
        f"train, without the {HELD_OUT} (5 frames, ",
        f"best mIoU on train, {HELD_OUT} as val",
        {"C": 15, "B": 14, "A": 14},
        set(),
    ),
    "custom": Expected(
        "Courtyard",
        f"{RAW_TEXT}; images resized to the size of thermal where sizes differ",
        "train, without the held-out 25 % (seed 0) (4 frames, ",
        "best mIoU on train, held-out 25 % (seed 0) as val",
        {"all classes": 4, "without background": 3},
        {"day", "night"},
    ),
}


class Trained(NamedTuple):
    kind: str
    yaml: Path
    run: Any
    results: dict[str, Any]
    folder: Path


def write_yaml(folder: Path, data: dict[str, Any]) -> Path:
    file = folder / "tiny.yaml"
    file.write_text(yaml.safe_dump({**TINY, "data": data, "exp_dir": str(folder / "exp")}))
    return file


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run of each kind, trained and scored on test once: ``runs("fmb")``."""
    known: dict[str, Trained] = {}

    def run(kind: str) -> Trained:
        if kind not in known:
            folder = tmp_path_factory.mktemp(kind)
            file = write_yaml(folder, globals()[kind](folder / "data"))
            directory = train(file, run_dir=folder / "run")
            evaluate(directory.best, file, split="test")
            results = directory.path / "results" / "test"
            known[kind] = Trained(kind, file, directory, json.loads((results / "results.json").read_text()), results)
        return known[kind]

    return run


def label_counts(dataset) -> np.ndarray:
    """Labelled pixels per class, straight from the frames."""
    classes = len(dataset.classes)
    return sum(np.bincount(frame.label_HW.ravel(), minlength=256)[:classes] for frame in dataset)


def miou(counts_KK: np.ndarray, averaged: list[int], ignored: list[int], absent: float | None) -> float:
    """Mean IoU in per cent, class by class in the plainest way."""
    counts_KK = np.array([[0] * len(row) if k in ignored else row for k, row in enumerate(counts_KK)])
    values = []
    for k in averaged:
        if counts_KK[k].sum():
            values.append(counts_KK[k, k] / (counts_KK[k].sum() + counts_KK[:, k].sum() - counts_KK[k, k]))
        elif absent is not None:
            values.append(absent)
    return 100 * sum(values) / len(values)


# --- training and scoring ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_protocol_says_what_was_trained_selected_and_scored(runs, kind):
    expected, protocol = KINDS[kind], runs(kind).results["protocol"]
    dataset = build_dataset(load_config(runs(kind).yaml).data, "test")
    assert (protocol["dataset"], protocol["split"], protocol["images"]) == (expected.dataset, "test", 3)
    assert protocol["preparation"] == expected.preparation
    assert protocol["trained_on"].startswith(expected.trained_on)
    assert protocol["selection"] == expected.selection
    assert protocol["files_sha256"] == dataset.fingerprint() and protocol["classes"] == list(dataset.classes)
    assert protocol["honest"] is True


@pytest.mark.parametrize("kind", KINDS)
def test_matrix_holds_every_labelled_pixel_once(runs, kind):
    dataset = build_dataset(load_config(runs(kind).yaml).data, "test")
    counts_KK = np.array(runs(kind).results["confusion_matrix"])
    np.testing.assert_array_equal(counts_KK.sum(axis=1), label_counts(dataset))
    groups = runs(kind).results["groups"]
    assert set(groups) == KINDS[kind].groups
    if groups:
        parts = sum(np.array(group["confusion_matrix"]) for group in groups.values())
        np.testing.assert_array_equal(parts, counts_KK)


@pytest.mark.parametrize("kind", KINDS)
def test_every_rule_follows_from_the_matrix(runs, kind):
    results = runs(kind).results
    classes, rules = results["protocol"]["classes"], results["rules"]
    assert {name: len(rule["averaged"]) for name, rule in rules.items()} == KINDS[kind].rules
    assert list(rules) == list(KINDS[kind].rules), "the primary rule comes first"
    for rule in rules.values():
        averaged, ignored = ([classes.index(name) for name in rule[key]] for key in ("averaged", "ignored"))
        expected = miou(np.array(results["confusion_matrix"]), averaged, ignored, rule["absent"])
        assert rule["scores"]["mIoU"] == pytest.approx(expected, abs=0.01)
    assert results["scores"] == rules[next(iter(rules))]["scores"]


def test_absent_bicycle_tells_the_rules_of_fmb_apart(runs):
    rules = runs("fmb").results["rules"]
    assert np.array(runs("fmb").results["confusion_matrix"])[13].sum() == 0
    assert rules["A"]["scores"]["mIoU"] < rules["B"]["scores"]["mIoU"]
    assert rules["A"]["scores"]["pixel_accuracy"] == rules["B"]["scores"]["pixel_accuracy"]


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_are_written_whatever_the_names(runs, kind):
    """Names of the custom set hold folders."""
    pictures = sorted(file.name for file in (runs(kind).folder / "pictures").rglob("*.png"))
    assert len(pictures) == 2 and "overview.png" in pictures


@pytest.mark.parametrize("kind, held_out", [("pst900", 1), ("custom", 2)])
def test_scoring_the_held_out_frames_says_that_they_selected(runs, tmp_path, kind, held_out):
    opts = ["eval.pictures=0"]
    protocol = evaluate(runs(kind).run.best, runs(kind).yaml, split="val", opts=opts, out_dir=tmp_path / "out").protocol
    assert protocol.images == held_out and not protocol.honest
    assert protocol.split.startswith("train, held-out") and protocol.role == "val"
    assert "SELECTED ON train, held-out" in protocol.selection
    assert f"({held_out} of {held_out} scored frames)" in protocol.selection and "TRAINED ON" not in protocol.trained_on


def test_another_hold_out_seed_shows_as_training_frames(runs, tmp_path):
    """Frames that one seed holds out, another trains on."""
    trained = runs("custom")

    def held_out(seed: int) -> set[str]:
        return set(build_dataset(load_config(trained.yaml, [f"data.holdout_seed={seed}"]).data, "val").names)

    other = next(seed for seed in range(1, 20) if not held_out(seed) & held_out(0))
    opts = ["eval.pictures=0", f"data.holdout_seed={other}"]
    protocol = evaluate(trained.run.best, trained.yaml, split="val", opts=opts, out_dir=tmp_path / "out").protocol
    assert "TRAINED ON 2 of the 2 scored frames" in protocol.trained_on and not protocol.honest


def test_training_frames_are_shouted(runs, tmp_path):
    opts = ["eval.pictures=0", "data.test_split=train"]
    protocol = evaluate(runs("fmb").run.best, runs("fmb").yaml, opts=opts, out_dir=tmp_path / "out").protocol
    assert "TRAINED ON 5 of the 6 scored frames" in protocol.trained_on
    assert "SELECTED ON" in protocol.selection and "1 of 6" in protocol.selection and not protocol.honest


def test_ignored_unlabeled_of_fmb(runs, tmp_path):
    """Weights trained with unlabeled as a class, scored without its pixels: rules B and A only, of the same pixels."""
    trained = runs("fmb")
    opts = ["data.unlabeled=ignore", "eval.pictures=0"]
    evaluate(trained.run.best, trained.yaml, opts=opts, out_dir=tmp_path / "out")
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert list(results["rules"]) == ["B", "A"]
    assert "unlabeled pixels ignored" in results["protocol"]["preparation"]
    for name in ("A", "B"):
        assert results["rules"][name]["scores"] == trained.results["rules"][name]["scores"]


def test_training_on_all_of_train_with_the_last_epoch(tmp_path):
    file = write_yaml(tmp_path, {**fmb(tmp_path / "data"), "holdout": None, "unlabeled": "ignore"})
    run = train(file, ["eval.selection=last", "train.epochs=1"], run_dir=tmp_path / "run")
    opts = ["eval.selection=last", "eval.pictures=0"]
    protocol = evaluate(run.best, file, opts=opts, out_dir=tmp_path / "out").protocol
    assert protocol.selection == "last epoch" and protocol.trained_on.startswith("train (6 frames, ")
    assert protocol.honest


def test_an_incomplete_set_stops_before_the_run_begins(tmp_path):
    file = write_yaml(tmp_path, pst900(tmp_path / "data"))
    missing = sorted((tmp_path / "data" / "train" / "thermal_raw").iterdir())[0]
    missing.unlink()
    with pytest.raises(UserError, match=f"1 without a file in .*thermal_raw: {missing.stem}"):
        train(file, run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


# --- new images --------------------------------------------------------------------------------------------------


def flat_copies(trained: Trained, folder: Path) -> tuple[Path, Path]:
    """The test images of the custom set as two folders of equal names, as a camera would leave them."""
    for part in ("rgb", "thermal"):
        (folder / part).mkdir(parents=True)
    dataset = build_dataset(load_config(trained.yaml).data, "test")
    for index, name in enumerate(dataset.names):
        rgb, thermal, _ = dataset.sources(index)
        for file, part in ((rgb, "rgb"), (thermal, "thermal")):
            shutil.copy(file, folder / part / f"{name.replace('/', '_')}{file.suffix}")
    return folder / "rgb", folder / "thermal"


def test_masks_of_new_images_are_the_predictions_that_were_scored(runs, tmp_path):
    """16-bit TIFFs of half the size of RGB, prepared as the configuration says."""
    trained = runs("custom")
    rgb, thermal = flat_copies(trained, tmp_path)
    masks = predict(rgb, thermal, trained.run.best, trained.yaml, out_dir=tmp_path / "masks")
    dataset = build_dataset(load_config(trained.yaml).data, "test")
    counts_KK = np.zeros((4, 4), np.int64)
    for frame in dataset:
        mask_HW = cv2.imread(str(tmp_path / "masks" / f"{frame.name.replace('/', '_')}_mask.png"), cv2.IMREAD_UNCHANGED)
        np.add.at(counts_KK, (frame.label_HW.ravel(), mask_HW.ravel()), 1)
    assert len(masks) == 3
    np.testing.assert_array_equal(counts_KK, trained.results["confusion_matrix"])


def test_pairs_are_scaled_and_aligned(tmp_path):
    _, scene = next(scenes_of("test", 1))
    rgb = write_image(tmp_path / "rgb" / "a.png", scene.rgb.repeat(2, axis=0).repeat(2, axis=1))
    thermal = write_image(tmp_path / "thermal" / "a.tiff", raw_counts(scene.thermal))
    pairs = find_pairs(tmp_path / "rgb", tmp_path / "thermal")
    assert pairs == {"a": (rgb, thermal)} == find_pairs(rgb, thermal)
    scaling = ThermalScaling(**RAW_SCALING)
    rgb_HW3, thermal_HW = read_pair(rgb, thermal, PairOptions(thermal_scaling=scaling, align="thermal"))
    np.testing.assert_array_equal(thermal_HW, scene.thermal)
    np.testing.assert_array_equal(rgb_HW3, scene.rgb)
    rgb_HW3, thermal_HW = read_pair(rgb, thermal, PairOptions(thermal_scaling=scaling, align="label"))
    assert rgb_HW3.shape == (96, 128, 3) and thermal_HW.shape == (96, 128), "without a label, RGB gives the size"


def test_pairs_that_the_configuration_does_not_prepare(tmp_path):
    _, scene = next(scenes_of("test", 1))
    rgb = write_image(tmp_path / "a.png", scene.rgb[::2, ::2])
    thermal = write_image(tmp_path / "a.tiff", raw_counts(scene.thermal))
    with pytest.raises(DataError, match=r"a\.tiff: got uint16 values .*data\.thermal_scaling"):
        read_pair(rgb, thermal, PairOptions())
    with pytest.raises(DataError, match=r"a\.png is 24x32, .*a\.tiff is 48x64; .*data\.align"):
        read_pair(rgb, thermal, PairOptions(thermal_scaling=ThermalScaling(mode="minmax")))


def test_packed_images_are_scaled_too(tmp_path):
    _, scene = next(scenes_of("test", 1))
    packed = np.dstack([scene.rgb[..., ::-1], scene.thermal])
    assert cv2.imwrite(str(tmp_path / "a.png"), packed)
    ((rgb, thermal),) = find_pairs(tmp_path / "a.png", None).values()
    rgb_HW3, thermal_HW = read_pair(rgb, thermal, PairOptions(thermal_scaling=ThermalScaling(invert=True)))
    np.testing.assert_array_equal(rgb_HW3, scene.rgb)
    np.testing.assert_array_equal(thermal_HW, 255 - scene.thermal)
