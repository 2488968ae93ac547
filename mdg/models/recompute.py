"""Less memory in training: activations that are cheap to compute again are not kept."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class Recomputable(nn.Module):
    """A module that can keep its inputs instead of its activations and run again in the backward pass.

    Its caller runs it with :func:`run`. It must hold no BatchNorm, whose running statistics a second run would move.
    """

    recompute = False


def run(module: nn.Module, *inputs: Tensor) -> Any:
    """``module(*inputs)``, with its activations recomputed in the backward pass where that is switched on."""
    if getattr(module, "recompute", False) and torch.is_grad_enabled():
        return checkpoint(module, *inputs, use_reentrant=False)
    return module(*inputs)


def recompute_activations(model: nn.Module) -> int:
    """Switches recomputation on in every module that allows it; returns their number."""
    modules = [module for module in model.modules() if isinstance(module, Recomputable)]
    for module in modules:
        module.recompute = True
    return len(modules)
