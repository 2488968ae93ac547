"""Processes that train a small network in a network of their own, and the bytes that went through it per step.

``ip netns exec NAME python cluster.py N ddp|fsdp2``: forks N processes behind one import of PyTorch.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from mdg.engine.distributed import World, data_parallel
from mdg.engine.sharding import shard
from mdg.models.recompute import Recomputable

STEPS = 4


class Block(Recomputable):
    """Half a million numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(700, 700, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.linear(x)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(Block(), Block(), nn.BatchNorm1d(700), nn.Linear(700, 100))


def through_loopback() -> int:
    line = next(line for line in Path("/proc/self/net/dev").read_text().splitlines() if line.strip().startswith("lo:"))
    return int(line.split(":")[1].split()[0])


def process(rank: int, size: int, parallel: str) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29500", GLOO_SOCKET_IFNAME="lo")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=size)
    world, model = World(rank, size), network()
    if parallel == "fsdp2":
        shard(model, world.mesh())
    called = model if parallel == "fsdp2" else data_parallel(model, world)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    images = torch.randn(4, 700, generator=torch.Generator().manual_seed(rank))

    def step() -> None:
        called(images).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    step()  # the first one also builds what the others reuse
    dist.barrier()
    before = through_loopback()
    for _ in range(STEPS):
        step()
    dist.barrier()
    if rank == 0:
        parameters = sum(p.numel() for p in model.parameters())
        print(json.dumps({"bytes": (through_loopback() - before) / STEPS, "parameters": parameters}), flush=True)
    dist.destroy_process_group()


def main(size: int, parallel: str) -> None:
    children = []
    for rank in range(size):
        child = os.fork()
        if child == 0:
            process(rank, size, parallel)
            os._exit(0)
        children.append(child)
    failed = [child for child in children if os.waitpid(child, 0)[1]]
    sys.exit(bool(failed))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
