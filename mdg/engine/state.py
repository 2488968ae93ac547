"""What a run must remember to continue exactly where it stopped."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from mdg.data.samples import hash_seed
from mdg.engine.distributed import World


@dataclass
class Progress:
    """Where a run stands."""

    epoch: int = 0
    """Epochs finished."""
    batch: int = 0
    """Batches of the current epoch that went into finished optimizer steps."""
    step: int = 0
    """Optimizer steps finished."""
    best_score: float | None = None
    best_epoch: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return asdict(self)


class LossMeter:
    """Means of the loss terms since the last log line, kept on the device so that no step waits for the host."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.count = 0

    def add(self, values: dict[str, Tensor]) -> None:
        """Adds the terms of one forward pass."""
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0) + value.detach().double()
        self.count += 1

    def flush(self, world: World) -> dict[str, float]:
        """The means over all processes; starts anew."""
        names = sorted(self.sums)
        stacked = torch.stack([self.sums[name] for name in names]) / max(1, self.count)
        means = world.mean(stacked).tolist()
        self.sums, self.count = {}, 0
        return dict(zip(names, means, strict=True))

    def state_dict(self) -> dict[str, Any]:
        """Plain values and tensors for a checkpoint."""
        return {"sums": {name: value.cpu() for name, value in self.sums.items()}, "count": self.count}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """The inverse of :meth:`state_dict`."""
        self.sums = {name: value.to(device) for name, value in state["sums"].items()}
        self.count = state["count"]


def seed_step(seed: int, step: int, part: int, rank: int) -> None:
    """Seeds dropout and stochastic depth of one forward pass.

    Seeding every pass from its own place in the run, instead of saving generator states, makes a resumed run continue
    exactly, whatever happened in between (a validation, a picture, another number of loader processes).
    """
    torch.manual_seed(hash_seed(seed, step, part, rank) >> 1)
