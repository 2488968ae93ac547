"""A run that stops and resumes equals one that did not, bit for bit: weights, optimizer, logs, best checkpoint."""

from __future__ import annotations

import json
import signal

import pytest
import torch

from mdg.engine import train
from mdg.engine.checkpoint import load_checkpoint
from mdg.engine.trainer import Trainer
from mdg.errors import UserError


def assert_same(one, two, path=""):
    """Equal plain values and bitwise equal tensors, recursively."""
    assert type(one) is type(two), path
    if isinstance(one, torch.Tensor):
        assert one.dtype == two.dtype and torch.equal(one, two), path
    elif isinstance(one, dict):
        assert one.keys() == two.keys(), path
        for key in one:
            assert_same(one[key], two[key], f"{path}.{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(two), path
        for index, (a, b) in enumerate(zip(one, two, strict=True)):
            assert_same(a, b, f"{path}[{index}]")
    else:
        assert one == two, path


def assert_same_run(one, two):
    for file in ("last", "best"):
        a, b = load_checkpoint(getattr(one, file)), load_checkpoint(getattr(two, file))
        a.pop("config"), b.pop("config")  # they differ in where to stop
        assert_same(a, b)
    assert one.metrics.read_text() == two.metrics.read_text()


VARIANTS = {
    "plain": (),
    "ema, accumulation, clipping": ("train.ema_decay=0.9", "train.accumulate=3", "train.clip_grad_norm=1.0"),
    "bf16, sgd, cosine": ("train.precision=bf16", "optimizer={type: SGD, momentum: 0.9}", "schedule={type: Cosine}"),
    "loader processes": ("pipeline.workers=2",),
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("stop", ["train.stop_epoch=2", "train.max_steps=3"])
def test_two_and_two_epochs_equal_four(tiny_run, variant, stop):
    straight = tiny_run("straight", *VARIANTS[variant])
    tiny_run("stopped", *VARIANTS[variant], stop)
    stopped = tiny_run("stopped", *VARIANTS[variant], resume=True)
    assert load_checkpoint(straight.last)["progress"]["epoch"] == 4
    assert_same_run(straight, stopped)


def test_the_full_model_resumes_bit_for_bit(tmp_path, tiny_yaml):
    """Stochastic depth, dropout and the auxiliary heads of MDG included."""
    opts = [
        "model={type: MDG, rgb_backbone: b0, thermal_backbone: b0, decoder: {type: SemanticDynamicDecoder, "
        "embed_dim: 32}}",
        "data.height=64",
        "data.width=64",
        "data.limit=4",
        "log.every_steps=1",
    ]
    straight = train(tiny_yaml, opts, run_dir=tmp_path / "straight")
    train(tiny_yaml, [*opts, "train.stop_epoch=2"], run_dir=tmp_path / "stopped")
    stopped = train(tiny_yaml, opts, resume=tmp_path / "stopped")
    assert_same_run(straight, stopped)


def test_loader_processes_do_not_change_a_run(tiny_run):
    assert_same_run(tiny_run("none", "train.epochs=2"), tiny_run("two", "train.epochs=2", "pipeline.workers=2"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_behind_a_saved_step(tiny_run, monkeypatch, number):
    straight = tiny_run("straight")
    original = Trainer.train_step

    def step_with_signal(self, group):
        original(self, group)
        if self.progress.step == 5:
            signal.raise_signal(number)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_step", step_with_signal)
        stopped = tiny_run("stopped")
    assert load_checkpoint(stopped.last)["progress"] | {"best_score": 0, "best_epoch": 0} == {
        "epoch": 1,
        "batch": 2,
        "step": 6,
        "best_score": 0,
        "best_epoch": 0,
    }
    assert_same_run(straight, tiny_run("stopped", resume=True))


def test_a_crash_costs_no_more_than_the_last_saved_step(tiny_run, monkeypatch):
    straight = tiny_run("straight")
    original = Trainer.train_step

    def step_with_crash(self, group):
        if self.progress.step == 7:
            raise RuntimeError("power cut")
        original(self, group)

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="power cut"):
        patch.setattr(Trainer, "train_step", step_with_crash)
        tiny_run("stopped", "checkpoint.every_steps=2")
    resumed = tiny_run("stopped", resume=True)
    assert_same_run(straight, resumed)
    steps = [json.loads(line)["step"] for line in resumed.metrics.read_text().splitlines()]
    assert steps == sorted(steps) and len(set(steps)) == len(steps) - 1  # step 12 is logged and evaluated


def test_a_diverged_loss_stops_and_keeps_the_last_good_state(tiny_run, monkeypatch):
    original = Trainer._forward

    def forward(self, batch):
        loss = original(self, batch)
        if self.progress.step == 5:
            self.meter.add({"loss": torch.tensor(float("nan"))})
        return loss

    monkeypatch.setattr(Trainer, "_forward", forward)
    with pytest.raises(UserError, match="no longer finite at step 6"):
        tiny_run("diverged")


def test_resume_says_what_is_missing(tmp_path, tiny_yaml):
    with pytest.raises(UserError, match="expected a run directory"):
        train(tiny_yaml, resume=tmp_path / "nowhere")


def test_a_run_is_never_overwritten(tiny_run):
    tiny_run("run", "train.epochs=1")
    with pytest.raises(UserError, match="nothing is overwritten"):
        tiny_run("run", "train.epochs=1")
