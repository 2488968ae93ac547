"""What is said of the interaction, against the same numbers computed by hand."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch

from mdg.commands import explain as command
from mdg.config import load_config
from mdg.data import build_dataset
from mdg.engine import explain_split as explaining_split
from mdg.engine import predictor
from mdg.engine.distributed import World
from mdg.engine.evaluation.evaluator import make_eval_loader
from mdg.engine.explain import draw
from mdg.engine.explain_split import explain_split
from mdg.engine.watching import Stage, measure, watched
from mdg.errors import ConfigError
from mdg.losses import Objective
from mdg.models import build_model

B0 = {"type": "MDG", "rgb_backbone": "b0", "thermal_backbone": "b0"}


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return build_model({**B0, "interaction_stages": [1, 3, 4]}, 3).eval()


def images():
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(0, 256, (2, c, 64, 96), dtype=torch.uint8, generator=generator) for c in (3, 1)]


@torch.no_grad()
def test_every_interaction_of_a_pass_is_watched_and_then_no_longer(network):
    with watched(network) as stages:
        output = network(*images())
    network(*images())
    assert [stage.number for stage in stages] == [1, 3, 4]
    for stage, where in zip(stages, output.divergence, strict=True):
        assert torch.equal(stage.divergence_BHW, where.divergence_BHW) and torch.equal(stage.mask_BHW, where.mask())
        selected = stage.mask_BHW > 0.5
        for before, after, gate in zip(stage.before, stage.after, stage.gates, strict=True):
            assert torch.equal(before[~selected], after[~selected]) and not torch.equal(before, after)
            assert gate.shape == selected.shape and gate.min() > 0 and gate.max() < 1


def test_a_network_without_one_is_a_message():
    model = build_model({**B0, "interaction": None}, 3)
    with pytest.raises(ConfigError, match=r"no divergence interaction \(model.interaction\)"), watched(model):
        pass


def test_numbers_by_hand():
    before = torch.tensor([[[[3.0, 4.0], [0.0, 2.0]], [[1.0, 0.0], [0.0, 1.0]]]])  # [1, 2, 2, 2]
    after = torch.tensor([[[[6.0, 8.0], [0.0, 2.0]], [[0.0, 1.0], [0.0, 1.0]]]])
    mask = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
    stage = Stage(2, (before, before), (after, before), torch.tensor([[[0.0, 1.0], [1.0, 2.0]]]), mask, None)
    label = torch.tensor([[[0, 0, 255, 255], [0, 0, 255, 255], [0, 0, 0, 0], [0, 5, 0, 0]]])
    found = measure(stage, label)
    assert found["stage"] == 2 and found["divergence"]["mean"] == 1 and "gate" not in found
    selected = found["rgb"]["selected"]
    assert selected["norm"] == 3 and selected["norm after / before"] == 1.5  # (5 + 1) / 2; (2 + 1) / 2
    assert selected["change / norm"] == pytest.approx((1 + 2**0.5) / 2) and selected["cosine"] == 0.5
    assert found["rgb"]["other"] == {"norm": 1.5, "norm after / before": 1, "change / norm": 0, "cosine": 1}
    assert found["thermal"]["selected"]["change / norm"] == 0
    # Cells of 2x2 pixels: the object lies in the lower left one, its edges in both lower ones, the ignored pixels fill
    # the upper right one.
    assert found["mask"] == {"all": 0.5, "objects": 1, "edges": 0.5, "ignored": 0}


@torch.no_grad()
def test_pictures_of_a_stage(network):
    with watched(network) as stages:
        network(*images())
    picture = draw(stages[1], 1, 80)
    assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[0] >= 80


def test_the_command_draws_a_pair(network, tmp_path, monkeypatch, capsys):
    config = load_config("configs/demo.yaml", ["device=cpu", "threads=1"])
    state = {"classes": ["a"] * 3, "palette": [[0, 0, 0]] * 3}
    monkeypatch.setattr(predictor, "open_checkpoint", lambda *_: (tmp_path / "x.pt", state, config))
    monkeypatch.setattr(predictor, "load_model", lambda *_: network)
    rgb, thermal = images()
    cv2.imwrite(str(tmp_path / "p.png"), rgb[0].permute(1, 2, 0).numpy())
    cv2.imwrite(str(tmp_path / "t.png"), thermal[0, 0].numpy())
    out = tmp_path / "out"
    command.main(["--rgb", str(tmp_path / "p.png"), "--thermal", str(tmp_path / "t.png"), "--out", str(out)])
    assert "1 pictures in" in capsys.readouterr().out
    assert cv2.imread(str(out / "p_interaction.png")) is not None
    stages = json.loads((out / "p_interaction.json").read_text())["stages"]
    assert [stage["stage"] for stage in stages] == [1, 3, 4]
    assert all(stage["rgb"]["selected"]["norm after / before"] > 0 for stage in stages)


@torch.no_grad()
def test_step_sizes_are_those_of_the_scan(network):
    """By hand from the tokens of stage 4: softplus of the projected rank-2 part."""
    kept = {}
    scans = network.interaction[3].mamba.scans
    hook = scans.register_forward_hook(lambda module, inputs, out: kept.update(tokens=inputs[0]))
    with watched(network) as stages:
        network(*images())
    hook.remove()
    for direction, found in zip(scans, stages[-1].steps, strict=True):
        projected = kept["tokens"] @ direction.x_proj.weight.T
        dt = torch.log1p(torch.exp(projected[..., :2] @ direction.dt_proj.weight.T + direction.dt_proj.bias))
        assert found == pytest.approx(dt.mean().item(), rel=1e-5)


def test_a_split_in_numbers(network, tmp_path, monkeypatch, capsys):
    """Two batches: the means of what each of them gives, and the gradient of the sum of their losses."""
    data = "data={type: Synthetic, height: 64, width: 96, train_images: 1, val_images: 1, test_images: 5}"
    config = load_config("configs/demo.yaml", [data, "eval.batch_size=3", "threads=1", "device=cpu"])
    model, file = build_model({**B0, "interaction_stages": [1, 4]}, 9).eval(), tmp_path / "numbers.json"
    monkeypatch.setattr(explaining_split, "open_checkpoint", lambda *_: (tmp_path / "x.pt", {}, config))
    monkeypatch.setattr(explaining_split, "load_model", lambda *_: model)
    found = explain_split("test", json_file=file)
    dataset = build_dataset(config.data, "test")
    objective = Objective(config.loss, config.auxiliary_loss, num_classes=9, ignore_index=255)
    model.zero_grad()
    by_hand = []
    for batch in make_eval_loader(config, dataset, World()):
        with watched(model) as stages:
            output = model(batch.rgb_B3HW, batch.thermal_B1HW)
        objective(output, batch.label_BHW.long())[0].backward()
        by_hand.append([measure(stage, batch.label_BHW) for stage in stages])
    assert len(by_hand) == 2 and [record["stage"] for record in found] == [1, 4]
    for place, record in enumerate(found):
        parts = [numbers[place] for numbers in by_hand]
        for name in ("norm", "cosine", "change / norm"):
            expected = np.mean([part["thermal"]["selected"][name] for part in parts])
            assert record["thermal"]["selected"][name] == pytest.approx(expected, rel=1e-4)
        grads = [
            p.grad.flatten() for p in model.interaction[record["stage"] - 1].mamba.parameters() if p.grad is not None
        ]
        assert record["gradient"]["CM"] == pytest.approx(torch.cat(grads).square().mean().sqrt().item(), rel=1e-4)
        assert record["gradient"]["encoders"] > 0 and record["step size"]["backwards"] > 0
    assert json.loads(file.read_text())["stages"] == found
    printed = capsys.readouterr().out
    assert "stage 4" in printed and "thermal, selected, cosine" in printed and "gradient, LCA" in printed


@pytest.mark.parametrize("arguments", [[], ["--rgb", "a.png", "--split", "val"], ["--rgb", "a.png", "--json", "x"]])
def test_pairs_or_a_split(arguments, capsys):
    with pytest.raises(SystemExit):
        command.main(arguments)
    assert "name image pairs (--rgb, --thermal), or a split" in capsys.readouterr().err


def test_an_unknown_split_is_a_message():
    with pytest.raises(ConfigError, match="--split all: expected one of train, val, test"):
        explain_split("all")
