"""One optimizer step, schedules, parameter groups, what a run leaves behind."""

from __future__ import annotations

import copy
import json
import os

import pytest
import torch
from torch import nn

from mdg.config import load_config
from mdg.engine import train
from mdg.engine.checkpoint import load_checkpoint, save_checkpoint
from mdg.engine.distributed import World
from mdg.engine.optim import parameter_groups
from mdg.engine.state import moving_average
from mdg.engine.trainer import Trainer
from mdg.errors import ConfigError
from mdg.models import build_model
from mdg.options.optim import AdamWOptions
from mdg.registry import OPTIMIZERS, SCHEDULES
from mdg.utils.run_directory import RunDirectory, fresh_path, newest_run


def make_trainer(tiny_yaml, tmp_path, *opts) -> Trainer:
    folder = fresh_path(tmp_path / "run")
    return Trainer(load_config(tiny_yaml, opts), RunDirectory.create(tmp_path, "x", folder), World())


def gradients(trainer: Trainer, batches) -> dict[str, torch.Tensor]:
    trainer.network.train()
    for module in trainer.model.modules():
        if isinstance(module, (nn.Dropout, nn.BatchNorm2d)):
            module.eval()
    for group in trainer.optimizer.param_groups:
        group["weight_decay"] = 0.0
    kept = {}
    trainer.optimizer.register_step_pre_hook(
        lambda *_: kept.update({name: p.grad.clone() for name, p in trainer.model.named_parameters()})
    )
    trainer.train_step(batches)
    return kept


def test_accumulated_gradients_are_the_mean_of_the_batches(tiny_yaml, tmp_path):
    # Cross-entropy over equally many labelled pixels: the mean over two batches is the mean over the joint batch.
    opts = ("loss=[CrossEntropy]",)
    small = make_trainer(tiny_yaml, tmp_path, *opts)
    one, two = list(small.train_loader.epoch(0))[:2]
    images = (torch.cat(parts) for parts in zip(one[:3], two[:3], strict=True))
    joint = type(one)(*images, one.names + two.names, one.indices + two.indices)
    accumulated = gradients(small, [one, two])
    expected = gradients(make_trainer(tiny_yaml, tmp_path, *opts), [joint])
    for name, value in expected.items():
        torch.testing.assert_close(accumulated[name], value, rtol=1e-4, atol=1e-6)


def test_clipping_bounds_the_global_norm(tiny_yaml, tmp_path):
    trainer = make_trainer(tiny_yaml, tmp_path, "train.clip_grad_norm=0.01")
    clipped = gradients(trainer, [next(iter(trainer.train_loader.epoch(0)))])
    norm = torch.stack([value.norm() for value in clipped.values()]).norm()
    assert norm == pytest.approx(0.01, rel=1e-3)


def test_moving_average_follows_the_weights(tiny_yaml, tmp_path):
    trainer = make_trainer(tiny_yaml, tmp_path, "train.ema_decay=0.75")
    batches = list(trainer.train_loader.epoch(0))
    trainer.train_step(batches[:1])
    first = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.train_step(batches[1:2])
    averaged = dict(trainer.weights.average.module.named_parameters())
    for name, p in trainer.model.named_parameters():
        # The decay of step 1 is (1 + 1) / (10 + 1), until that reaches 0.75.
        torch.testing.assert_close(averaged[name], 2 / 11 * first[name] + 9 / 11 * p.detach())
    assert trainer.weights.scored() is trainer.weights.average.module


@pytest.mark.parametrize("decay", [0.9, 0.999])
def test_a_moving_average_forgets_where_it_began(decay):
    model = nn.Linear(1, 1, bias=False)
    average = moving_average(model, decay)
    expected, share = 0.0, 1.0  # by the formula, in float64; the share of the first weights
    for step in range(1000):
        value = float(step % 7)
        with torch.no_grad():
            model.weight.fill_(value)
        average.update_parameters(model)
        d = min(decay, (1 + step) / (10 + step)) if step else 0.0
        expected, share = d * expected + (1 - d) * value, share * d if step else 1.0
    assert average.module.weight.item() == pytest.approx(expected, rel=1e-4)
    assert share < 1e-9


def test_the_loss_falls(tiny_run):
    run = tiny_run("run", "train.epochs=12", "train.batch_size=4")
    losses = [r["loss"] for r in map(json.loads, run.metrics.read_text().splitlines()) if r["kind"] == "train"]
    assert losses[-1] < 0.8 * losses[0]


