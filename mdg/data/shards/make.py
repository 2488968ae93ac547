"""Writing the shards of a data set, so that a run that was killed goes on and the same set gives the same bytes.

Beside the shards lies ``.made/`` with one small file per finished shard: its entry of the index and a hash over all
that it follows from (frames, sizes and times of their files, options). A later run keeps a shard where that hash and
the digest of its bytes are right. The folder is of use to a later run only and need not be copied.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import cv2
from filelock import FileLock, Timeout
from pydantic import ValidationError

from mdg.data.base import ROLES, RGBTDataset
from mdg.data.build import open_dataset
from mdg.data.cache import NOT_PIXELS
from mdg.data.reading.files import stamp
from mdg.data.shards.images import Members, encode_frame
from mdg.data.shards.index import (
    FORMAT,
    INDEX,
    DatasetEntry,
    FrameEntry,
    Index,
    Member,
    RuleEntry,
    ShardEntry,
    SplitEntry,
    key_of,
)
from mdg.data.shards.tar import TarWriter, member_bytes
from mdg.errors import ConfigError, DataError
from mdg.utils.files import explained, file_sha256, remove_partials, replacing, sync_folder, write_json

logger = logging.getLogger("mdg.data")
MADE = ".made"
AHEAD = 16  # frames encoded ahead of the writer, so that memory stays bounded
MIB = 1 << 20


class Size(NamedTuple):
    """When a shard is full: at a number of frames, or before it would exceed a number of bytes; one of them."""

    frames: int | None
    bytes: int | None


class Made(NamedTuple):
    """What there is now: the content of the index, and the names of the shards that were there already."""

    content: Index
    kept: list[str]


def make_shards(options: Any, out: Path, size: Size, told: Callable[[str], None] = lambda text: None) -> Made:
    """Writes every split of a data set as shards with their index, or goes on with that.

    Args:
        options: Of the data set, as :func:`mdg.data.build.build_dataset` takes them.
        out: Folder for the shards; made where it does not exist.
        size: When a shard is full.
        told: Called with a line on every shard.

    Raises:
        ConfigError: Shards of shards. DataError: a frame that cannot be read, a name that is not UTF-8, or another
            process at work in ``out``. MachineError: no room.
    """
    if options.type == "Shards":
        raise ConfigError(
            "data.type: got Shards, expected a data set that is not in shards yet; copy these as they are"
        )
    datasets = {role: open_dataset(options, role) for role in ROLES if _has(options, role)}
    for dataset in datasets.values():
        if "thermal" not in dataset.cameras:
            raise ConfigError(
                f"{dataset.dataset_name} has no thermal camera, and shards hold pairs; copy its files as they are"
            )
    with explained(out):
        (out / MADE).mkdir(parents=True, exist_ok=True)
    with _alone(out):
        remove_partials(out)
        making = _Making(out, size, options.model_dump(mode="json"), told)
        splits: dict[str, SplitEntry] = {}
        for role, dataset in datasets.items():
            alike = next((known for known in splits if _same_frames(datasets[known], dataset)), None)
            splits[role] = splits[alike] if alike else SplitEntry(split=dataset.split_label, shards=making.run(dataset))
        index = Index(dataset=facts_of(next(iter(datasets.values()))), splits=splits)
        write_json(out / INDEX, index.content(), indent=None)
        making.remove_others({shard.name for split in splits.values() for shard in split.shards})
    return Made(index, making.kept)


def facts_of(dataset: RGBTDataset) -> DatasetEntry:
    """What a score must say, whichever split it is of."""
    rules = [
        RuleEntry(name=rule.name, averaged=list(rule.averaged), ignored=list(rule.ignored), absent=rule.absent)
        for rule in dataset.scoring_rules()
    ]
    return DatasetEntry(
        name=dataset.dataset_name,
        classes=list(dataset.classes),
        palette=dataset.palette_K3.tolist(),
        ignore_index=dataset.ignore_index,
        background=dataset.background,
        published_frames=[dict(counts) for counts in dataset.published_frames],
        preparation=dataset.preparation(),
        scoring_rules=rules,
    )


def _has(options: Any, role: str) -> bool:
    held_out = role == "val" and options.holdout is not None
    return held_out or getattr(options, f"{role}_split") is not None


def _same_frames(one: RGBTDataset, other: RGBTDataset) -> bool:
    return one.split_label == other.split_label and one.identities() == other.identities() and one.names == other.names


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    lock = FileLock(out / MADE / "lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise DataError(f"{out}: another process makes shards there at this moment; wait for it") from None
    except NotImplementedError as error:
        raise DataError(f"{out}: files cannot be locked there ({error}); name a folder elsewhere") from None
    try:
        yield
    finally:
        lock.release()


class _Making:
    """The shards of all splits, one after the other."""

    def __init__(self, out: Path, size: Size, options: dict[str, Any], told: Callable[[str], None]):
        self.out, self.size, self.told = out, size, told
        shaping = {key: value for key, value in options.items() if key not in NOT_PIXELS}
        self._basis = [FORMAT, cv2.__version__, list(size), shaping]
        self.kept: list[str] = []

    def run(self, dataset: RGBTDataset) -> list[ShardEntry]:
        """All shards of a split."""
        facts = _frame_facts(dataset)
        shards: list[ShardEntry] = []
        place = 0
        with ThreadPoolExecutor(max_workers=min(16, os.cpu_count() or 1)) as pool:
            ahead: _Ahead | None = None
            try:
                while place < len(dataset):
                    name = f"{dataset.split}-{len(shards):06d}.tar"
                    shard = self._kept(name, facts, place)
                    if shard is None:
                        if ahead is None or ahead.place != place:
                            ahead = _Ahead(dataset, place, pool)
                        shard = self._write(name, facts, ahead)
                    shards.append(shard)
                    place += len(shard.frames)
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
        return shards

    def remove_others(self, names: set[str]) -> None:
        """Removes shards that an earlier run wrote here and that are in no split any more."""
        for note in sorted((self.out / MADE).glob("*.json")):
            if note.stem not in names:
                with explained(self.out / note.stem):
                    (self.out / note.stem).unlink(missing_ok=True)
                    note.unlink()

    def _kept(self, name: str, facts: list[_Facts], place: int) -> ShardEntry | None:
        """The shard, where an earlier run finished the same one here."""
        try:
            note = json.loads((self.out / MADE / f"{name}.json").read_bytes())
            shard = ShardEntry.model_validate(note["shard"])
            basis = self._hash(facts, place, len(shard.frames))
            size = (self.out / name).stat().st_size
        except (OSError, ValueError, TypeError, KeyError, RecursionError, ValidationError):
            return None
        same = note.get("basis") == basis and shard.name == name and size == shard.bytes
        if not same or file_sha256(self.out / name) != shard.sha256:
            return None
        self.kept.append(name)
        self.told(f"{name}: {len(shard.frames)} frames, {shard.bytes / MIB:.1f} MiB, is there already")
        return shard

    def _write(self, name: str, facts: list[_Facts], ahead: _Ahead) -> ShardEntry:
        # An index says what the shards are; while one of them changes it must not lie there.
        with explained(self.out):
            (self.out / INDEX).unlink(missing_ok=True)
            sync_folder(self.out)
        first, entries = ahead.place, list[FrameEntry]()
        with replacing(self.out / name) as stream:
            tar = TarWriter(stream)
            while (members := ahead.peek()) is not None:
                key, known = key_of(ahead.place, facts[ahead.place].name), facts[ahead.place].known()
                described = (json.dumps(known, sort_keys=True) + "\n").encode()
                if entries and self._full(len(entries), tar.size, members, described):
                    break
                placed = {
                    part: Member(suffix, *tar.add(f"{key}.{part}.{suffix}", content))
                    for part, (suffix, content) in members.items()
                }
                tar.add(f"{key}.json", described)
                entries.append(FrameEntry(key=key, **known, **placed))
                ahead.take()
            sha256 = tar.close()
        shard = ShardEntry(name=name, bytes=tar.size, sha256=sha256, frames=entries)
        note = {"basis": self._hash(facts, first, len(entries)), "shard": shard.model_dump(mode="json")}
        write_json(self.out / MADE / f"{name}.json", note, indent=None)
        self.told(f"{name}: {len(entries)} frames, {tar.size / MIB:.1f} MiB")
        return shard

    def _full(self, frames: int, size: int, members: dict[str, tuple[str, bytes]], described: bytes) -> bool:
        if self.size.frames is not None:
            return frames == self.size.frames
        assert self.size.bytes is not None
        more = sum(member_bytes(len(content)) for content in (*(data for _, data in members.values()), described))
        return size + more > self.size.bytes

    def _hash(self, facts: list[_Facts], place: int, count: int) -> str:
        """Over what a shard follows from; the frame behind the last one too, which did not fit any more."""
        basis = [*self._basis, place, facts[place : place + count + 1]]
        return hashlib.sha256(json.dumps(basis, sort_keys=True, default=str).encode()).hexdigest()


class _Ahead:
    """Frames of a data set from a place on, encoded by the threads of a pool."""

    def __init__(self, dataset: RGBTDataset, place: int, pool: ThreadPoolExecutor):
        self.place = place
        self._dataset, self._pool, self._next = dataset, pool, place
        self._coded: deque[Future[Members]] = deque()

    def peek(self) -> Members | None:
        """The frame at ``place``; None behind the last one."""
        while len(self._coded) < AHEAD and self._next < len(self._dataset):
            self._coded.append(self._pool.submit(encode_frame, self._dataset, self._next))
            self._next += 1
        return self._coded[0].result() if self._coded else None

    def take(self) -> None:
        """Goes on by one frame."""
        self._coded.popleft()
        self.place += 1


class _Facts(NamedTuple):
    """What is known of a frame besides its images."""

    name: str
    identity: str
    scene: str
    condition: str | None
    stamps: list[tuple[int, int]]

    def known(self) -> dict[str, str]:
        """For the index and for ``KEY.json``: what differs from the name, and the condition where there is one."""
        same = {key: value for key in ("identity", "scene") if (value := getattr(self, key)) != self.name}
        return {"name": self.name, **same, **({"condition": self.condition} if self.condition else {})}


def _frame_facts(dataset: RGBTDataset) -> list[_Facts]:
    facts = []
    for place, (name, identity) in enumerate(zip(dataset.names, dataset.identities(), strict=True)):
        try:
            f"{name}{identity}".encode()
        except UnicodeEncodeError:
            raise DataError(
                f"{dataset.dataset_name}: the name of frame {place} of {dataset.split_label}, {name!r}, is not UTF-8, "
                "which shards need; rename its files"
            ) from None
        stamps = [stamp(file) for file in dataset.sources(place)]
        facts.append(_Facts(name, identity, dataset.scene(name), dataset.condition(place), stamps))
    return facts
