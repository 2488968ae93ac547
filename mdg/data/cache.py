"""Keeping decoded frames: in memory, or in one memory-mapped file per split that later runs and other processes share.

Layout of a packed split::

    CACHE_DIR/NAME-SPLIT-<what>-<state>/
        frames.u8    for every frame RGB [H, W, 3], thermal [H, W] and label [H, W], uint8, one after the other
        index.json   per frame: name, offset in bytes, height, width, CRC-32; and a hash over all of these
        damaged      only where a frame was found that is not as it was packed

Opening a pack compares the hash of the index and the size of the file. Every process compares the CRC-32 of a frame
when it takes it for the first time (about a millisecond per megabyte); one that differs is read from its files instead,
and the next run packs the split again.

``what`` is a hash over the frames and all options that shape them, ``state`` one over size and modification time of
every source file. A changed file or option gives another folder, so nothing that is open is ever written to.

Shape suffixes: H, W are height and width in pixels, 3 the channels R, G, B.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from rich.progress import track

from mdg.data.base import DamagedFrame, Frame, Frames, RGBTDataset
from mdg.data.reading.files import require_room, stamp
from mdg.errors import DataError, MachineError
from mdg.utils.files import file_error, sync_folder, write_json
from mdg.utils.logging import console

logger = logging.getLogger("mdg.data")
FORMAT = 2
DAMAGED = "damaged"
ADVICE = "name another folder with --opts data.cache_dir=/path, or use data.cache=ram or none"
BYTES_PER_PIXEL = 5  # three of RGB, one of thermal, one of the label
AHEAD = 32  # frames decoded ahead of the writer, so that memory stays bounded
# Options that choose frames or places, but not what a frame looks like.
NOT_PIXELS = {
    "root", "cache", "cache_dir", "limit", "holdout", "holdout_seed", "train_split", "val_split", "test_split",
}  # fmt: skip


def cache_frames(dataset: RGBTDataset, kind: str, cache_dir: Path | None, options: dict[str, Any]) -> Frames:
    """The frames of a data set, decoded once.

    Args:
        dataset: A complete split.
        kind: ``ram`` or ``packed``.
        cache_dir: Folder for packed splits; None takes ``.mdg_cache`` in the data set's root.
        options: Options of the data set as plain values; those that shape frames become part of the key.

    Raises:
        DataError: A file that cannot be used, or no right to write the cache. MachineError: no room.
    """
    if kind == "ram":
        logger.info("reading %d frames of %s %s into memory", len(dataset), dataset.dataset_name, dataset.split_label)
        return [_read_only(frame) for frame in decode_all(dataset)]
    assert kind == "packed", kind
    root = getattr(dataset, "root", None)
    return _open_packed(dataset, cache_dir or (root or Path("data")) / ".mdg_cache", options)


def decode_all(dataset: RGBTDataset) -> Iterator[Frame]:
    """All frames in order, decoded by several threads, with a progress bar on a terminal."""
    with ThreadPoolExecutor(max_workers=min(16, os.cpu_count() or 1)) as pool:
        starts = range(0, len(dataset), AHEAD)
        for start in track(starts, "decoding", console=console, transient=True, disable=not console.is_terminal):
            yield from pool.map(dataset.read, range(start, min(start + AHEAD, len(dataset))))


class PackedFrames:
    """Frames of a packed split, as read-only views into its memory-mapped file. Pickles as its path.

    Args:
        folder: The pack.

    Raises:
        DataError: It is damaged: the index is not as it was written, or the file has another size.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._index = _read_index(folder)
        self._bytes = np.memmap(folder / "frames.u8", dtype=np.uint8, mode="r")
        self._compared = np.zeros(len(self._index), bool)

    @property
    def names(self) -> list[str]:
        """Names of the frames, in order."""
        return [name for name, *_ in self._index]

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, place: int) -> Frame:
        name, offset, height, width, crc = self._index[place]
        pixels = height * width
        content = np.asarray(self._bytes[offset : offset + BYTES_PER_PIXEL * pixels])
        if not self._compared[place]:
            if zlib.crc32(content.data) != crc:
                raise self._damaged(name)
            self._compared[place] = True
        rgb, thermal, label = np.split(content, [3 * pixels, 4 * pixels])
        return Frame(rgb.reshape(height, width, 3), thermal.reshape(height, width), label.reshape(height, width), name)

    def _damaged(self, name: str) -> DamagedFrame:
        if not (self.folder / DAMAGED).exists():
            logger.warning("%s: frame %s is damaged; damaged frames are read from their files", self.folder, name)
            with suppress(OSError):
                (self.folder / DAMAGED).touch()
        return DamagedFrame(f"{self.folder}: frame {name} is not as it was packed")

    def __reduce__(self) -> tuple[type[PackedFrames], tuple[Path]]:
        return PackedFrames, (self.folder,)


