from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from mdg.models import build_model
from mdg.models.backbones.mit import VARIANTS

SMALL = {"type": "MDG", "rgb_backbone": "b0", "thermal_backbone": "b0"}


@pytest.fixture(scope="session")
def small_model() -> Callable[..., nn.Module]:
    """Builds the b0 network with other options, seeded; its encoders have one block a stage, which hold every kind of
    operation."""

    def build(num_classes: int = 5, seed: int = 0, **options: Any) -> nn.Module:
        torch.manual_seed(seed)
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(VARIANTS, "b0", (VARIANTS["b0"][0], (1, 1, 1, 1)))
            return build_model({**SMALL, **options}, num_classes)

    return build


@pytest.fixture(params=["shallow", pytest.param("whole", marks=pytest.mark.slow)])  # whole: a minute of tracing
def tracing_depth(request, monkeypatch) -> None:
    """Encoders of one block a stage, which hold every kind of operation, where every operation is traced."""
    if request.param == "shallow":
        monkeypatch.setitem(VARIANTS, "b0", (VARIANTS["b0"][0], (1, 1, 1, 1)))
