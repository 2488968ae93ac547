"""Where shards lie and how one is opened: in a folder as it is, or in a cache into which it is fetched."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
import time
from pathlib import Path
from typing import BinaryIO

from mdg.data.shards.cache import ShardCache
from mdg.data.shards.index import INDEX, MAKE_ADVICE, WEB_PAGE, ShardEntry, kind_of
from mdg.errors import DataError, MachineError, UserError
from mdg.options.shards import GIB, ShardsOptions, is_address
from mdg.utils.download import download
from mdg.utils.files import explained, file_error
from mdg.utils.limits import limit, require_within

logger = logging.getLogger("mdg.data")
CHUNK = 1 << 20
HEAD = 4096
SLOW = 10.0  # seconds for a shard, from which each is worth a line


class _NotThere(DataError):
    """A place that does not have the file; another one may."""


class ShardStore:
    """The files below the places that options name.

    Args:
        options: Places and cache.
    """

    def __init__(self, options: ShardsOptions):
        self.places = options.places
        self.most = int(options.cache_gib * GIB)
        self.cache = None if options.cache is None else ShardCache(options.cache, self.most)
        self._told = False

    def read_index(self) -> tuple[bytes, str]:
        """Content of ``index.json`` of the first place that has one, and its name.

        Raises:
            DataError: No place has one. MachineError: a server that does not answer.
        """
        refusals: list[UserError] = []
        for place in self.places:
            try:
                return self._read_index(place), _join(place, INDEX)
            except (_NotThere, MachineError) as error:
                refusals.append(error)
        raise _joined(refusals)

    def _read_index(self, place: str) -> bytes:
        if is_address(place):
            assert self.cache is not None, "the options require it"
            with explained(self.cache.folder):
                self.cache.folder.mkdir(parents=True, exist_ok=True)
            # Under a name of its own: every process of a run asks for it at the same moment.
            with tempfile.TemporaryDirectory(prefix="index-", dir=self.cache.folder) as folder:
                _download(_join(place, INDEX), Path(folder, INDEX), limit("json_bytes"))
                return Path(folder, INDEX).read_bytes()
        if not Path(place).is_dir():
            raise _NotThere(f"{place}: no such folder; data.root names the one with {INDEX} and the shards")
        file = Path(place, INDEX)
        try:
            require_within("json_bytes", file.stat().st_size, file, DataError)
            return file.read_bytes()
        except FileNotFoundError:
            raise _NotThere(
                f"{file}: no such file, expected the index of shards; scripts/make_shards.py writes it when all "
                "shards are finished (the same command goes on where it stopped)"
            ) from None
        except OSError as error:
            raise DataError(str(file_error(error, file))) from None

    def require_sound(self, shards: list[ShardEntry]) -> None:
        """Looks at what can be seen without reading a shard.

        Raises:
            DataError: A shard that is larger than the cache; in folders, one that is missing or has another size.
        """
        largest = max(shards, key=lambda shard: shard.bytes)
        if self.cache is not None and largest.bytes > self.most:
            raise DataError(
                f"data.cache_gib: got {self.most / GIB:g} ({self.most:,} bytes), expected at least the size of a shard "
                f"({largest.name} has {largest.bytes:,}), better that of data.shuffle_shards of them; raise it, or "
                "make smaller shards"
            )
        if any(map(is_address, self.places)):
            return
        for shard in shards:
            file = self._find(shard)
            if (size := file.stat().st_size) != shard.bytes:
                raise DataError(_other_size(file, size, shard))

    def open(self, shard: ShardEntry) -> BinaryIO:
        """A shard, open for reading; fetched into the cache where there is one.

        Raises:
            DataError: It is nowhere, or has another digest. MachineError: a server that does not answer, a full disk.
        """
        if self.cache is None:
            file = self._find(shard)
            with explained(file):
                return open(file, "rb")
        return self.cache.open(_name_in_cache(shard), shard.bytes, lambda target: self._fetch(shard, target))

    def discard(self, shard: ShardEntry) -> bool:
        """Removes the copy of a damaged shard, so that it is fetched again; False where shards are no copies."""
        if self.cache is not None:
            self.cache.discard(_name_in_cache(shard))
        return self.cache is not None

    def _find(self, shard: ShardEntry) -> Path:
        for place in self.places:
            if not is_address(place) and (file := Path(place, shard.name)).is_file():
                return file
        raise _missing(self.places[0], shard)

    def _fetch(self, shard: ShardEntry, target: Path) -> None:
        assert self.cache is not None
        if not self._told:
            self._told = True
            logger.info("fetching shards into %s, at most %.4g GiB", self.cache.folder, self.most / GIB)
        started, refusals = time.perf_counter(), list[UserError]()
        for place in self.places:
            try:
                if is_address(place):
                    _download(_join(place, shard.name), target, shard.bytes, shard)
                elif Path(place, shard.name).is_file():
                    _copy(Path(place, shard.name), target, shard)
                else:
                    raise _missing(place, shard)
                break
            except (_NotThere, MachineError) as error:
                refusals.append(error)
        else:
            raise _joined(refusals)
        seconds = time.perf_counter() - started
        level = logging.INFO if seconds > SLOW else logging.DEBUG
        logger.log(level, "%s: %.1f MB in %.1f s from %s", shard.name, shard.bytes / 1e6, seconds, place)


def _copy(source: Path, target: Path, shard: ShardEntry) -> None:
    """Copies a shard, and compares its digest on the way."""
    digest, size = hashlib.sha256(), source.stat().st_size
    target.with_name(f"{target.name}.part").unlink(missing_ok=True)  # of a server that was named before
    if size != shard.bytes:
        raise DataError(_other_size(source, size, shard))
    try:
        with explained(), open(source, "rb") as stream, open(target, "wb") as copy:
            while block := stream.read(CHUNK):
                digest.update(block)
                copy.write(block)
        if digest.hexdigest() != shard.sha256:
            raise DataError(_other_digest(str(source), digest.hexdigest(), shard))
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def _download(url: str, target: Path, most: int, shard: ShardEntry | None = None) -> None:
    """Fetches a file of at most ``most`` bytes; with a shard, the one of its size and digest."""

    part = target.with_name(f"{target.name}.part")

    def watch(done: int, whole: int | None) -> None:
        wrong = shard is not None and whole is not None and whole != shard.bytes
        if wrong or max(done, whole or 0) > most:
            raise _OtherSize(max(done, whole or 0))

    try:
        fetched = download(url, target, progress=watch)
    except _OtherSize as size:
        got = _page_or(_head_of(part), f"{size} bytes")
        part.with_name(f"{part.name}.json").unlink(missing_ok=True)
        expected = f"{most:,} bytes, as {INDEX} says" if shard else f"an index of at most {most:,} bytes"
        raise DataError(f"{url}: got {got}, expected {expected}; {ADDRESS_ADVICE}") from None
    except MachineError:
        raise
    except UserError as error:
        there = not any(words in str(error) for words in ("has no such file", "is gone"))
        raise (DataError if there else _NotThere)(str(error)) from None
    if shard is not None and fetched.sha256 != shard.sha256:
        if got := _page_or(_head_of(target), ""):
            raise DataError(f"{url}: got {got}, expected a shard of {most:,} bytes; {ADDRESS_ADVICE}")
        raise DataError(_other_digest(url, fetched.sha256, shard))


class _OtherSize(Exception):
    """Breaks off the download of what cannot be the file that was asked for."""


def _head_of(file: Path) -> bytes:
    """The first bytes of a file, which is removed."""
    with open(file, "rb") as stream:
        head = stream.read(HEAD)
    file.unlink()
    return head


def _page_or(head: bytes, otherwise: str) -> str:
    return kind_of(head) if kind_of(head) == WEB_PAGE else otherwise


ADDRESS_ADVICE = "check that data.root is the address of the folder of the shards, not of a page that shows it"


def _missing(place: str, shard: ShardEntry) -> _NotThere:
    return _NotThere(f"{_join(place, shard.name)}: no such shard, though {INDEX} names it; {MAKE_ADVICE}")


def _other_size(file: Path, size: int, shard: ShardEntry) -> str:
    what = "was cut off" if size < shard.bytes else "is another file"
    return f"{file}: got {size:,} bytes, expected {shard.bytes:,}: the shard {what}; copy it again"


def _other_digest(place: str, digest: str, shard: ShardEntry) -> str:
    return (
        f"{place}: got a shard of SHA-256 {digest[:16]}..., expected {shard.sha256[:16]}..., as {INDEX} says; it is "
        "damaged or of another making: copy shards and index again from where they are whole"
    )


def _joined(refusals: list[UserError]) -> UserError:
    """One error of what every place said; that of a machine where one of them may have had the file."""
    kind = next((MachineError for error in refusals if isinstance(error, MachineError)), DataError)
    return kind("; ".join(dict.fromkeys(str(error) for error in refusals)))


def _join(place: str, name: str) -> str:
    return f"{place}/{name}" if is_address(place) else os.path.join(place, name)


def _name_in_cache(shard: ShardEntry) -> str:
    return f"{shard.sha256[:20]}-{shard.name}"
