"""Small runs for tests of the engine."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from mdg.engine import train
from mdg.utils.run_directory import RunDirectory

TINY = {
    "custom_imports": ["reliability.tiny"],
    "data": {
        "type": "Synthetic",
        "height": 40,
        "width": 48,
        "train_images": 7,
        "val_images": 3,
        "test_images": 5,
        "cache": "ram",  # painting a scene takes longer than a step
    },
    "pipeline": {"train": [{"type": "HorizontalFlip", "p": 0.5}], "workers": 0},
    "model": {"type": "TinySegmentor"},
    "optimizer": {"type": "AdamW", "lr": 1e-2},
    "schedule": {"type": "Poly", "warmup_epochs": 1},
    "train": {"epochs": 4, "batch_size": 2},
    "log": {"every_steps": 3, "trackers": []},
    "device": "cpu",
    "threads": 1,
}


def write_tiny(folder: Path) -> Path:
    """The tiny configuration as a file, its runs below ``folder``."""
    file = folder / "tiny.yaml"
    file.write_text(yaml.safe_dump({**TINY, "exp_dir": str(folder / "exp")}))
    return file


@pytest.fixture
def tiny_yaml(tmp_path: Path) -> Path:
    """A configuration that trains in about a second; four steps an epoch."""
    return write_tiny(tmp_path)


@pytest.fixture
def tiny_run(tiny_yaml, tmp_path):
    """Trains the tiny configuration: ``tiny_run("name", "train.epochs=2", resume=...)`` gives the run directory."""

    def run(name: str, *opts: str, resume: bool = False):
        folder = tmp_path / name
        if resume:
            return train(tiny_yaml, opts, resume=folder)
        return train(tiny_yaml, opts, run_dir=folder)

    return run


@pytest.fixture(scope="session")
def two_epochs(tmp_path_factory) -> RunDirectory:
    """A finished run of two epochs; only to be read."""
    folder = tmp_path_factory.mktemp("trained")
    return train(write_tiny(folder), ["train.epochs=2"], run_dir=folder / "run")


@pytest.fixture
def trained_run(two_epochs: RunDirectory, tmp_path: Path) -> RunDirectory:
    """A finished run of two epochs, which a test may change."""
    return RunDirectory(shutil.copytree(two_epochs.path, tmp_path / "run"))
