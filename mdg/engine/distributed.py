"""One process or many: the same code, with collective operations that do nothing where there is one process."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from mdg.errors import ConfigError

SECONDS_TO_FINISH = 0.2


@dataclass(frozen=True)
class World:
    """This process among its peers and the device it computes on."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    device: torch.device = torch.device("cpu")

    @property
    def main(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum over all processes, in place where there are several."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def mean(self, tensor: Tensor) -> Tensor:
        """Mean over all processes."""
        return self.sum(tensor) / self.size

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        return flag if self.size == 1 else bool(self.sum(torch.tensor(int(flag), device=self.device)).item())

    def barrier(self) -> None:
        """Waits for all processes."""
        if self.size > 1:
            dist.barrier()


def leave_group() -> None:
    """``destroy_process_group()`` after a moment in which the group's own thread can finish.

    The destructor of a gloo group waits for the group's thread while it holds the lock of the interpreter. That thread
    may still need the lock to free the tensors of the last collective operations (seen with PyTorch 2.12), and both
    would wait for ever: a run that is over would never end. Asleep, this thread holds no lock. Keeping the group alive
    instead is no way out: its threads then end with the process, sometimes with an abort.
    """
    time.sleep(SECONDS_TO_FINISH)
    dist.destroy_process_group()


@contextmanager
def distributed(device: str = "auto", threads: int | None = None) -> Iterator[World]:
    """Joins the process group that `torchrun` describes in the environment, or runs alone without one.

    Args:
        device: "auto", "cpu" or "cuda".
        threads: CPU threads per process; None divides the machine's cores among its processes.

    Raises:
        ConfigError: CUDA asked for and absent, or fewer GPUs than processes.
    """
    size, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    local_rank, local_size = int(os.environ.get("LOCAL_RANK", 0)), int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    world = World(rank, size, local_rank, _pick_device(device, local_rank, local_size))
    torch.set_num_threads(
        threads or max(1, len(os.sched_getaffinity(0)) // local_size)
        if hasattr(os, "sched_getaffinity")
        else threads or torch.get_num_threads()
    )
    if world.device.type == "cuda":
        torch.cuda.set_device(world.device)
    if size > 1:
        dist.init_process_group("nccl" if world.device.type == "cuda" else "gloo")
    try:
        yield world
    finally:
        if size > 1:
            leave_group()


def _pick_device(device: str, local_rank: int, local_size: int) -> torch.device:
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "cpu" or (device == "auto" and available == 0):
        return torch.device("cpu")
    if available < local_size:
        raise ConfigError(
            f"device: {device} with {local_size} processes on this machine needs as many CUDA devices, "
            f"got {available}; start fewer processes or set --opts device=cpu"
        )
    return torch.device("cuda", local_rank)
