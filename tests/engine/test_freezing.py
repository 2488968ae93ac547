"""Parts that do not learn: which they are, and that nothing of them changes in training."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mdg.engine.checkpoint import load_checkpoint
from mdg.engine.freezing import describe_size, freeze, hold
from mdg.errors import ConfigError


def network() -> nn.Module:
    parts = {"stem": nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)), "head": nn.Sequential(nn.Conv2d(4, 2, 1))}
    return nn.ModuleDict(parts)


@pytest.mark.parametrize(
    ("patterns", "frozen", "held"),
    [
        (["stem"], ["stem.0.weight", "stem.0.bias", "stem.1.weight", "stem.1.bias"], 1),
        (["stem.0"], ["stem.0.weight", "stem.0.bias"], 0),
        (["*.bias"], ["stem.0.bias", "stem.1.bias", "head.0.bias"], 0),
        (["stem.1", "head"], ["stem.1.weight", "stem.1.bias", "head.0.weight", "head.0.bias"], 1),
        ([], [], 0),
    ],
)
def test_patterns_name_parts_and_parameters(patterns, frozen, held):
    model = network()
    batch_norms = freeze(model, patterns)
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == frozen
    assert len(batch_norms) == held


def test_a_run_says_how_much_learns():
    model = nn.ModuleDict({name: nn.Linear(1000, 10 * size) for name, size in {"stem": 4, "head": 3}.items()})
    assert describe_size(model) == "0.07 M parameters"
    freeze(model, ["stem"])
    assert describe_size(model) == "0.07 M parameters, of which 0.03 M learn"


def test_statistics_of_frozen_parts_stay():
    model = network()
    batch_norms = freeze(model, ["stem"])
    model.train()
    hold(batch_norms)
    model["stem"](torch.randn(2, 1, 8, 8))
    assert model["stem"][1].num_batches_tracked == 0 and model["stem"][1].running_mean.eq(0).all()


def test_a_pattern_of_nothing_and_nothing_left_are_messages():
    with pytest.raises(
        ConfigError, match=r"'stm' names no part of the network; its parts are stem, head. Did you mean"
    ):
        freeze(network(), ["stm"])
    with pytest.raises(ConfigError, match="nothing is left to learn"):
        freeze(network(), ["*"])


def test_a_run_leaves_frozen_parts_as_they_were(tiny_run):
    """Weight decay and statistics included; what is not frozen learns. A resumed run goes on exactly."""
    first = tiny_run("first", "train.epochs=1")
    before = load_checkpoint(first.best)["model"]
    opts = [f"train.init_from={first.best}", "train.freeze=[net.0, net.1]", "train.epochs=3"]
    straight = load_checkpoint(tiny_run("second", *opts).last, training=True)
    for name, value in before.items():
        assert torch.equal(value, straight["model"][name]) == name.startswith(("net.0.", "net.1.")), name
    tiny_run("third", *opts, "train.stop_epoch=1")
    resumed = load_checkpoint(tiny_run("third", *opts, resume=True).last, training=True)
    assert all(torch.equal(value, resumed["model"][name]) for name, value in straight["model"].items())
