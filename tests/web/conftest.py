"""Checkpoints with random weights, for a page that needs no trained ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import mdg
from mdg.config import load_config
from mdg.config.load import dump_yaml
from mdg.data.datasets.mfnet import CLASSES, PALETTE_K3
from mdg.engine.checkpoint import save_checkpoint
from mdg.engine.predictor import Predictor
from mdg.models import build_model
from tests.engine.conftest import TINY


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Callable[..., Path]:
    """``checkpoint("name", model={...})``: random weights for scenes of 40x48, ``config.yaml`` beside them."""

    def make(name: str, **changes: object) -> Path:
        folder = tmp_path_factory.mktemp(name)
        (folder / "config.yaml").write_text(yaml.safe_dump({**TINY, **changes}))
        config = load_config(folder / "config.yaml")
        torch.manual_seed(0)
        state = {
            "model": build_model(config.model, len(CLASSES)).state_dict(),
            "config": dump_yaml(config),
            "progress": {"epoch": 1, "step": 4, "best_score": 0.25, "best_epoch": 1},
            "mdg_version": mdg.__version__,
            "classes": list(CLASSES),
            "palette": PALETTE_K3.tolist(),
        }
        save_checkpoint(folder / "best.pt", state)
        return folder / "best.pt"

    return make


@pytest.fixture(scope="session")
def tiny_checkpoint(checkpoint) -> Path:
    """Of a network without divergence, whose pass takes a millisecond."""
    return checkpoint("tiny")


@pytest.fixture(scope="session")
def tiny(tiny_checkpoint) -> Predictor:
    return mdg.load(tiny_checkpoint, tiny_checkpoint.with_name("config.yaml"), device="cpu", opts=["threads=1"])


@pytest.fixture(scope="session")
def diverging(checkpoint) -> Predictor:
    """Of a network that measures divergence."""
    model = {"type": "MDG", "rgb_backbone": "b0", "thermal_backbone": "b0"}
    return mdg.load(checkpoint("diverging", model=model, custom_imports=[]), device="cpu", opts=["threads=1"])


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (40, 48, 3), np.uint8), rng.integers(0, 256, (40, 48), np.uint8)
