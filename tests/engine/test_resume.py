"""A run that stops and resumes equals one that did not, bit for bit: weights, optimizer, logs, best checkpoint."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal

import numpy as np
import pytest
import torch

from mdg.engine import train
from mdg.engine.checkpoint import load_checkpoint
from mdg.engine.evaluation.scores import Evaluation, Tally
from mdg.engine.train import run_training
from mdg.engine.trainer import Trainer
from mdg.errors import ConfigError, MachineError, UserError
from mdg.utils import files
from mdg.utils.run_directory import RunDirectory
from mdg.utils.visualization import save_picture
from tests.engine.conftest import write_tiny

pytestmark = pytest.mark.no_cover  # a hundred small runs, in code that tests/engine/test_training.py covers


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


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """The tiny run without a stop, once for all; only to be read."""
    folder = tmp_path_factory.mktemp("straight")
    return train(write_tiny(folder), run_dir=folder / "run")


@pytest.fixture(scope="module")
def part_run(tmp_path_factory):
    """Begins the tiny run and stops it, each way once: ``part_run("name", "train.max_steps=3")`` gives a copy."""
    kept = {}

    def run(folder, *opts):
        if opts not in kept:
            place = tmp_path_factory.mktemp("part")
            kept[opts] = train(write_tiny(place), opts, run_dir=place / "run")
        return RunDirectory(shutil.copytree(kept[opts].path, folder))

    return run


@pytest.fixture
def begun(part_run, tmp_path):
    """``begun("name", "train.max_steps=3")`` is what ``tiny_run`` leaves, trained once for all tests."""
    return lambda name, *opts: part_run(tmp_path / name, *opts)


VARIANTS = {
    "ema, accumulation, clipping": ("train.ema_decay=0.9", "train.accumulate=3", "train.clip_grad_norm=1.0"),
    "bf16, sgd, cosine": ("train.precision=bf16", "optimizer={type: SGD, momentum: 0.9}", "schedule={type: Cosine}"),
    "loader processes": ("pipeline.workers=2",),
}


STOPS = ["train.max_steps=3", pytest.param("train.stop_epoch=2", marks=pytest.mark.slow)]  # eight times three runs


@pytest.mark.parametrize("stop", STOPS)
def test_a_run_in_two_parts_equals_one(tiny_run, straight, begun, stop):
    begun("stopped", stop)
    stopped = tiny_run("stopped", resume=True)
    assert load_checkpoint(straight.last)["progress"]["epoch"] == 4
    assert_same_run(straight, stopped)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("stop", STOPS)
def test_two_and_two_epochs_equal_four(tiny_run, variant, stop):
    straight = tiny_run("straight", *VARIANTS[variant])
    tiny_run("stopped", *VARIANTS[variant], stop)
    stopped = tiny_run("stopped", *VARIANTS[variant], resume=True)
    assert load_checkpoint(straight.last)["progress"]["epoch"] == 4
    assert_same_run(straight, stopped)


def test_the_full_model_resumes_bit_for_bit(tmp_path, tiny_yaml, shallow):
    """Stochastic depth, dropout and the auxiliary heads of MDG included."""
    opts = [
        "model={type: MDG, rgb_backbone: b0, thermal_backbone: b0, decoder: {type: SemanticDynamicDecoder, "
        "embed_dim: 32}}",
        "data.height=64",
        "data.width=64",
        "data.limit=4",
        "log.every_steps=1",
        "train.epochs=2",
    ]
    straight = train(tiny_yaml, opts, run_dir=tmp_path / "straight")
    train(tiny_yaml, [*opts, "train.stop_epoch=1"], run_dir=tmp_path / "stopped")
    stopped = train(tiny_yaml, opts, resume=tmp_path / "stopped")
    assert_same_run(straight, stopped)


def test_loader_processes_do_not_change_a_run(tiny_run):
    assert_same_run(tiny_run("none", "train.epochs=2"), tiny_run("two", "train.epochs=2", "pipeline.workers=2"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_behind_a_saved_step(tiny_run, straight, monkeypatch, number):
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
        "pending": False,
    }
    assert_same_run(straight, tiny_run("stopped", resume=True))


@pytest.mark.parametrize(
    ("opt", "place"),
    [("train.stop_epoch=2", "behind epoch 2 at step 8"), ("train.max_steps=6", "in epoch 2 at step 6")],
)
def test_where_a_run_stopped_is_said(tiny_run, capsys, opt, place):
    tiny_run("run", opt)
    assert f"stopped {place}; continue with --resume" in capsys.readouterr().out


def test_the_score_of_an_unfinished_epoch_names_its_step(tiny_run, capsys):
    tiny_run("run", "train.max_steps=6")
    scores = [line for line in capsys.readouterr().out.splitlines() if "  val  mIoU" in line]
    assert [re.sub(r"^\[.*?\] ", "", line).split("  ")[0] for line in scores] == ["epoch 1", "epoch 2, step 6"]


def test_a_score_that_a_signal_broke_off_is_no_best_one(begun, tiny_yaml, tmp_path, monkeypatch):
    """Behind ``train.max_steps`` inside an epoch: the best state stays that of the first epoch."""
    best = begun("best", "train.stop_epoch=1")
    original = Trainer.validate

    def interrupted(self):
        if self.progress.step == 6:
            signal.raise_signal(signal.SIGTERM)
        return original(self)

    monkeypatch.setattr(Trainer, "validate", interrupted)
    outcome = run_training(tiny_yaml, ["train.max_steps=6"], run_dir=tmp_path / "run")
    assert outcome.stopped and outcome.progress.step == 6
    one, two = load_checkpoint(best.best), load_checkpoint(outcome.run.best)
    assert_same(one["model"], two["model"])
    assert load_checkpoint(outcome.run.last)["progress"]["best_score"] == one["progress"]["best_score"]
    assert outcome.progress.best_score == one["progress"]["best_score"]


def test_a_crash_costs_no_more_than_the_last_saved_step(tiny_run, straight, monkeypatch):
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
    assert steps == sorted(steps) and len(set(steps)) == len(steps) - 2  # 12 and 16 are logged and evaluated


def test_resume_says_what_is_missing(tmp_path, tiny_yaml):
    with pytest.raises(UserError, match="expected a run directory"):
        train(tiny_yaml, resume=tmp_path / "nowhere")


def test_a_run_is_never_overwritten(tiny_run):
    tiny_run("run", "train.epochs=1")
    with pytest.raises(UserError, match="nothing is overwritten"):
        tiny_run("run", "train.epochs=1")


# --- what a resume compares -------------------------------------------------------------------------------------------

CHANGED = {
    "optimizer.weight_decay=0.2": "optimizer.weight_decay 0.01 to 0.2",
    "optimizer={type: SGD}": "optimizer.type AdamW to SGD",
    "train.precision=fp16": "train.precision fp32 to fp16",
    "train.batch_size=3": "train.batch_size 2 to 3",
    "seed=1": "seed 3407 to 1",
    "loss=[CrossEntropy]": "loss.0.type Dice to CrossEntropy",
    "train.epochs=1": "train.epochs 4 to 1",
    "train.ema_decay=0.9": "train.ema_decay None to 0.9",
    "eval.metric=mAcc": "eval.metric mIoU to mAcc",
    "pipeline.train=[]": "pipeline.train",
    "data.train_images=6": "data.train_images 7 to 6",
    "schedule.power=0.5": "schedule.power 0.9 to 0.5",
}


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("opt", CHANGED)
def test_another_run_is_refused_before_a_file_is_touched_or_taken_and_named(tiny_run, begun, tiny_yaml, opt):
    run = begun("run", "train.max_steps=3")
    before = contents(run.path)
    with pytest.raises(ConfigError, match="would not be the run that was saved.*--allow-changes") as caught:
        tiny_run("run", opt, resume=True)
    assert CHANGED[opt] in str(caught.value) and contents(run.path) == before
    train(tiny_yaml, [opt, "train.max_steps=6"], resume=run.path, allow_changes=True)
    state = load_checkpoint(run.last)
    assert state["progress"]["step"] == (4 if opt == "train.epochs=1" else 6)
    assert any(change.startswith("step 3: ") and CHANGED[opt] in change for change in state["changes"])
    assert opt != "optimizer.weight_decay=0.2" or state["optimizer"]["param_groups"][0]["weight_decay"] == 0.2
    if opt != "train.epochs=1":  # more epochs may always be asked for
        with pytest.raises(ConfigError):  # the run is another one now
            tiny_run("run", resume=True)


def test_what_cannot_change_a_result_may_differ(tiny_run, straight, begun, caplog):
    stopped = begun("stopped", "train.max_steps=3")
    opts = "pipeline.workers=2", "log.trackers=[tensorboard]", "checkpoint.every_steps=2", "eval.pictures=1"
    resumed = tiny_run("stopped", *opts, resume=True)
    a, b = load_checkpoint(straight.last), load_checkpoint(resumed.last)
    for name in ("model", "optimizer", "progress", "changes"):
        assert_same(a[name], b[name])
    assert "resumed with pipeline.workers 0 to 2" in (stopped.path / "train.log").read_text()


def test_more_epochs_go_on_without_a_jump_of_the_rate(tiny_run, begun):
    begun("run", "log.every_steps=1", "train.stop_epoch=2")
    run = tiny_run("run", "log.every_steps=1", "train.epochs=8", resume=True)
    rates = [r["lr"] for r in map(json.loads, run.metrics.read_text().splitlines()) if r["kind"] == "train"]
    assert len(rates) == 32 and rates == [*sorted(rates[:5]), *sorted(rates[5:], reverse=True)]
    assert max(abs(a - b) for a, b in zip(rates[4:], rates[5:], strict=False)) < 1.2e-3
    assert "the schedule now ends at step 32, not 16" in (run.path / "train.log").read_text()


@pytest.mark.parametrize(
    ("opts", "steps"),
    [
        (["train.batch_size=4"], 8 + 2 * 2),
        (["train.batch_size=1"], 8 + 2 * 7),
        (["train.accumulate=2"], 8 + 2 * 2),
        (["train.batch_size=4", "train.epochs=6"], 8 + 4 * 2),
        (["data.train_images=5"], 8 + 2 * 3),
    ],
    ids=str,
)
def test_batches_of_another_size_leave_the_rate_where_it_was(begun, tiny_yaml, opts, steps):
    """The rate follows the place in the epochs: after two of four it has gone as far as before, and it ends at zero."""
    every = "log.every_steps=1"
    run = begun("run", every, "train.stop_epoch=2")
    train(tiny_yaml, [every, *opts], resume=run.path, allow_changes=True)
    records = [record for record in map(json.loads, run.metrics.read_text().splitlines()) if record["kind"] == "train"]
    assert [record["step"] for record in records] == list(range(1, steps + 1))
    rates = [record["lr"] for record in records]
    assert rates[8:] == sorted(rates[8:], reverse=True) and rates[8] <= rates[7]
    epochs = 6 if "train.epochs=6" in opts else 4
    # Poly with power 0.9 behind a warm-up of one epoch; more epochs spread what was left.
    if epochs == 4:
        assert rates[8] == pytest.approx(1e-2 * (2 / 3) ** 0.9, rel=1e-6)
    left = (steps - 8) // (epochs - 2)  # steps in an epoch
    assert rates[-1] == pytest.approx(1e-2 * (1 / ((epochs - 2) * left) * 2 / 3) ** 0.9, rel=1e-2)
    log = (run.path / "train.log").read_text()
    assert f"step {steps}/{steps} " in log and "from here on another run, not bit for bit the one that was saved" in log


def test_batches_of_another_size_again_and_again(begun, tiny_yaml):
    """The second resume needs no permission, equals a run that did not stop, and the third change counts from there."""
    every = "log.every_steps=1"
    runs = []
    for name, stops in (("straight", []), ("stopped", ["train.max_steps=10"])):
        run = begun(name, every, "train.max_steps=6")
        train(tiny_yaml, [every, "train.batch_size=4", *stops], resume=run.path, allow_changes=True)
        runs.append(run)
    straight, stopped = runs
    train(tiny_yaml, [every, "train.batch_size=4"], resume=stopped.path)
    one, other = (load_checkpoint(run.last, training=True) for run in runs)
    for name in ("model", "optimizer", "progress", "schedule", "changes"):
        assert_same(one[name], other[name])
    assert one["progress"]["step"] == 6 + 1 + 2 * 2 and one["steps_per_epoch"] == 2


def test_a_finished_run_is_not_trained_on_at_rate_zero(tiny_run, begun):
    run = begun("run")
    before = contents(run.path)
    with pytest.raises(ConfigError, match="learning rate has reached its end"):
        tiny_run("run", "train.epochs=8", resume=True)
    assert contents(run.path) == before


@pytest.mark.parametrize("change", ["content", "time", "elsewhere"])
def test_data_that_changed_are_noticed(tiny_yaml, tmp_path, change):
    root = tmp_path / "frames"
    for split, count in (("train", 4), ("val", 2)):
        for index in range(count):
            for part, value in (("rgb", np.zeros((32, 32, 3), np.uint8)), ("thermal", np.zeros((32, 32), np.uint8)),
                                ("labels", np.full((32, 32), index % 2, np.uint8))):  # fmt: skip
                save_picture(root / split / part / f"{index}.png", value)

    def opts(root):
        data = {"type": "Folder", "root": str(root), "classes": ["a", "b"], "test_split": None}
        return [f"data={json.dumps(data)}"]

    run = train(tiny_yaml, [*opts(root), "train.max_steps=1"], run_dir=tmp_path / "run")
    place = root
    if change == "content":
        save_picture(root / "val" / "rgb" / "0.png", np.arange(3072, dtype=np.uint8).reshape(32, 32, 3))
    elif change == "time":
        os.utime(root / "train" / "labels" / "1.png", (1, 1))
    else:
        place = shutil.copytree(root, tmp_path / "copy", copy_function=shutil.copyfile)
    if change == "elsewhere":
        train(tiny_yaml, opts(place), resume=run.path)
        assert load_checkpoint(run.last)["progress"]["epoch"] == 4
        return
    expected = {
        "content": "selection split.*other sizes",
        "time": "train split.*other times .`cp -a`, `rsync -a` and tar keep them",
    }[change]
    with pytest.raises(ConfigError, match=expected):
        train(tiny_yaml, opts(place), resume=run.path)


def test_other_code_is_noticed(tiny_run, begun, monkeypatch):
    begun("run", "train.max_steps=3")
    monkeypatch.setattr("mdg.engine.resume.code_fingerprint", lambda modules: "0123456789abcdef")
    with pytest.raises(ConfigError, match="code [0-9a-f]{16} to 0123456789abcdef"):
        tiny_run("run", resume=True)


# --- states that are damaged, and stops between them ------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "absent"])
def test_a_damaged_state_costs_one_save(tiny_run, straight, begun, damage):
    run = begun("stopped", "train.stop_epoch=2")
    content = bytearray(run.last.read_bytes())
    content[len(content) // 2] ^= 4
    if damage == "absent":
        run.last.unlink()
    else:
        run.last.write_bytes({"flip": bytes(content), "cut": bytes(content[:-100]), "empty": b""}[damage])
    resumed = tiny_run("stopped", resume=True)
    assert_same_run(straight, resumed)
    log = (run.path / "train.log").read_text()
    assert "resumed from previous.pt at epoch 1" in log


def test_no_whole_state_is_one_error_that_names_both(tiny_run, begun):
    run = begun("run", "train.stop_epoch=2")
    run.last.write_bytes(b"x")
    run.previous.write_bytes(b"")
    with pytest.raises(UserError, match=r"no saved state can be read: .*last\.pt.*previous\.pt"):
        tiny_run("run", resume=True)


@pytest.mark.parametrize("lost", ["absent", "empty"])
def test_the_configuration_inside_a_state_replaces_a_lost_one(straight, begun, lost):
    run = begun("stopped", "train.stop_epoch=2", "custom_imports=[]", "model.type=TinySegmentor")
    run.config.unlink()
    if lost == "empty":
        run.config.touch()
    assert "train.stop_epoch=null" in (run.path / "train.log").read_text()  # the advice to go on
    train(resume=run.path, opts=["train.stop_epoch=null"])
    for name in ("model", "optimizer"):
        assert_same(load_checkpoint(straight.last)[name], load_checkpoint(run.last)[name])


def test_an_error_in_validation_does_not_cost_the_epoch(tiny_run, straight, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(UserError, match="bad label"):
        patch.setattr(Trainer, "validate", lambda self: (_ for _ in ()).throw(UserError("bad label")))
        tiny_run("stopped")
    progress = load_checkpoint(tmp_path / "stopped" / "checkpoints" / "last.pt")["progress"]
    assert (progress["epoch"], progress["pending"]) == (1, True)
    assert_same_run(straight, tiny_run("stopped", resume=True))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP])
def test_a_signal_in_validation_ends_it_and_a_resume_begins_with_it(
    tiny_run, straight, tiny_yaml, tmp_path, monkeypatch, number
):
    original, seen = Tally.add, []

    def add_with_signal(self, *args):
        original(self, *args)
        seen.append(1)
        if len(seen) == 4:  # the first image of the second validation
            signal.raise_signal(number)

    with monkeypatch.context() as patch:
        patch.setattr(Tally, "add", add_with_signal)
        outcome = run_training(tiny_yaml, run_dir=tmp_path / "stopped")
    assert outcome.stopped and outcome.progress.pending and outcome.progress.epoch == 2 and len(seen) == 4
    assert_same_run(straight, tiny_run("stopped", resume=True))


def test_a_run_that_ends_inside_an_epoch_is_scored_there(begun):
    run = begun("run", "train.max_steps=3")
    best = load_checkpoint(run.best)
    assert best["progress"]["step"] == 3 and best["progress"]["best_epoch"] == 1
    assert [json.loads(line)["kind"] for line in run.metrics.read_text().splitlines()] == ["train", "eval"]


def test_best_of_whole_epochs_survives_a_score_inside_one(tiny_run, monkeypatch):
    """The score inside the epoch is the highest of all, and a run that is continued must not know it."""
    scores = iter([0.5, 0.9, 0.1, 0.2, 0.3])
    monkeypatch.setattr(Evaluation, "means", lambda self, *a, **k: {"mIoU": next(scores), "mAcc": 0, "mF1": 0,
                                                                   "pixel_accuracy": 0})  # fmt: skip
    monkeypatch.setattr("mdg.engine.monitor.Monitor.log_evaluation", lambda *a: None)
    run = tiny_run("run", "train.max_steps=6")
    assert load_checkpoint(run.best)["progress"]["best_score"] == 0.9
    tiny_run("run", resume=True)
    best = load_checkpoint(run.best)["progress"]
    assert (best["best_score"], best["step"]) == (0.5, 4)


def test_two_processes_never_work_in_one_run(tiny_run, begun):
    run = begun("run", "train.stop_epoch=1")
    with run.held(), pytest.raises(ConfigError, match="works in this run since"):
        tiny_run("run", resume=True)
    assert load_checkpoint(tiny_run("run", resume=True).last)["progress"]["epoch"] == 4


def test_a_run_that_cannot_start_leaves_nothing(tiny_run, tmp_path):
    with pytest.raises(UserError):
        tiny_run("run", "data.val_split=null", "data.type=Folder", f"data.root={tmp_path / 'none'}")
    assert not (tmp_path / "run").exists()


def test_where_a_disk_is_full_the_last_state_stays(tiny_run, straight, tmp_path, monkeypatch):
    calls, sync = [], files._sync

    def full(stream):
        calls.append(1)
        if len(calls) == 9:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(stream)

    with monkeypatch.context() as patch, pytest.raises(MachineError, match="free some space"):
        patch.setattr(files, "_sync", full)
        tiny_run("stopped")
    assert not list((tmp_path / "stopped").rglob("*.partial"))
    assert_same_run(straight, tiny_run("stopped", resume=True))
