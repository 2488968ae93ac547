"""Keeping decoded frames: in memory, or in one memory-mapped file per split that later runs and other processes share.

Layout of a packed split::

    CACHE_DIR/NAME-SPLIT-<what>-<state>/
        frames.u8    for every frame RGB [H, W, 3], thermal [H, W] and label [H, W], uint8, one after the other
        index.json   per frame: name, offset in bytes, height, width

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
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from rich.progress import track

from mdg.data.base import Frame, RGBTDataset
from mdg.errors import DataError
from mdg.utils.logging import console

logger = logging.getLogger("mdg.data")
FORMAT = 1
BYTES_PER_PIXEL = 5  # three of RGB, one of thermal, one of the label
AHEAD = 32  # frames decoded ahead of the writer, so that memory stays bounded
# Options that choose frames or places, but not what a frame looks like.
NOT_PIXELS = {
    "root", "cache", "cache_dir", "limit", "holdout", "holdout_seed", "train_split", "val_split", "test_split",
}  # fmt: skip


def cache_frames(dataset: RGBTDataset, kind: str, cache_dir: Path | None, options: dict[str, Any]) -> Sequence[Frame]:
    """The frames of a data set, decoded once.

    Args:
        dataset: A complete split.
        kind: ``ram`` or ``packed``.
        cache_dir: Folder for packed splits; None takes ``.mdg_cache`` in the data set's root.
        options: Options of the data set as plain values; those that shape frames become part of the key.

    Raises:
        DataError: A file that cannot be used, no room or no right to write the cache.
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


class PackedFrames(Sequence[Frame]):
    """Frames of a packed split, as read-only views into its memory-mapped file. Pickles as its path."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._index = json.loads((folder / "index.json").read_text(encoding="utf-8"))["frames"]
        self._bytes = np.memmap(folder / "frames.u8", dtype=np.uint8, mode="r")

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, place: int) -> Frame:  # type: ignore[override]
        name, offset, height, width = self._index[place]
        pixels = height * width
        parts = np.split(np.asarray(self._bytes[offset : offset + BYTES_PER_PIXEL * pixels]), [3 * pixels, 4 * pixels])
        rgb, thermal, label = parts
        return Frame(rgb.reshape(height, width, 3), thermal.reshape(height, width), label.reshape(height, width), name)

    def __reduce__(self) -> tuple[type[PackedFrames], tuple[Path]]:
        return PackedFrames, (self.folder,)


def _open_packed(dataset: RGBTDataset, cache_dir: Path, options: dict[str, Any]) -> PackedFrames:
    stem = re.sub(r"[^A-Za-z0-9]+", "_", f"{dataset.dataset_name}-{dataset.split_name}") + f"-{_what(dataset, options)}"
    folder = cache_dir / f"{stem}-{_state(dataset)}"
    if not folder.is_dir():
        try:
            cache_dir.mkdir(parents=True, exist_ok=True)
            # The first process packs, the others wait for it and find the folder.
            with FileLock(cache_dir / f"{stem}.lock"):
                if not folder.is_dir():
                    _pack(dataset, folder, stem)
        except OSError as error:
            raise DataError(
                f"{cache_dir}: cannot keep packed frames there ({error.strerror or error}); name another folder with "
                "--opts data.cache_dir=/path, or use data.cache=ram or none"
            ) from None
    return PackedFrames(folder)


def _pack(dataset: RGBTDataset, folder: Path, stem: str) -> None:
    logger.info("packing %d frames of %s %s into %s", len(dataset), dataset.dataset_name, dataset.split_label, folder)
    for leftover in folder.parent.glob(f"{stem}-*"):  # of a process that died, or of files that have changed since
        shutil.rmtree(leftover, ignore_errors=True)
    partial = Path(tempfile.mkdtemp(prefix=f"{stem}-partial-", dir=folder.parent))
    try:
        index, offset = [], 0
        with open(partial / "frames.u8", "wb") as stream:
            for frame in decode_all(dataset):
                height, width = frame.label_HW.shape
                if not index:
                    _check_room(folder.parent, len(dataset) * height * width * BYTES_PER_PIXEL)
                index.append([frame.name, offset, height, width])
                for part in (frame.rgb_HW3, frame.thermal_HW, frame.label_HW):
                    offset += stream.write(np.ascontiguousarray(part).data)
            stream.flush()
            os.fsync(stream.fileno())
        (partial / "index.json").write_text(json.dumps({"format": FORMAT, "frames": index}), encoding="utf-8")
        partial.chmod(0o755)  # mkdtemp makes folders that other users of a shared data set could not read
        os.rename(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(
            f"{folder}: packing needs about {needed / 2**30:.1f} GiB and {free / 2**30:.1f} GiB are free; name another "
            "folder with --opts data.cache_dir=/path, or use data.cache=none"
        )


def _what(dataset: RGBTDataset, options: dict[str, Any]) -> str:
    shaping = {key: value for key, value in options.items() if key not in NOT_PIXELS}
    return _digest([FORMAT, shaping, dataset.names, dataset.identities()])


def _state(dataset: RGBTDataset) -> str:
    return _digest([[_stamp(file) for file in dataset.sources(index)] for index in range(len(dataset))])


def _stamp(file: Path) -> tuple[int, int]:
    try:
        status = file.stat()
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror}); check that it is there and readable") from None
    return status.st_size, status.st_mtime_ns


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:12]


def _read_only(frame: Frame) -> Frame:
    for part in (frame.rgb_HW3, frame.thermal_HW, frame.label_HW):
        part.flags.writeable = False
    return frame
