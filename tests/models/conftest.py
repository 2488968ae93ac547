from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mdg.models import build_model

SMALL = {"type": "MDG", "rgb_backbone": "b0", "thermal_backbone": "b0"}


@pytest.fixture(scope="session")
def small_model() -> Callable[..., nn.Module]:
    """Builds the b0 network with other options, seeded."""

    def build(num_classes: int = 5, seed: int = 0, **options: Any) -> nn.Module:
        torch.manual_seed(seed)
        return build_model({**SMALL, **options}, num_classes)

    return build


@pytest.fixture(scope="session")
def draw() -> Callable[..., Tensor]:
    """Normal numbers by shape and seed."""

    def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)

    return normal


@pytest.fixture(scope="session")
def shaken() -> Callable[..., nn.Module]:
    """Moves every parameter off its initial value, so that no test passes because a bias is zero or a gain is one."""

    def shake(module: nn.Module, std: float = 0.1, seed: int = 0) -> nn.Module:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter += std * torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
        return module

    return shake
