"""Networks and checkpoints for tests of files that other programs run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from mdg import __version__
from mdg.config import load_config
from mdg.config.yaml_text import dump
from mdg.data.datasets.mfnet import CLASSES, PALETTE_K3
from mdg.engine.checkpoint import save_checkpoint
from mdg.models import build_model

CONFIGS = Path(__file__).resolve().parents[3] / "configs"


NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "early fusion": ("demo", {"model": {"type": "SingleStream", "input": "both", "backbone": "b0"}}),
    "late fusion": ("demo", {"model": {"type": "LateFusion", "backbone": "b0"}}),
    "MDG": ("demo", {}),
    "CMX": ("mfnet/baselines/cmx_b0", {}),
    "spatial Mamba": ("mfnet/baselines/spatial_mamba", {"model": {"rgb_backbone": "b0", "thermal_backbone": "b0"}}),
    "UperNet": ("mfnet/baselines/uper_net", {"model": {"rgb_backbone": "b0", "thermal_backbone": "b0"}}),
    "as published": ("mfnet/published", {"model": {"rgb_backbone": "b0", "thermal_backbone": "b0"}}),
    "timm": ("mfnet/encoders/mdg_efficientnet_lite0", {}),
}
SCENES = {"type": "Synthetic", "height": 64, "width": 96, "train_images": 4, "val_images": 3, "test_images": 1}


@pytest.fixture(autouse=True, scope="module")
def every_network_is_shallow(shallow) -> None:
    """Every operation is traced and translated."""


@pytest.fixture(scope="module")
def a_checkpoint(tmp_path_factory, shaken, shallow) -> Callable[..., Path]:
    """A checkpoint of a network of :data:`NETWORKS` that nobody trained, its parameters moved off their first values,
    for scenes of 64 x 96."""

    def write(network: str = "early fusion", *opts: str) -> Path:
        folder = tmp_path_factory.mktemp("network")
        base, changes = NETWORKS[network]
        tree = {"_base_": str(CONFIGS / f"{base}.yaml"), **changes}
        tree["model"] = {**tree.get("model", {}), "pretrained": None}
        tree["data"] = SCENES
        (folder / "network.yaml").write_text(yaml.safe_dump(tree))
        config = load_config(folder / "network.yaml", ["device=cpu", "threads=1", *opts])
        torch.manual_seed(0)
        model = shaken(build_model(config.model, len(CLASSES), load_pretrained=False), std=0.05)
        file = folder / "run" / "checkpoints" / "best.pt"
        content = {
            "model": model.state_dict(),
            "config": dump(config.model_dump(mode="json")),
            "progress": {"epoch": 1},
            "mdg_version": __version__,
            "classes": list(CLASSES),
            "palette": [list(map(int, colour)) for colour in PALETTE_K3],
        }
        save_checkpoint(file, content)
        return file

    return write
