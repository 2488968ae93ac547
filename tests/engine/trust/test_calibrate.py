"""Calibration of a small run, and what predictions and scores say afterwards."""

from __future__ import annotations

import json
import shutil

import cv2
import numpy as np
import pytest
import torch

import mdg
from mdg.commands import calibrate as command
from mdg.config.schema import EvalConfig
from mdg.engine import evaluate
from mdg.engine.checkpoint import load_checkpoint
from mdg.engine.export import export_weights
from mdg.engine.predict import predict
from mdg.engine.trust.calibrate import calibrate
from mdg.engine.trust.holds import trust_under
from mdg.errors import ConfigError, WeightsError


@pytest.fixture(scope="module")
def uncalibrated(tmp_path_factory):
    """The best checkpoint of a run of the tiny network, and its configuration."""
    import yaml

    from mdg.engine import train
    from tests.engine.conftest import TINY

    folder = tmp_path_factory.mktemp("uncalibrated")
    (folder / "tiny.yaml").write_text(yaml.safe_dump({**TINY, "exp_dir": str(folder / "exp")}))
    return train(folder / "tiny.yaml", ["train.epochs=1"], run_dir=folder / "run").best, folder / "tiny.yaml"


@pytest.fixture(scope="module")
def calibrated(uncalibrated, tmp_path_factory):
    """A copy that was calibrated, its configuration, and what was measured."""
    best, config = uncalibrated
    file = tmp_path_factory.mktemp("calibrated") / "best.pt"
    shutil.copy(best, file)
    return file, config, calibrate(file, config).trust


def test_weights_stay_and_the_rest_is_told(uncalibrated, calibrated):
    old, new = load_checkpoint(uncalibrated[0]), load_checkpoint(calibrated[0])
    assert all(torch.equal(value, new["model"][name]) for name, value in old["model"].items())
    assert trust_under(old, EvalConfig()) is None and trust_under(new, EvalConfig()) == calibrated[2]
    assert {key: new[key] for key in ("config", "progress", "classes")} == {
        key: old[key] for key in ("config", "progress", "classes")
    }
    trust = calibrated[2]
    assert trust.after <= trust.before and trust.split == "val" and trust.images > 0 and trust.mode == "whole image"
    assert [group.name for group in trust.familiar] == ["pixels"]  # a network without a decoder


def test_scores_stay_and_their_calibration_is_told(uncalibrated, calibrated, tmp_path):
    results = [
        evaluate(file, calibrated[1], split="val", out_dir=tmp_path / str(place)).folder
        for place, file in enumerate((uncalibrated[0], calibrated[0]))
    ]
    old, new = (json.loads((folder / "results.json").read_text()) for folder in results)
    assert old["scores"] == new["scores"] and old["confusion_matrix"] == new["confusion_matrix"]
    assert (old["calibration"]["temperature"], new["calibration"]["temperature"]) == (1.0, calibrated[2].temperature)
    told = [result["calibration"]["expected_calibration_error"] for result in (old, new)]
    assert told[1] < told[0] or calibrated[2].temperature == pytest.approx(1, abs=0.01)
    assert sum(part["pixels"] for part in new["calibration"]["bins"]) == np.sum(new["confusion_matrix"])
    assert sum(part["right"] for part in new["calibration"]["bins"]) == np.trace(new["confusion_matrix"])


def test_predictions_keep_their_masks_and_know_strange_pairs(uncalibrated, calibrated):
    plain, trusted = (mdg.load(file, calibrated[1], device="cpu") for file in (uncalibrated[0], calibrated[0]))
    rng = np.random.default_rng(0)
    rgb, thermal = rng.integers(0, 256, (64, 64, 3), np.uint8), rng.integers(0, 256, (64, 64), np.uint8)
    one, other = plain(rgb, thermal), trusted(rgb, thermal)
    assert np.array_equal(one.mask, other.mask) and one.unlikeness is None and not one.is_unlike
    np.testing.assert_allclose(other.probabilities.sum(0), 1, atol=1e-5)
    assert not np.allclose(one.probabilities, other.probabilities)
    assert other.is_unlike  # noise is no scene
    assert np.array_equal(other.overlay()[0, 0], [220, 30, 30]) and not np.array_equal(one.overlay(), other.overlay())


def test_scenes_as_in_training_are_familiar(calibrated):
    from mdg.data import build_dataset, read_batch

    file, config, _ = calibrated
    predictor = mdg.load(file, config, device="cpu")
    dataset = build_dataset(predictor.config.data, "val")
    batches = [read_batch(dataset, place, None) for place in range(len(dataset))]
    found = [predictor(batch.rgb_B3HW[0], batch.thermal_B1HW[0]).unlikeness for batch in batches]
    assert sum(value <= 1 for value in found) >= 0.9 * len(found) - 1 and max(found) < 1.5


def test_files_of_strange_pairs_are_marked(calibrated, tmp_path, capsys):
    rng = np.random.default_rng(0)
    for folder, shape in (("rgb", (64, 64, 3)), ("thermal", (64, 64))):
        (tmp_path / folder).mkdir()
        cv2.imwrite(str(tmp_path / folder / "noise.png"), rng.integers(0, 256, shape, np.uint8))
    predict(
        tmp_path / "rgb", tmp_path / "thermal", *calibrated[:2], out_dir=tmp_path / "out", save=["areas", "entropy"]
    )
    told = json.loads((tmp_path / "out" / "areas.jsonl").read_text())
    assert told["unlikeness"] > 1
    said = capsys.readouterr().out
    assert "1 of 1 pairs are unlike what trained the network" in said and said.rstrip().endswith("noise")
    assert cv2.imread(str(tmp_path / "out" / "noise_entropy.png")).shape == (64, 64, 3)


def test_another_mode_is_not_trusted(calibrated, caplog):
    predictor = mdg.load(*calibrated[:2], device="cpu", opts=["eval.mode=slide", "eval.window=[64, 64]"])
    assert predictor.trust is None and predictor.inference.temperature == 1.0
    assert "the weights were calibrated for whole image, and this is sliding window 64x64" in caplog.text


def test_exported_weights_take_it_along(calibrated, tmp_path):
    exported = export_weights(calibrated[0], tmp_path / "export")
    assert mdg.load(exported.file, calibrated[1], device="cpu").trust == calibrated[2]
    with pytest.raises(ConfigError, match="calibrate the checkpoint, and export it again"):
        calibrate(exported.file, calibrated[1])


def test_the_training_split_is_refused(calibrated):
    with pytest.raises(ConfigError, match="expected frames that did not train the weights"):
        calibrate(*calibrated[:2], split="train")


def test_what_is_no_calibration_is_refused(calibrated, tmp_path):
    from mdg.engine.checkpoint import save_checkpoint

    state = {key: value for key, value in load_checkpoint(calibrated[0]).items() if key != "format"}
    save_checkpoint(tmp_path / "bad.pt", {**state, "trust": {**state["trust"], "temperature": 0.0}})
    with pytest.raises(WeightsError, match=r"trust.temperature: got 0.0, expected greater than 0"):
        load_checkpoint(tmp_path / "bad.pt")


def test_the_command(uncalibrated, tmp_path, capsys):
    file = tmp_path / "best.pt"
    shutil.copy(uncalibrated[0], file)
    command.run(command.parse().parse_args(["--checkpoint", str(file), "--config", str(uncalibrated[1])]))
    said = capsys.readouterr().out
    assert "temperature" in said and "99 of 100 frames of val" in said and "tools/val_mm.py" in said
