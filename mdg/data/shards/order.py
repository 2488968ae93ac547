"""The order of an epoch over shards: random enough to learn from, and each shard read in one stretch."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def shard_order(
    shards: Sequence[Sequence[int]], window: int, generator: torch.Generator, rank: int, world_size: int
) -> list[int] | None:
    """The frames that one process sees in an epoch, in their order.

    All processes put the shards into the same random order, and the frames of each shard too. The row of all frames is
    cut into equal parts, one for each process, so that two processes share at most the shard that is cut. A process
    takes its part in windows of whole shards and shuffles the frames of each window.

    Args:
        shards: Frames of every shard.
        window: Shards that are shuffled together.
        generator: In the same state on all processes.
        rank, world_size: The process, and how many there are.

    Returns:
        Every frame in exactly one part; None where there are fewer frames than processes.
    """
    frames = sum(map(len, shards))
    if frames < world_size:
        return None
    row: list[tuple[int, int]] = []  # shard, frame
    for shard in _shuffled(range(len(shards)), generator):
        row += [(shard, frame) for frame in _shuffled(shards[shard], generator)]
    part = row[rank * frames // world_size : (rank + 1) * frames // world_size]
    order: list[int] = []
    stretch: list[int] = []
    seen: set[int] = set()
    for shard, frame in part:
        if shard not in seen and len(seen) == window:
            order += _shuffled(stretch, generator)
            stretch, seen = [], set()
        seen.add(shard)
        stretch.append(frame)
    return order + _shuffled(stretch, generator)


def _shuffled(values: Sequence[int], generator: torch.Generator) -> list[int]:
    return [values[place] for place in torch.randperm(len(values), generator=generator).tolist()]