def _read_index(folder: Path) -> list[list[Any]]:
    """Per frame: name, offset, height, width, CRC-32."""
    try:
        content = json.loads((folder / "index.json").read_bytes())
        frames, digest = content["frames"], content["sha256"]
        size = (folder / "frames.u8").stat().st_size
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise DataError(f"{folder}: cannot be read ({error})") from None
    if digest != _index_hash(frames):
        raise DataError(f"{folder}: index.json is not as it was written")
    expected = sum(BYTES_PER_PIXEL * height * width for _, _, height, width, _ in frames)
    if size != expected:
        raise DataError(f"{folder}: frames.u8 has {size} bytes, expected {expected}")
    return frames


def _open_packed(dataset: RGBTDataset, cache_dir: Path, options: dict[str, Any]) -> PackedFrames:
    stem = re.sub(r"[^A-Za-z0-9]+", "_", f"{dataset.dataset_name}-{dataset.split_name}")[:80]
    stem += f"-{_what(dataset, options)}"
    folder = cache_dir / f"{stem}-{_state(dataset)}"
    with suppress(DataError):
        return _open_sound(folder, dataset)
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        # The first process packs, the others wait for it and find the folder.
        with _turn(cache_dir / f"{stem}.lock"):
            try:
                return _open_sound(folder, dataset)
            except DataError as error:
                if folder.exists():
                    logger.warning("%s; packed again", error)
            _pack(dataset, folder, stem)
        return PackedFrames(folder)
    except (OSError, NotImplementedError) as error:  # the latter: a file system without locks
        if not isinstance(error, OSError):
            raise DataError(f"{cache_dir}: cannot keep packed frames there ({error}); {ADVICE}") from None
        explained = file_error(error, cache_dir)
        kind = type(explained) if isinstance(explained, MachineError) else DataError
        raise kind(f"{explained}; packed frames cannot be kept there: {ADVICE}") from None


def _open_sound(folder: Path, dataset: RGBTDataset) -> PackedFrames:
    """The pack; raises DataError where there is none or a damaged one."""
    pack = PackedFrames(folder)
    if (folder / DAMAGED).exists():
        raise DataError(f"{folder}: a damaged frame was found in it")
    if pack.names != dataset.names:
        raise DataError(f"{folder}: holds other frames than its name says")
    return pack


@contextmanager
def _turn(file: Path) -> Iterator[None]:
    """Waits until no other process holds the lock, and says so."""
    lock = FileLock(file, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        logger.info("waiting for another process that packs frames (%s)", file)
        lock.acquire(timeout=-1)
    try:
        yield
    finally:
        lock.release()


def _pack(dataset: RGBTDataset, folder: Path, stem: str) -> None:
    logger.info("packing %d frames of %s %s into %s", len(dataset), dataset.dataset_name, dataset.split_label, folder)
    # Left by a process that died, damaged, or of files that have changed since.
    for leftover in folder.parent.glob(f"{stem}-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    partial = Path(tempfile.mkdtemp(prefix=f"{stem}-partial-", dir=folder.parent))
    try:
        frames: list[list[Any]] = []
        offset = 0
        with open(partial / "frames.u8", "wb") as stream:
            for frame in decode_all(dataset):
                height, width = frame.label_HW.shape
                if not frames:
                    require_room(folder.parent, len(dataset) * height * width * BYTES_PER_PIXEL, ADVICE)
                start, crc = offset, 0
                for part in (frame.rgb_HW3, frame.thermal_HW, frame.label_HW):
                    content = np.ascontiguousarray(part).data
                    offset, crc = offset + stream.write(content), zlib.crc32(content, crc)
                frames.append([frame.name, start, height, width, crc])
            stream.flush()
            os.fsync(stream.fileno())
        index = {"format": FORMAT, "sha256": _index_hash(frames), "frames": frames}
        write_json(partial / "index.json", index, indent=None)
        partial.chmod(0o755)  # mkdtemp makes folders that other users of a shared data set could not read
        os.rename(partial, folder)
        sync_folder(folder.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _index_hash(frames: list[list[Any]]) -> str:
    return hashlib.sha256(json.dumps(frames).encode()).hexdigest()


def _what(dataset: RGBTDataset, options: dict[str, Any]) -> str:
    shaping = {key: value for key, value in options.items() if key not in NOT_PIXELS}
    return _digest([FORMAT, shaping, dataset.names, dataset.identities()])


def _state(dataset: RGBTDataset) -> str:
    return _digest([[stamp(file) for file in dataset.sources(index)] for index in range(len(dataset))])


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:12]


def _read_only(frame: Frame) -> Frame:
    for part in (frame.rgb_HW3, frame.thermal_HW, frame.label_HW):
        part.flags.writeable = False
    return frame
