"""The order of training over shards: a function of seed, epoch and position; one stretch per shard; exact resume."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

import pytest
import torch

from mdg.data import EvalLoader, TrainLoader, build_dataset, build_transforms
from mdg.data.batches import SampleKey, hash_seed
from mdg.data.shards.make import Size, make_shards
from mdg.data.shards.order import shard_order
from mdg.registry import DATASETS

SYNTHETIC = {
    "type": "Synthetic", "height": 32, "width": 40, "train_images": 23, "val_images": 7, "test_images": 2,
}  # fmt: skip
CHAIN = [{"type": "ColorJitter", "p": 0.5}, {"type": "HorizontalFlip"}, {"type": "RandomResizedCrop", "size": [32, 32]}]


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """23 frames in shards of 3, the last of 2."""
    folder = tmp_path_factory.mktemp("shards")
    make_shards(DATASETS.parse(SYNTHETIC), folder, Size(3, None))
    return folder


def open_shards(root: Path, **options):
    return build_dataset({"type": "Shards", "root": root, "shuffle_shards": 2, **options}, "train")


def loader_of(dataset, **options) -> TrainLoader:
    chosen = {"batch_size": 2, "seed": 7, "workers": 0, "prefetch": 2, **options}
    return TrainLoader(dataset, build_transforms(CHAIN), **chosen)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def shards_in(order: list[int], size: int) -> list[int]:
    return [frame // size for frame in order]


# --- the order itself ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
@pytest.mark.parametrize("window", [1, 2, 4, 100])
def test_every_frame_in_one_part_and_every_shard_in_one_stretch(world_size, window):
    size, count = 4, 46
    shards = [list(range(first, min(first + size, count))) for first in range(0, count, size)]
    parts = [shard_order(shards, window, generator(3), rank, world_size) for rank in range(world_size)]
    assert sorted(sum(parts, [])) == list(range(count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    readers = [set(shards_in(part, size)) for part in parts]
    # A cut divides one shard among two; there are world_size - 1 cuts.
    assert sum(map(len, readers)) <= len(shards) + world_size - 1
    for part in parts:
        row = shards_in(part, size)
        places = {shard: [place for place, other in enumerate(row) if other == shard] for shard in set(row)}
        # From the first frame of a shard to its last there are frames of a window at most.
        assert all(max(at) - min(at) < window * size for at in places.values())


def test_a_window_of_one_takes_shard_by_shard_and_a_large_one_mixes_all():
    shards = [list(range(first, first + 8)) for first in range(0, 64, 8)]
    one = [shard for shard, _ in groupby(shards_in(shard_order(shards, 1, generator(), 0, 1), 8))]
    assert len(one) == 8 and one != sorted(one)
    mixed = [shard for shard, _ in groupby(shards_in(shard_order(shards, 8, generator(), 0, 1), 8))]
    assert len(mixed) > 40
    within = shard_order(shards, 1, generator(), 0, 1)[:8]
    assert within != sorted(within)


def test_fewer_frames_than_processes_leave_the_order_to_the_loader(root):
    assert shard_order([[0, 1]], 8, generator(), 0, 3) is None
    batches = list(loader_of(open_shards(root, limit=2), world_size=3, rank=2).epoch(0))
    assert len(batches) == 1 and len(batches[0].indices) == 2


# --- through the loader --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("world_size", "batch_size"), [(1, 2), (1, 4), (2, 2), (2, 5), (3, 4)])
def test_an_epoch_shows_every_frame_and_fills_every_batch(root, world_size, batch_size):
    dataset = open_shards(root)
    keys: list[SampleKey] = []
    for rank in range(world_size):
        loader = loader_of(dataset, batch_size=batch_size, world_size=world_size, rank=rank)
        batches = loader._batches(1)
        assert len(batches) == len(loader) and {len(batch) for batch in batches} == {batch_size}
        own = [key for batch in batches for key in batch]
        assert len({key.place for key in own if key.repeat == 0}) == len([key for key in own if key.repeat == 0])
        # What fills up is what this process has just read.
        filling = [key for key in own if key.repeat]
        fresh = [key.place for key in own if not key.repeat]
        assert [key.place for key in filling] == fresh[::-1][: len(filling)]
        keys += own
    fresh = [key.place for key in keys if key.repeat == 0]
    assert sorted(fresh) == list(range(23)) and len(set(keys)) == len(keys)


def test_seed_and_epoch_give_the_order(root):
    dataset = open_shards(root)
    orders = {(seed, epoch): loader_of(dataset, seed=seed)._batches(epoch) for seed in (1, 2) for epoch in (0, 1)}
    assert len({str([key.place for batch in order for key in batch]) for order in orders.values()}) == 4
    assert orders[1, 1] == loader_of(open_shards(root), seed=1)._batches(1)


@pytest.mark.parametrize(("world_size", "workers"), [(1, 0), (2, 0), (1, 2)])
def test_an_epoch_goes_on_at_any_batch_bit_for_bit(root, world_size, workers):
    for rank in range(world_size):
        whole = list(loader_of(open_shards(root), world_size=world_size, rank=rank).epoch(2))
        starts = range(len(whole)) if workers == 0 else [3]
        for start in starts:
            resumed = loader_of(open_shards(root), world_size=world_size, rank=rank, workers=workers)
            rest = list(resumed.epoch(2, start))
            assert len(rest) == len(whole) - start > 0
            for one, other in zip(whole[start:], rest, strict=True):
                assert one.names == other.names and one.indices == other.indices
                assert all(torch.equal(a, b) for a, b in zip(one[:3], other[:3], strict=True))


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_reads_each_shard_once_an_epoch(root, rank):
    dataset, opened = open_shards(root), []
    original = dataset._read_members
    dataset._read_members = lambda shard, frame: opened.append(shard.name) or original(shard, frame)
    for _ in loader_of(dataset, world_size=2, rank=rank).epoch(0):
        pass
    # With two shards at a time, shards come back only within their window.
    kept: list[str] = []
    fetched = 0
    for name in opened:
        if name in kept:
            kept.remove(name)
        else:
            fetched += 1
        kept = [*kept, name][-2:]
    assert fetched == len(set(opened)) <= 5


def test_frames_drawn_by_chance_ignore_the_order(root):
    dataset = open_shards(root)
    chances = torch.zeros(23).numpy()
    chances[5] = 1.0
    keys = loader_of(dataset, chances=chances)._batches(0)
    assert {key.place for batch in keys for key in batch} == {5}


def test_the_order_of_other_data_sets_is_what_it_was():
    """By the rule it always had: one permutation, continued from its own start, dealt out in batches."""
    dataset = build_dataset(SYNTHETIC, "train")
    row = torch.randperm(23, generator=generator(hash_seed(7, 4))).tolist()
    drawn = [(row[place % 23], place // 23) for place in range(24)]
    for rank in (0, 1):
        got = loader_of(dataset, world_size=2, rank=rank)._batches(4)
        expected = [drawn[first : first + 2] for first in range(2 * rank, 24, 4)]
        assert [[(key.place, key.repeat) for key in batch] for batch in got] == expected


# --- scoring -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
def test_every_frame_is_scored_once_and_neighbours_by_one_process(root, world_size):
    dataset = build_dataset({"type": "Shards", "root": root}, "val")
    parts = []
    for rank in range(world_size):
        options = {"batch_size": 2, "eval_size": None, "workers": 0, "prefetch": 2}
        loader = EvalLoader(dataset, world_size=world_size, rank=rank, **options)
        parts.append([index for batch in loader for index in batch.indices])
        assert loader.images == len(parts[-1]) > 0 and parts[-1] == list(range(parts[-1][0], parts[-1][-1] + 1))
    assert sorted(sum(parts, [])) == list(range(7))
