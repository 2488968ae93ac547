"""Trainings of two processes, end to end: they equal a run without mishaps, and what they log is what is saved."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import pytest
import torch
import yaml
from commands import REPOSITORY, shell

from mdg.engine import evaluate
from mdg.engine.checkpoint import load_checkpoint
from mdg.utils.run_directory import RunDirectory
from tests.engine.conftest import TINY

SECONDS = 240  # far below the 600 s after which a process counts as lost
posix = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")

# Two processes take 4 steps an epoch and log every 3: the ends of the epochs lie within intervals.
CONFIG = TINY | {
    "custom_imports": ["reliability.tiny", "mishaps"],
    "train": {"epochs": 4, "batch_size": 1},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("processes")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(CONFIG | {"exp_dir": str(folder / "exp")}))
    return folder


@pytest.fixture(scope="module")
def train_pair(folder):
    """Trains with two processes: ``train_pair("name", "train.epochs=2", mishaps="kill:1:3")`` gives the finished
    launch, the run and what every process noted at its validations."""

    def run(name: str, *opts: str, mishaps: str = "", restarts: int = 0, resume: bool = False):
        path, notes = folder / name, folder / f"{name}-notes"
        notes.mkdir(exist_ok=True)
        tool = REPOSITORY / "tools" / "train.py"
        command = ["-m", "mdg.launch", "--nproc-per-node", "2", "--max-restarts", restarts, tool]
        command += [folder / "tiny.yaml", "--resume" if resume else "--run-dir", path]
        options = ("--opts", *opts) if opts else ()
        done = shell(sys.executable, *command, *options, timeout=SECONDS, MISHAPS=mishaps, NOTES=str(notes))
        assert "Traceback" not in done.stderr, done.stderr
        return done, RunDirectory(path), [(notes / f"rank-{rank}.txt") for rank in (0, 1)]

    return run


@pytest.fixture(scope="module")
def straight(train_pair):
    """A run of two processes that nothing happens to."""
    done, run, notes = train_pair("straight")
    assert done.returncode == 0, done.stderr
    return run, notes


def records(run: RunDirectory, kind: str) -> list[dict]:
    return [record for record in map(json.loads, run.metrics.read_text().splitlines()) if record["kind"] == kind]


def assert_same(one, two, path=""):
    assert type(one) is type(two), path
    if isinstance(one, torch.Tensor):
        assert one.dtype == two.dtype and torch.equal(one, two), path
    elif isinstance(one, (dict, list, tuple)):
        keys = one if isinstance(one, dict) else range(len(one))
        assert len(one) == len(two), path
        for key in keys:
            assert_same(one[key], two[key], f"{path}.{key}")
    else:
        assert one == two, path


def assert_same_run(one: RunDirectory, two: RunDirectory) -> None:
    """Every logged line, and everything in the checkpoints: weights, optimizer, meters of both processes."""
    assert one.metrics.read_text() == two.metrics.read_text()
    for name in ("last", "best"):
        assert_same(load_checkpoint(getattr(one, name)), load_checkpoint(getattr(two, name)), name)


def assert_logged_scores_are_those_of_the_file(run: RunDirectory, notes: list[Path], folder: Path) -> None:
    first, second = (file.read_text() for file in notes)
    assert first == second != ""  # weights and buffers of every validation
    result = evaluate(run.last, run.config, split="val", opts=["custom_imports=[reliability.tiny]"])
    scored = {name: 100 * value for name, value in result.evaluation.means().items()}
    logged = records(run, "eval")[-1]
    assert {name: logged[name] for name in scored} == scored


@pytest.mark.slow  # every launch imports PyTorch twice
def test_two_processes_log_the_score_of_what_they_save(straight, folder):
    run, notes = straight
    assert [record["step"] for record in records(run, "train")] == [3, 6, 9, 12, 15, 16]
    assert_logged_scores_are_those_of_the_file(run, notes, folder)


@pytest.mark.slow  # four times two processes
@posix
def test_restarts_end_as_a_run_that_was_never_killed(straight, train_pair):
    """Processes die while the model is built, before anything is saved and within an interval of the log."""
    done, run, _ = train_pair("restarted", mishaps="kill:0:-1:0 kill:1:3:1 kill:0:6:2", restarts=3)
    assert done.returncode == 0, done.stderr
    killed = re.findall(r"error: process (\d) \(pid \d+ on .*\) was killed by SIGKILL", done.stderr)
    assert killed == ["0", "1", "0"] and "restart 3 of 3" in done.stderr
    assert_same_run(run, straight[0])


@pytest.mark.slow  # every launch imports PyTorch twice
def test_a_run_of_one_process_goes_on_in_two(train_pair, folder):
    """Refused first; then states carry over, the rate follows the epochs, and the run says what it is."""
    from mdg.engine import train

    opts = ["custom_imports=[reliability.tiny]", "train.stop_epoch=2"]
    run = train(folder / "tiny.yaml", opts, run_dir=folder / "one")  # 7 steps an epoch, then 4
    done, _, _ = train_pair("one", "train.stop_epoch=null", resume=True)
    assert done.returncode == 2 and "processes 1 to 2" in done.stderr
    done, _, _ = train_pair("one", "train.stop_epoch=null", "--allow-changes", resume=True)
    assert done.returncode == 0, done.stderr
    state = load_checkpoint(run.last, training=True)
    assert state["progress"]["step"] == 14 + 2 * 4 and state["progress"]["epoch"] == 4 and state["world_size"] == 2
    assert any("processes 1 to 2" in change for change in state["changes"])
    rates = [record["lr"] for record in records(run, "train")]
    assert rates[-1] == pytest.approx(1e-2 * (1 / 12) ** 0.9, rel=1e-6)  # the last of the 12 steps behind the warm-up


@pytest.mark.slow  # every launch imports PyTorch twice
@posix
def test_a_stop_in_a_validation_and_a_resume_are_the_same_run(straight, train_pair):
    done, run, _ = train_pair("stopped", mishaps="terminate:1:8")
    assert done.returncode == 75, done.stderr
    assert "validation interrupted" in done.stdout and "error" not in done.stderr
    state = load_checkpoint(run.last)
    assert state["progress"]["pending"] and state["progress"]["step"] == 8
    assert [record["epoch"] for record in records(run, "eval")] == [1]
    done, run, _ = train_pair("stopped", resume=True)
    assert done.returncode == 0, done.stderr
    assert_same_run(run, straight[0])


@pytest.mark.slow  # every launch imports PyTorch twice
def test_a_batch_that_is_not_finite_on_one_process_is_skipped_by_both(train_pair, folder):
    """With a moving average, whose buffers are part of what is scored."""
    done, run, notes = train_pair("skipped", "train.ema_decay=0.9", "train.epochs=2", mishaps="nan:1:6")
    assert done.returncode == 0, done.stderr
    assert [record["skipped_steps"] for record in records(run, "train")] == [0, 0, 1]
    state = load_checkpoint(run.last)
    assert state["progress"]["step"] == 8 and state["skipped"] == {"in_a_row": 0, "total": 1}
    assert {float(moments["step"]) for moments in state["optimizer"]["state"].values()} == {7}
    assert_logged_scores_are_those_of_the_file(run, notes, folder)


@pytest.mark.slow  # every launch imports PyTorch twice
def test_too_many_skipped_steps_end_both_with_one_message(train_pair):
    done, run, _ = train_pair("diverged", "train.max_skipped_steps=2", mishaps="nan-from:1:5")
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("error: ") == 1 and "steps in a row, up to step 7, were skipped" in done.stderr
    kept = run.path / "non-finite-step-7.pt"
    assert "First in step 7, process 1: loss, for " in done.stderr and str(kept) in done.stderr and kept.is_file()
    assert load_checkpoint(run.last)["progress"]["step"] == 4


@pytest.mark.slow  # every launch imports PyTorch twice
@pytest.mark.parametrize("rank", [0, 1])
def test_logits_that_are_not_finite_on_one_process_end_both(train_pair, rank):
    """The other one waits for it behind its own share of the images, though not for long."""
    name = f"blind-{rank}"
    done, run, _ = train_pair(name, mishaps=f"logits:{rank}:4")
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("error: ") == 1 and "logits are not finite for " in done.stderr
    state = load_checkpoint(run.last)
    assert state["progress"]["step"] == 4 and state["progress"]["pending"]  # the epoch is not lost