@pytest.fixture(scope="module")
def small_b0():
    return build_model({"type": "MDG", "rgb_backbone": "b0", "thermal_backbone": "b0"}, 9)


def test_no_decay_on_vectors_and_scan_parameters(small_b0):
    model = small_b0
    decay, exempt = parameter_groups(model, AdamWOptions(weight_decay=0.01))
    names = {id(p): name for name, p in model.named_parameters()}
    exempt_names = {names[id(p)] for p in exempt["params"]}
    assert decay["weight_decay"] == 0.01 and exempt["weight_decay"] == 0
    assert len(decay["params"]) + len(exempt["params"]) == len(names)
    assert "interaction.0.mamba.scans.0.A_log" in exempt_names and "interaction.3.mamba.scans.1.D" in exempt_names
    assert all(p.ndim > 1 for p in decay["params"])
    assert "rgb_backbone.patch_embed1.proj.weight" not in exempt_names


def rates_of(model, **options) -> dict[str, tuple[float, float]]:
    """Learning rate and weight decay by the name of a parameter."""
    names = {id(p): name for name, p in model.named_parameters()}
    groups = parameter_groups(model, AdamWOptions(lr=1.0, weight_decay=0.01, **options))
    return {names[id(p)]: (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}


def test_parts_may_have_rates_and_decays_of_their_own(small_b0):
    found = rates_of(
        small_b0,
        groups=[
            {"match": "decoder", "lr_scale": 10},
            {"match": "decoder.head.classifier", "lr_scale": 2, "weight_decay": 0.5},
        ],
    )
    assert found["decoder.head.classifier.weight"] == (2, 0.5) and found["decoder.head.classifier.bias"] == (2, 0)
    assert found["rgb_backbone.patch_embed1.proj.weight"] == (1, 0.01)
    others = {rates for name, rates in found.items() if name.startswith("decoder.") and "classifier" not in name}
    assert others == {(10, 0.01), (10, 0)}
    assert len(found) == len(list(small_b0.parameters()))
    with pytest.raises(ConfigError, match="optimizer.groups: 'decodr' names no part.*Did you mean 'decoder'"):
        rates_of(small_b0, groups=[{"match": "decodr"}])


def test_rates_fall_with_the_layers_of_an_encoder(small_b0):
    """Eight blocks of b0: the last one has the full rate, a patch embedding that of the block above it."""
    found = rates_of(small_b0, layer_decay=0.5, groups=[{"match": "thermal_backbone", "lr_scale": 4}])
    for stream, scale in (("rgb", 1), ("thermal", 4)):
        for part, below in (("block4.1", 0), ("norm4", 0), ("block4.0", 1), ("patch_embed4", 1), ("block1.0", 7)):
            names = [name for name in found if name.startswith(f"{stream}_backbone.{part}.")]
            assert names and {found[name][0] for name in names} == {scale * 0.5**below}
    assert {rates[0] for name, rates in found.items() if "_backbone" not in name} == {1}
    assert found.keys() == {name for name, _ in small_b0.named_parameters()}
    with pytest.raises(ConfigError, match="no encoder of this network tells its layers"):
        rates_of(torch.nn.Linear(2, 2), layer_decay=0.5)


def test_what_is_frozen_is_in_no_group(small_b0):
    model = copy.deepcopy(small_b0)
    model.rgb_backbone.requires_grad_(False)
    assert not [name for name in rates_of(model) if name.startswith("rgb_backbone")]


@pytest.mark.parametrize(("kind", "halfway"), [("Poly", 0.5**0.9), ("Cosine", 0.5), ("Constant", 1.0)])
def test_schedules_warm_up_and_decay_per_step(kind, halfway):
    options = {"type": kind, "warmup_epochs": 2, "warmup_ratio": 0.1}
    schedule = SCHEDULES.create(options, steps_per_epoch=5, epochs=12)
    assert schedule.factor(0) == pytest.approx(0.1)
    assert schedule.factor(5) == pytest.approx(0.55)
    assert schedule.factor(10) == pytest.approx(1.0)
    assert schedule.factor(35) == pytest.approx(halfway)
    if kind != "Constant":
        assert schedule.factor(60) == pytest.approx(0.0, abs=1e-12) and 0 < schedule.factor(59) < 0.05


@pytest.mark.parametrize("kind", ["Poly", "Cosine"])
def test_a_moved_end_spreads_what_is_left_of_the_decay(kind):
    options = {"type": kind, "warmup_epochs": 1}
    before, after = (SCHEDULES.create(options, steps_per_epoch=10, epochs=epochs) for epochs in (10, 20))
    after.continue_from(55, [[0, 100]])
    rates = [after.factor(step) for step in range(201)]
    assert rates[:56] == [before.factor(step) for step in range(56)]  # what was trained stays what it was
    assert max(abs(a - b) for a, b in zip(rates[10:], rates[11:], strict=False)) < 0.02  # no jump
    assert rates[200] == pytest.approx(0, abs=1e-9) and rates[199] > 0
    assert rates[55 + 29] == pytest.approx(before.factor(55 + 9), rel=1e-9)  # 29 of 145 is 9 of 45
    again = SCHEDULES.create(options, steps_per_epoch=10, epochs=20)
    again.continue_from(120, after.ends)  # resumed once more
    assert [again.factor(step) for step in range(201)] == rates


def test_a_moved_end_within_the_warm_up():
    schedule = SCHEDULES.create({"type": "Poly", "warmup_epochs": 3, "power": 1.0}, steps_per_epoch=10, epochs=20)
    schedule.continue_from(10, [[0, 100]])
    assert schedule.factor(15) == pytest.approx(0.1 + 0.9 * 15 / 30) and schedule.factor(30) == 1
    assert schedule.factor(115) == pytest.approx(0.5)


def test_a_rate_that_has_ended_is_not_continued_silently():
    make = lambda: SCHEDULES.create({"type": "Poly", "warmup_epochs": 0}, steps_per_epoch=10, epochs=20)  # noqa: E731
    with pytest.raises(ConfigError, match="has reached its end .* at step 100"):
        make().continue_from(100, [[0, 100]])
    schedule = make()
    schedule.continue_from(100, [[0, 100]], jump=True)
    assert schedule.factor(100) == pytest.approx(0.5**0.9)
    constant = SCHEDULES.create({"type": "Constant"}, steps_per_epoch=10, epochs=20)
    constant.continue_from(100, [[0, 100]])
    assert constant.factor(150) == 1


def test_the_schedule_reaches_zero_at_the_end_of_training(tiny_run):
    run = tiny_run("run", "log.every_steps=1", "train.accumulate=2")
    rates = [r["lr"] for r in map(json.loads, run.metrics.read_text().splitlines()) if r["kind"] == "train"]
    assert len(rates) == 8  # 7 images, batch 2, two batches a step: 2 steps in each of 4 epochs
    expected = [1e-2 * (0.1 + 0.9 * s / 2 if s < 2 else (1 - (s - 2) / 6) ** 0.9) for s in range(8)]
    assert rates == pytest.approx(expected)


def test_unknown_optimizer_is_an_error(tiny_yaml):
    with pytest.raises(ConfigError, match="unknown optimizer 'Adamw'.*Did you mean 'AdamW'"):
        load_config(tiny_yaml, ["optimizer.type=Adamw"])
    assert OPTIMIZERS.names() == ["AdamW", "SGD"]


def test_a_run_directory_explains_itself(tiny_run):
    run = tiny_run("run", "train.epochs=2", "log.trackers=[tensorboard]", "log.pictures=2")
    environment = json.loads((run.path / "environment.json").read_text())
    assert environment["seed"] == 3407 and environment["packages"]["torch"] == torch.__version__.split("+")[0]
    assert load_config(run.config).train.epochs == 2
    assert list((run.path / "tensorboard").glob("events.*"))
    assert "done: 2 epochs, 8 steps" in (run.path / "train.log").read_text()
    records = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    assert [r["epoch"] for r in records if r["kind"] == "eval"] == [1, 2]
    assert {"mIoU", "mAcc", "pixel_accuracy", "mIoU_day", "mIoU_night", "iou"} <= records[-1].keys()


def test_tensorboard_holds_scalars_and_picture_grids(tiny_run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = tiny_run("run", "train.epochs=1", "log.trackers=[tensorboard]", "log.pictures=2")
    events = EventAccumulator(str(run.path / "tensorboard"))
    events.Reload()
    assert {"train/loss", "train/lr", "val/mIoU", "speed/images_per_s"} <= set(events.Tags()["scalars"])
    assert events.Tags()["images"] == ["frames"]


def test_best_is_the_best_epoch_and_last_the_last(tiny_run):
    run = tiny_run("run")
    scores = {
        r["epoch"]: r["mIoU"] for r in map(json.loads, run.metrics.read_text().splitlines()) if r["kind"] == "eval"
    }
    best = load_checkpoint(run.best)["progress"]
    assert best["best_epoch"] == max(scores, key=scores.get) == best["epoch"]
    assert 100 * best["best_score"] == pytest.approx(max(scores.values()))
    assert load_checkpoint(run.last)["progress"]["epoch"] == 4


def test_selection_last_needs_no_validation(tiny_run):
    run = tiny_run("run", "eval.selection=last", "data.val_split=null", "train.epochs=1")
    assert run.best.is_file()
    assert all(json.loads(line)["kind"] == "train" for line in run.metrics.read_text().splitlines())


def test_newest_run_is_found_by_its_checkpoint(tmp_path):
    with pytest.raises(ConfigError, match="no run with a checkpoint"):
        newest_run(tmp_path)
    for age, name in enumerate(("older", "newer")):
        file = tmp_path / "exp" / name / "1" / "checkpoints" / "best.pt"
        save_checkpoint(file, {"model": {}})
        os.utime(file, (1000 + age, 1000 + age))
    assert newest_run(tmp_path / "exp").path.parent.name == "newer"


def test_step_counts_are_kept_as_numbers_and_continue():
    """As tensors they would be a third of a checkpoint's records."""

    def steps(optimizer, model, n):
        for step in range(n):
            generator = torch.Generator().manual_seed(step)
            model.weight.grad, model.bias.grad = (torch.randn(size, generator=generator) for size in ((2, 3), 2))
            optimizer.step()

    def fresh():
        model = nn.Linear(3, 2)
        nn.init.ones_(model.weight), nn.init.ones_(model.bias)
        return model, OPTIMIZERS.create({"type": "AdamW", "lr": 0.1}, model=model)

    model, optimizer = fresh()
    assert optimizer.state_dict()["state"] == {}
    steps(optimizer, model, 3)
    state = optimizer.state_dict()
    assert [entry["step"] for entry in state["state"].values()] == [3.0, 3.0]
    assert all(isinstance(entry["step"], torch.Tensor) for entry in optimizer.state.values()), "its own is untouched"
    other, continued = fresh()
    other.load_state_dict(model.state_dict())
    continued.load_state_dict(copy.deepcopy(state))
    steps(optimizer, model, 2), steps(continued, other, 2)
    assert torch.equal(model.weight, other.weight) and torch.equal(model.bias, other.bias)
    assert continued.state_dict()["state"][0]["step"] == 5.0


def test_every_group_of_an_optimizer_keeps_a_rate_of_its_own(tiny_yaml, tmp_path, monkeypatch):
    """As layer-wise decay, or an optimizer of the user's, gives it; a resume changes nothing of it."""

    def with_a_slow_group(options, *, model):
        slow, *others = model.parameters()
        groups = [{"params": others}, {"params": [slow], "lr": options.lr / 10}]
        return torch.optim.SGD(groups, lr=options.lr)

    monkeypatch.setattr(OPTIMIZERS, "get", lambda name: with_a_slow_group)
    run = train(tiny_yaml, ["train.max_steps=3"], run_dir=tmp_path / "run")
    rates = [group["lr"] for group in load_checkpoint(run.last)["optimizer"]["param_groups"]]
    assert rates[1] == pytest.approx(rates[0] / 10) and rates[0] == pytest.approx(1e-2 * (0.1 + 0.9 * 2 / 4))
    train(tiny_yaml, ["train.max_steps=null"], resume=run.path)
    rates = [group["lr"] for group in load_checkpoint(run.last)["optimizer"]["param_groups"]]
    assert rates[1] == pytest.approx(rates[0] / 10)


def test_class_weights_and_chances_come_from_the_labels(tiny_run, tiny_yaml, caplog):
    """And a run that resumes has the same ones."""
    opts = ["loss=[{type: CrossEntropy, class_weights: auto}]", "pipeline.rare_class_sampling={min_pixels: 5}"]
    straight = tiny_run("straight", *opts, "train.epochs=2")
    assert "class weights by their pixels: unlabeled 0." in (straight.path / "train.log").read_text()
    tiny_run("stopped", *opts, "train.epochs=2", "train.stop_epoch=1")
    resumed = tiny_run("stopped", *opts, "train.epochs=2", resume=True)
    assert resumed.metrics.read_text() == straight.metrics.read_text()
    plain = tiny_run("plain", "loss=[{type: CrossEntropy}]", "train.epochs=2")
    assert plain.metrics.read_text() != straight.metrics.read_text()
