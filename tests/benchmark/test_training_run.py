"""A training run that is stopped by its time, and the script that does everything on a GPU."""

from __future__ import annotations

import runpy
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from mdg.benchmark import suite
from mdg.benchmark.suite import train_for
from mdg.commands import train
from mdg.errors import ConfigError, UserError

REPOSITORY = Path(__file__).resolve().parents[2]
TINY = {
    "_base_": str(REPOSITORY / "configs" / "demo.yaml"),
    "data": {"height": 64, "width": 64, "train_images": 4, "val_images": 2, "test_images": 1},
    "train": {"epochs": 100_000, "batch_size": 2},
    "eval": {"every": 100_000},
    "checkpoint": {"every_steps": 1},
    "log": {"every_steps": 1, "trackers": []},
    "pipeline": {"workers": 0},
    "device": "cpu",
    "threads": 1,
}


@pytest.fixture
def tiny(tmp_path) -> Path:
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(TINY))
    return file


@pytest.mark.slow  # three programs one after the other, one of them for a while
def test_a_run_is_stopped_by_its_time_and_scored(tiny, tmp_path, monkeypatch):
    last = tmp_path / "run" / "checkpoints" / "last.pt"

    class UntilSaved(subprocess.Popen):
        """Its time is over when the first step is saved."""

        def wait(self, timeout=None):
            if timeout == 12345:
                while self.poll() is None and not last.is_file():
                    time.sleep(0.1)
                raise subprocess.TimeoutExpired(self.args, timeout)
            return super().wait(timeout)

    monkeypatch.setattr(suite.subprocess, "Popen", UntilSaved)
    found = train_for(tiny, 12345, ["train.batch_size=1"], tmp_path / "run")
    assert found["steps"] >= 1 and found["images"] == found["steps"]
    assert found["images_per_s"] == pytest.approx(found["images"] / found["seconds"])
    assert found["protocol"]["split"] and 0 <= found["scores"]["mIoU"] <= 100
    assert found["config"] == "tiny" and found["precision"] == "fp32"


class Here:
    """The program that trains, in this process."""

    def __init__(self, command):
        assert command[:3] == [sys.executable, "-m", "mdg.commands.train"]
        with pytest.raises(SystemExit) as end:
            train.main(command[3:])
        self.code = end.value.code

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def wait(self, timeout=None):
        return self.code


def test_a_run_that_fails_says_so(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(suite.subprocess, "Popen", Here)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "something").touch()
    with pytest.raises(UserError, match="exit code 2"):
        train_for(tiny, 600, [], tmp_path / "run")


def test_a_wrong_override_costs_no_process(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(suite.subprocess, "Popen", lambda *args: pytest.fail("started"))
    with pytest.raises(ConfigError, match=r"train\.epoch"):
        train_for(tiny, 600, ["train.epoch=1"], tmp_path / "run")


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens where there is no GPU")
def test_without_a_gpu_nothing_is_run(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["check_gpu.py"])
    with pytest.raises(SystemExit, match="2"):
        runpy.run_path(str(REPOSITORY / "scripts" / "check_gpu.py"), run_name="__main__")
    said = capsys.readouterr()
    assert "no CUDA GPU" in said.err and not said.out
