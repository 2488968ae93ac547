"""Two processes whose network is split over them, beside the same with a copy in each: prints what a test compares."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch

from mdg.config import load_config
from mdg.engine.distributed import World, distributed
from mdg.engine.sharding import is_sharded
from mdg.engine.trainer import Trainer
from mdg.errors import NonFiniteError
from mdg.utils.run_directory import RunDirectory

STEPS = ["train.clip_grad_norm=0.5", "train.ema_decay=0.9", "train.channels_last=false"]
SGD = "optimizer={type: SGD, lr: 0.05}"


def trained(yaml: str, folder: Path, world: World, *opts: str, resume: bool = False) -> Trainer:
    """A run of these processes, to its end."""
    run = RunDirectory(folder)
    if world.main:
        run.path.mkdir(exist_ok=resume)
    world.barrier()
    config = load_config(yaml, [*STEPS, *opts])
    trainer = Trainer(config, run, world, resume=resume)
    trainer.fit()
    return trainer


def largest_difference(one: Path, other: Path) -> float:
    """Between all weights and moments of two runs; infinite where they do not hold the same tensors."""
    both = [torch.load(folder / "checkpoints" / "last.pt", weights_only=True) for folder in (one, other)]
    first, second = ({**s["model"], **s["ema"], **_moments(s["optimizer"])} for s in both)
    if first.keys() != second.keys() or any(first[name].shape != second[name].shape for name in first):
        return float("inf")
    return max(float((first[name].double() - second[name].double()).abs().max()) for name in first)


def _moments(optimizer: dict) -> dict[str, torch.Tensor]:
    return {
        f"{place} {key}": value
        for place, state in optimizer["state"].items()
        for key, value in state.items()
        if isinstance(value, torch.Tensor)
    }


def main(yaml: str, folder: Path) -> None:
    """Trains seven runs and prints one line of JSON."""
    fsdp2 = "train.parallel=fsdp2"
    with distributed("cpu", 1, 120) as world:
        copies = trained(yaml, folder / "ddp", world, SGD)
        split = trained(yaml, folder / "fsdp2", world, SGD, fsdp2)
        trained(yaml, folder / "ddp-adamw", world, "optimizer.eps=1e-3")
        trained(yaml, folder / "fsdp2-adamw", world, "optimizer.eps=1e-3", fsdp2)
        halfway = trained(yaml, folder / "halfway", world, "optimizer.eps=1e-3", fsdp2, "train.max_steps=3")
        trained(yaml, folder / "halfway", world, "optimizer.eps=1e-3", fsdp2, resume=True)
        try:
            diverging = ["optimizer.lr=1e30", "train.max_skipped_steps=2", "train.epochs=9", "eval.every=9"]
            trained(yaml, folder / "diverged", world, *diverging, fsdp2)
            told = "nothing"
        except NonFiniteError as error:
            told = str(error)
        own = sum(p.to_local().numel() for p in split.model.parameters())
        numbers = world.gather(own)
        scores = [t.progress.best_score for t in (copies, split)]
        counts = copies.validate().confusion.counts
        if world.main:
            found = {
                "split": [is_sharded(trainer.model) for trainer in (copies, split)],
                "numbers": numbers,
                "all": sum(p.numel() for p in copies.model.parameters()),
                "scores": scores,
                "counts": counts.tolist(),
                "sgd": largest_difference(folder / "ddp", folder / "fsdp2"),
                "adamw": largest_difference(folder / "ddp-adamw", folder / "fsdp2-adamw"),
                "resumed": largest_difference(folder / "fsdp2-adamw", folder / "halfway"),
                "stopped_at": halfway.progress.step,
                "told": told,
            }
            os.write(1, (json.dumps(found) + "\n").encode())


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
