"""A run on Cityscapes from end to end: an epoch, scores, predictions; networks that would look at a camera it lacks."""

from __future__ import annotations

import json

import cv2
import pytest
import torch
import yaml
from layouts import write_cityscapes

from mdg.config import load_config
from mdg.data import build_dataset
from mdg.engine import train
from mdg.engine.evaluation import pictures
from mdg.engine.evaluation.evaluate import evaluate
from mdg.engine.evaluation.evaluator import for_cameras
from mdg.engine.export import export_weights
from mdg.engine.predict import predict
from mdg.engine.robustness.plan import befalling, chosen_corruptions
from mdg.errors import ConfigError
from mdg.models import build_model
from mdg.models.absence import require_cameras
from tests.engine.conftest import TINY

MODEL = {
    "type": "SingleStream",
    "input": "rgb",
    "backbone": "b0",
    "decoder": {"type": "DualFrequencyDecoder", "level_widths": [8, 8, 8, 8], "embed_dim": 8},
}
SMALL = {"rgb_backbone": "b0", "thermal_backbone": "b0", "interaction": None, "auxiliary_heads": False}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """An epoch on four images of 64x128; the last one counts, as in the configurations that are shipped."""
    folder = tmp_path_factory.mktemp("run")
    root = write_cityscapes(folder / "cityscapes", train=4, val=2)
    settings = {
        **TINY,
        "custom_imports": [],
        "data": {"type": "Cityscapes", "root": str(root)},
        "pipeline": {"train": [{"type": "RandomResizedCrop", "size": [64, 64], "scale": [1.0, 2.0]}], "workers": 0},
        "model": MODEL,
        "loss": [{"type": "OhemCrossEntropy", "min_kept": 0.38}],
        "train": {"epochs": 1, "batch_size": 2},
        "eval": {"selection": "last", "mode": "slide", "window": [64, 64], "stride": [43, 43]},
        "exp_dir": str(folder),
    }
    (folder / "small.yaml").write_text(yaml.safe_dump(settings))
    return train(folder / "small.yaml", run_dir=folder / "run")


def test_an_epoch_and_its_scores(run, tmp_path, monkeypatch):
    shown = []
    panel = pictures.vis.panel
    monkeypatch.setattr(
        pictures.vis, "panel", lambda parts, **given: shown.append([c for c, _ in parts]) or panel(parts)
    )
    result = evaluate(run.best, out_dir=tmp_path / "results")
    protocol = result.protocol
    assert (protocol.dataset, protocol.split, protocol.images) == ("Cityscapes", "val", 2)
    assert protocol.mode == "sliding window 64x64, stride 43x43, RGB alone"
    assert protocol.preparation == "RGB alone, no thermal camera" and len(protocol.classes) == 19
    assert protocol.selection.startswith("last")
    assert result.evaluation.confusion.counts.sum() > 0
    content = json.loads((tmp_path / "results" / "results.json").read_text())
    assert content["evaluated_with"].get("eval.cameras", "rgb") == "rgb"
    assert [captions[1:] for captions in shown[:2]] == [["prediction over RGB", "prediction", "label"]] * 2


def test_predictions_for_photographs_alone(run, tmp_path):
    photos = build_dataset(load_config(run.path / "config.yaml").data, "test").sources(0)[0].parent
    written = predict(photos, "none", run.best, out_dir=tmp_path / "masks", save=["mask"])
    assert written and all(cv2.imread(str(file), cv2.IMREAD_UNCHANGED).shape == (64, 128) for file in written)


@pytest.mark.parametrize(
    ("options", "needs"),
    [
        ({"type": "SingleStream", "backbone": "b0", "input": "rgb"}, False),
        ({"type": "SingleStream", "backbone": "b0", "input": "thermal"}, True),
        ({"type": "SingleStream", "backbone": "b0", "input": "both"}, True),
        ({"type": "MDG", **SMALL}, True),
        ({"type": "MDG", **SMALL, "stand_ins": "zero"}, False),
        ({"type": "LateFusion", "backbone": "b0"}, False),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else str(value),
)
def test_a_network_that_needs_thermal_is_refused(options, needs):
    with torch.device("meta"):
        model = build_model(options, 19)
    require_cameras(model, ("rgb", "thermal"), "MFNet")
    if not needs:
        require_cameras(model, ("rgb",), "Cityscapes")
        return
    with pytest.raises(ConfigError) as caught:
        require_cameras(model, ("rgb",), "Cityscapes")
    message = str(caught.value)
    assert message.startswith(
        "Cityscapes has no thermal camera, and this network looks at thermal; take one that sees RGB"
    )
    assert "\n" not in message


def test_a_thermal_network_is_not_scored_on_it(run, tmp_path):
    """Weights from elsewhere, of as many classes; it is said before anything is scored or written."""
    other = torch.load(run.best, weights_only=False)
    config = load_config(run.path / "config.yaml", ["model.input=thermal"])
    weights = build_model(config.model, 19).state_dict()
    assert weights["backbone.patch_embed1.proj.weight"].shape[1] == 1
    other["model"], other["config"] = weights, other["config"].replace("input: rgb", "input: thermal")
    torch.save(other, tmp_path / "thermal.pt")
    with pytest.raises(ConfigError, match="Cityscapes has no thermal camera, and this network looks at thermal"):
        evaluate(tmp_path / "thermal.pt", out_dir=tmp_path / "results")
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("eval.cameras=thermal", r"eval.cameras: thermal: Cityscapes has one camera \(rgb\)"),
        ("eval.objects=true", r"eval.objects: true: Cityscapes has one camera \(rgb\)"),
    ],
)
def test_scores_that_need_two_cameras(run, options, message):
    config = load_config(run.path / "config.yaml", [options])
    dataset = build_dataset(config.data, "test")
    with pytest.raises(ConfigError, match=message):
        for_cameras(config, dataset, torch.nn.Identity())


def test_who_is_shown_nothing_in_place_of_thermal(run):
    """A network that can do without; one that takes two images, such as an exported one, is shown black."""
    config = load_config(run.path / "config.yaml")
    dataset = build_dataset(config.data, "test")
    with torch.device("meta"):
        model = build_model({"type": "LateFusion", "backbone": "b0"}, 19)
    assert for_cameras(config, dataset, model).eval.cameras == "rgb"
    assert for_cameras(config, dataset, torch.nn.Identity()).eval.cameras == "both"


def test_corruptions_are_those_of_its_camera(run):
    dataset = build_dataset(load_config(run.path / "config.yaml").data, "test")
    every = chosen_corruptions()
    assert {one.camera for one in every} == {"rgb", "thermal"}
    assert [one.name for one in befalling(every, dataset)] == [one.name for one in every if one.camera == "rgb"]
    with pytest.raises(ConfigError, match="Cityscapes has no thermal camera; name corruptions of rgb"):
        befalling(chosen_corruptions(["ThermalNoise"]), dataset)


def test_the_card_of_its_weights_says_one_image(run, tmp_path):
    export_weights(run.best, tmp_path / "export")
    card = (tmp_path / "export" / "README.md").read_text()
    assert "--rgb photo.png --thermal none" in card and "heat.png" not in card
    assert "RGB of 3 channels, 8 bits, any size." in card


def test_a_network_that_looks_at_thermal_is_not_trained_on_black_images(run, tmp_path):
    with pytest.raises(ConfigError, match="no thermal camera"):
        train(run.config, ["model.input=thermal"], run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()
