"""A data set in tar files that ``scripts/make_shards.py`` wrote, for sets that do not fit a local disk or lie on a slow
one. It is the data set that it was made of: same frames, same pixels, same protocol."""

from __future__ import annotations

import logging
import os
import zlib
from pathlib import Path
from typing import BinaryIO

import torch

from mdg.data.base import Frame, RGBTDataset, palette
from mdg.data.shards.images import decode_part
from mdg.data.shards.index import PARTS, FrameEntry, ShardEntry, parse_index
from mdg.data.shards.order import shard_order
from mdg.data.shards.store import ShardStore
from mdg.data.shards.tar import name_at
from mdg.errors import DataError, nearest
from mdg.metrics.scoring import ScoringRule
from mdg.options.shards import ShardsOptions
from mdg.registry import DATASETS
from mdg.utils.files import explained

logger = logging.getLogger("mdg.data")


@DATASETS.register(ShardsOptions)
class Shards(RGBTDataset):
    """A split of a data set in shards.

    Args:
        options: Where the shards lie, and the cache that they are fetched into.
        role: ``train``, ``val`` or ``test``.

    Raises:
        DataError: No index or another file, no such split, or a cache that cannot hold a shard. MachineError: a server
            that does not answer.
    """

    def __init__(self, options: ShardsOptions, *, role: str):
        self.root = " ".join(options.places)
        self._store, self.window = ShardStore(options), options.shuffle_shards
        index = parse_index(*self._store.read_index())
        facts = index.dataset
        self.dataset_name, self.classes = facts.name, tuple(facts.classes)
        self.palette_K3, self.published_frames = palette(facts.palette), tuple(facts.published_frames)
        super().__init__(options, role=role)
        self.cache, self.cache_dir = "none", None  # of decoded frames; that of shards is another
        self._background, self._preparation = facts.background, facts.preparation
        self._rules = tuple(
            ScoringRule(rule.name, tuple(rule.averaged), tuple(rule.ignored), rule.absent)
            for rule in facts.scoring_rules
        )
        if self.split_name not in index.splits:
            known = list(index.splits)
            raise DataError(
                f"{self.root}: no split '{self.split_name}' for data.{role}_split; splits here: {', '.join(known)}. "
                f"Set it to one of them, or to null.{nearest(self.split_name, known)}"
            )
        split = index.splits[self.split_name]
        entries = {frame.name: (shard, frame) for shard, frame in split.frames}
        self.split_name = split.split  # as the protocol of the original names it
        self._scenes = {name: frame.scene or name for name, (_, frame) in entries.items()}
        self.names = self._share(list(entries))
        self._entries = [entries[name] for name in self.names]
        self._require_room(options)

    def _require_room(self, options: ShardsOptions) -> None:
        shards = self._used()
        self._store.require_sound(shards)
        if self.split != "train" or options.cache is None:
            return
        processes = max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
        largest = max(shard.bytes for shard in shards)
        wanted = min(processes * self.window, len(shards)) * largest
        if wanted > self._store.most:
            logger.warning(
                "data.cache_gib %g holds %d shards, fewer than %d process(es) read at once (data.shuffle_shards %d): "
                "shards will be fetched several times an epoch",
                options.cache_gib, self._store.most // largest, processes, self.window,
            )  # fmt: skip

    def _used(self) -> list[ShardEntry]:
        """The shards that hold frames of this split, in order."""
        return list({shard.name: shard for shard, _ in self._entries}.values())

    def read(self, index: int) -> Frame:
        """Reads frame ``index``; raises DataError naming the shard where it is missing or damaged."""
        shard, frame = self._entries[index]
        try:
            members = self._read_members(shard, frame)
        except _Damaged as damage:
            if not self._store.discard(shard):
                raise DataError(str(damage)) from None
            logger.warning("%s; fetched again", damage)
            members = self._read_members(shard, frame)
        images = {part: decode_part(part, members[part], Path(shard.name, frame.member_name(part))) for part in PARTS}
        sizes = {image.shape[:2] for image in images.values()}
        if len(sizes) > 1:
            raise DataError(f"{shard.name}, frame {frame.name}: got images of sizes {sorted(sizes)}, expected one size")
        return Frame(images["rgb"], images["thermal"], images["label"], frame.name)

    def _read_members(self, shard: ShardEntry, frame: FrameEntry) -> dict[str, bytes]:
        with self._store.open(shard) as stream, explained(shard.name):
            return {part: _read_member(stream, shard, frame, part) for part in PARTS}

    def scene(self, name: str) -> str:
        """As the original data set says."""
        return self._scenes[name]

    def condition(self, index: int) -> str | None:
        """As the original data set says."""
        return self._entries[index][1].condition

    @property
    def background(self) -> int | None:
        """As the original data set says."""
        return self._background

    def identities(self) -> list[str]:
        """Those of the original data set, so that fingerprints agree."""
        return [frame.identity or frame.name for _, frame in self._entries]

    def preparation(self) -> str:
        """How the files of the original data set became images, before they were written here."""
        return self._preparation

    def scoring_rules(self) -> tuple[ScoringRule, ...]:
        """Those of the original data set."""
        return self._rules

    def epoch_order(self, generator: torch.Generator, rank: int, world_size: int) -> list[int] | None:
        """Shards in a random order, frames shuffled within windows of them: see :mod:`mdg.data.shards.order`."""
        groups: dict[str, list[int]] = {}
        for place, (shard, _) in enumerate(self._entries):
            groups.setdefault(shard.name, []).append(place)
        return shard_order(list(groups.values()), self.window, generator, rank, world_size)

    def scored_by(self, rank: int, world_size: int) -> range:
        """Neighbours, so that a process reads few shards."""
        return range(rank * len(self) // world_size, (rank + 1) * len(self) // world_size)

    def content_state(self) -> dict[str, str]:
        """As of every data set, without looking at the shards: the index knows their digests, which copies share."""
        content = self.content_hash()
        return {"names": self.fingerprint(), "sizes": content, "times": content}

    def content_hash(self) -> str:
        """SHA-256 over identities, digests of the shards and the places of the frames in them, in hexadecimal."""
        return self._hash_with([[shard.sha256, frame.key] for shard, frame in self._entries])


class _Damaged(DataError):
    """A member that is not as it was written."""


def _read_member(stream: BinaryIO, shard: ShardEntry, frame: FrameEntry, part: str) -> bytes:
    member, name = frame.member(part), frame.member_name(part)
    stream.seek(member.offset)
    content = stream.read(member.length)
    if len(content) == member.length and zlib.crc32(content) == member.crc32:
        return content
    found = name_at(stream, member.offset)
    if len(content) < member.length:
        what = f"ends within or before {name}, so it was cut off"
    elif found == name:
        what = f"{name} is not as it was written (its CRC-32 differs)"
    else:
        what = f"holds no member {name} where index.json says" + (f", but {found}" if found else "")
    raise _Damaged(f"{shard.name}, frame {frame.name}: {what}; copy the shard again, with its index")
