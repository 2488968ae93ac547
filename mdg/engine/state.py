"""What a run must remember to continue exactly where it stopped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

import mdg
from mdg.data.batches import hash_seed
from mdg.engine.distributed import World, widest_float

if TYPE_CHECKING:
    from mdg.engine.trainer import Trainer


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
    pending: bool = False
    """Whether the finished epoch has yet to be scored and to compete for ``best.pt``."""

    @property
    def place(self) -> str:
        """The epoch that is finished, or the step in the middle of one."""
        return f"{self.epoch + 1}, step {self.step}" if self.batch else str(self.epoch)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Progress:
        """The inverse of :meth:`as_dict`; what this version does not know is left out."""
        return cls(**{field.name: values[field.name] for field in fields(cls) if field.name in values})

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return asdict(self)


def description(trainer: Trainer) -> dict[str, Any]:
    """What every checkpoint of a run says beside its tensors."""
    return {
        "config": trainer.config_text,
        "progress": trainer.progress.as_dict(),
        "mdg_version": mdg.__version__,
        "classes": list(trainer.train_set.classes),
        "palette": trainer.train_set.palette_K3.tolist(),
        "trained_on": trainer.trained_on,
        "selected_on": trainer.selected_on,
        "ancestors": trainer.ancestors,
        "unlabelled": trainer.unlabelled_on,
        "deployed": trainer.method.deployed_part,
        "world_size": trainer.world.size,
        "changes": trainer.changes,
    }


Tensors = tuple[Tensor, ...] | list[Tensor]


class LossMeter:
    """Means of the loss terms since the last log line, kept on the device so that no step waits for the host.

    Passes whose loss is not finite do not count: their steps are skipped.
    """

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.count: Tensor | None = None

    @property
    def empty(self) -> bool:
        """Whether nothing was added since the last line."""
        return self.count is None

    def add(self, values: dict[str, Tensor]) -> None:
        """Adds the terms of one forward pass; all count, or none."""
        counts = torch.stack([value.detach() for value in values.values()]).isfinite().all()
        for name, value in values.items():
            wide = value.detach().to(widest_float(value.device))
            self.sums[name] = self.sums.get(name, 0) + wide.where(counts, 0)
        self.count = counts.to(widest_float(counts.device)) if self.count is None else self.count + counts

    def flush(self, world: World) -> dict[str, float]:
        """The means over all processes, NaN where no pass counted; starts anew."""
        assert self.count is not None, "nothing was added"
        names = sorted(self.sums)
        sums = torch.stack([*(self.sums[name] for name in names), self.count])
        *totals, count = world.sum(sums).tolist()
        self.sums, self.count = {}, None
        return {name: total / count if count else float("nan") for name, total in zip(names, totals, strict=True)}

    def state_dict(self) -> dict[str, Any]:
        """Plain values and tensors for a checkpoint."""
        sums = {name: value.cpu() for name, value in self.sums.items()}
        return {"sums": sums, "count": 0 if self.count is None else int(self.count)}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """The inverse of :meth:`state_dict`."""
        wide = widest_float(device)
        self.sums = {name: value.to(device, wide) for name, value in state["sums"].items()}
        self.count = torch.tensor(float(state["count"]), dtype=wide, device=device) if self.sums else None


def moving_average(model: nn.Module, decay: float) -> AveragedModel:
    """An exponential moving average of the weights that starts from the first step.

    The decay of step t is ``min(decay, (1 + t) / (10 + t))``: with a constant one, the weights of the first step would
    still make up 37 % of the average after 1000 steps at 0.999.
    """

    @torch.no_grad()
    def average(averaged: Tensors, current: Tensors, _: Tensor | int) -> None:
        t = int(kept.n_averaged)  # the one on the host: no waiting for a GPU
        torch._foreach_lerp_(list(averaged), list(current), 1 - min(decay, (1 + t) / (10 + t)))

    kept = AveragedModel(model, multi_avg_fn=average)
    return kept


def seed_step(seed: int, step: int, part: int, rank: int) -> None:
    """Seeds dropout and stochastic depth of one forward pass.

    Seeding every pass from its own place in the run, instead of saving generator states, makes a resumed run continue
    exactly, whatever happened in between (a validation, a picture, another number of loader processes).
    """
    torch.manual_seed(hash_seed(seed, step, part, rank) >> 1)
