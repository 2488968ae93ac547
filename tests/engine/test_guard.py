"""Steps whose loss or gradients are not finite change nothing; too many of them end the run."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from mdg.engine.checkpoint import load_checkpoint
from mdg.engine.distributed import World
from mdg.engine.guard import StepGuard
from mdg.engine.state import LossMeter
from mdg.engine.trainer import Trainer
from mdg.errors import NonFiniteError

OPTIMIZERS = {
    "fused AdamW": lambda p: torch.optim.AdamW(p, lr=0.1, fused=True),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.1),
    "SGD": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
}


def small_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 1, 1))


def make_guard(network, make_optimizer, clip=None, fp16=False):
    scaler = torch.amp.GradScaler("cpu", enabled=fp16, init_scale=4.0)
    return StepGuard(network, make_optimizer(network.parameters()), scaler, clip), scaler


def step(network, guard, scaler, image, spoil=None):
    guard.begin()
    loss = guard.spread(network(image).square().mean())
    scaler.scale(loss).backward()
    if spoil is not None:
        spoil(network)
    guard.finish()
    guard.optimizer.zero_grad()


def infinite_gradient(network):
    network[2].weight.grad[0, 0] = torch.inf


def huge_gradients(network):  # every one of them is finite, their norm is not
    for parameter in network.parameters():
        parameter.grad.fill_(3e38)


def snapshot(network, guard):
    state = {name: value.clone() for name, value in network.state_dict().items()}
    moments = [
        {name: value.clone() for name, value in guard.optimizer.state[p].items() if value is not None}
        for p in network.parameters()
    ]
    return state, moments


def assert_equal(one, two):
    for a, b in zip((one[0], *one[1]), (two[0], *two[1]), strict=True):
        assert a.keys() == b.keys()
        for name in a:
            assert torch.equal(a[name], b[name]), name


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("fp16", [False, True])
@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize("fault", ["image", infinite_gradient, huge_gradients])
def test_a_step_that_is_not_finite_changes_nothing(optimizer, fp16, clip, fault):
    image = torch.randn(2, 2, 8, 8, generator=torch.Generator().manual_seed(1))
    bad = image.clone()
    if fault == "image":
        bad[0, 0, 0, 0] = torch.nan
    network = small_network()
    guard, scaler = make_guard(network, OPTIMIZERS[optimizer], clip, fp16)
    step(network, guard, scaler, image)
    before = snapshot(network, guard)
    step(network, guard, scaler, bad, None if fault == "image" else fault)
    assert_equal(before, snapshot(network, guard))
    assert guard.in_a_row() == 1 and guard.total() == 1
    step(network, guard, scaler, image)
    assert guard.in_a_row() == 0 and guard.total() == 1
    assert all(p.isfinite().all() for p in network.parameters())
    assert not torch.equal(before[0]["0.weight"], network[0].weight)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_first_step_that_is_skipped_leaves_no_trace(optimizer):
    image = torch.randn(2, 2, 8, 8, generator=torch.Generator().manual_seed(1))
    networks = small_network(), small_network()
    for network, skips in zip(networks, (False, True), strict=True):
        guard, scaler = make_guard(network, OPTIMIZERS[optimizer])
        if skips:
            step(network, guard, scaler, image * torch.nan)
        for _ in range(3):
            step(network, guard, scaler, image)
    for one, two in zip(networks[0].parameters(), networks[1].parameters(), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_finite_steps_are_those_of_the_optimizer_alone(optimizer):
    image = torch.randn(2, 2, 8, 8, generator=torch.Generator().manual_seed(1))
    guarded, plain = small_network(), small_network()
    guard, scaler = make_guard(guarded, OPTIMIZERS[optimizer], clip=0.1)
    alone = OPTIMIZERS[optimizer](plain.parameters())
    for _ in range(3):
        step(guarded, guard, scaler, image)
        plain(image).square().mean().backward()
        nn.utils.clip_grad_norm_(plain.parameters(), 0.1)
        alone.step()
        alone.zero_grad()
    for one, two in zip(guarded.state_dict().values(), plain.state_dict().values(), strict=True):
        assert torch.equal(one, two)


def test_counts_survive_a_checkpoint():
    network = small_network()
    guard, scaler = make_guard(network, OPTIMIZERS["AdamW"])
    for _ in range(2):
        step(network, guard, scaler, torch.full((2, 2, 8, 8), torch.inf))
    other, _ = make_guard(small_network(), OPTIMIZERS["AdamW"])
    other.load_state_dict(guard.state_dict())
    assert (other.in_a_row(), other.total()) == (2, 2)
    other.load_state_dict({})
    assert (other.in_a_row(), other.total()) == (0, 0)


def test_the_mean_loss_leaves_skipped_passes_out():
    meter = LossMeter()
    for loss, dice in ((2.0, 1.0), (float("nan"), 5.0), (4.0, 3.0)):
        meter.add({"loss": torch.tensor(loss), "dice": torch.tensor(dice)})
    assert meter.flush(World()) == {"loss": 3.0, "dice": 2.0}
    meter.add({"loss": torch.tensor(float("inf"))})
    assert str(meter.flush(World())) == "{'loss': nan}" and meter.empty


def spoil_images(monkeypatch, bad_steps):
    """NaN losses at some steps, from inside the network."""
    original = Trainer._forward

    def forward(self, network, part, batch):
        loss = original(self, network, part, batch)
        return loss * float("nan") if self.progress.step in bad_steps else loss

    monkeypatch.setattr(Trainer, "_forward", forward)


def test_a_run_skips_counts_and_goes_on(tiny_run, monkeypatch):
    spoil_images(monkeypatch, {2, 5, 6})
    run = tiny_run("run", "log.every_steps=4")
    records = [r for r in map(json.loads, run.metrics.read_text().splitlines()) if r["kind"] == "train"]
    assert [r["skipped_steps"] for r in records] == [1, 3, 3, 3]
    state = load_checkpoint(run.last)
    assert state["progress"]["step"] == 16 and state["progress"]["epoch"] == 4
    assert all(value.isfinite().all() for value in state["model"].values())
    log = (run.path / "train.log").read_text()
    assert "1 steps skipped since the last line" in log and "2 steps skipped" in log


def test_skipped_steps_in_a_row_end_the_run_and_keep_the_last_good_state(tiny_run, monkeypatch):
    good = tiny_run("good", "train.stop_epoch=1")
    with monkeypatch.context() as patch:
        spoil_images(patch, range(5, 99))
        with pytest.raises(NonFiniteError) as caught:
            tiny_run("run", "train.max_skipped_steps=3")
    message, folder = str(caught.value), good.path.parent / "run"
    assert "too many steps in a row" in message and "up to step 8" in message and "learning rate 0.0" in message
    assert "loss, for 000" in message and "non-finite-step-8.pt" in message
    last = load_checkpoint(folder / "checkpoints" / "last.pt")
    assert last["progress"]["step"] == 4
    for name, value in load_checkpoint(good.last)["model"].items():
        assert torch.equal(value, last["model"][name])
    assert (folder / "non-finite-step-8.pt").is_file()
    resumed = tiny_run("run", resume=True)  # where the cause is gone, the run goes on
    assert load_checkpoint(resumed.last)["progress"]["epoch"] == 4


def test_a_rate_far_too_high_never_leaves_weights_that_are_not_finite(tiny_run, tmp_path):
    with pytest.raises(NonFiniteError):
        tiny_run("run", "optimizer.lr=1e38", "schedule={type: Constant, warmup_epochs: 0}", "train.max_skipped_steps=4")
    for file in (tmp_path / "run" / "checkpoints").glob("*.pt"):
        assert all(value.isfinite().all() for value in load_checkpoint(file)["model"].values())
