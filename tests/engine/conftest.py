"""Small runs for tests of the engine."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from mdg.engine import train

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


@pytest.fixture
def tiny_yaml(tmp_path: Path) -> Path:
    """A configuration that trains in about a second; four steps an epoch."""
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump({**TINY, "exp_dir": str(tmp_path / "exp")}))
    return file


@pytest.fixture
def tiny_run(tiny_yaml, tmp_path):
    """Trains the tiny configuration: ``tiny_run("name", "train.epochs=2", resume=...)`` gives the run directory."""

    def run(name: str, *opts: str, resume: bool = False):
        folder = tmp_path / name
        if resume:
            return train(tiny_yaml, opts, resume=folder)
        return train(tiny_yaml, opts, run_dir=folder)

    return run
