from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from mdg.models import build_model

SMALL = {"type": "MDG", "rgb_backbone": "b0", "thermal_backbone": "b0"}


@pytest.fixture(scope="session")
def small_model() -> Callable[..., nn.Module]:
    """Builds the b0 network with other options, seeded."""

    def build(num_classes: int = 5, seed: int = 0, **options: Any) -> nn.Module:
        torch.manual_seed(seed)
        return build_model({**SMALL, **options}, num_classes)

    return build
