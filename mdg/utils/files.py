"""The one way in which files are written: whole, or not at all.

A file is written beside its place under a name of its own, synced, and renamed there. Readers see the old content or
the new one, whenever the process is killed, and two processes that write one file do not mix their bytes. Where writing
fails the unfinished file is removed, so that a full disk does not stay full.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from mdg.errors import MachineError, UserError

PARTIAL = ".mdg-{}.partial"  # without the name of the file, which may be as long as names can be
NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
OF_THE_MACHINE = {*NO_SPACE, errno.EIO, errno.EROFS, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ESTALE}


@contextmanager
def replacing(file: str | Path, keep_as: Path | None = None) -> Iterator[BinaryIO]:
    """A stream whose content becomes that of ``file`` at the end of the block, at once; folders are made.

    A device or a pipe (``/dev/stdout``) is written to as it is. A link keeps pointing to its file, which is replaced.
    What the file held before stays as ``keep_as``, where that is given.

    Raises:
        MachineError: No room, or a storage that fails. UserError: a path that cannot be written. Nothing was changed.
    """
    file = Path(file)
    with explained(file):
        if file.exists() and not file.is_file() and not file.is_dir():
            with open(file, "wb") as stream:
                yield stream
            return
        target = file.resolve() if file.is_symlink() else file
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = _partial_in(target.parent)
        try:
            with open(partial, "x+b") as stream:
                yield stream
                _sync(stream)
            if keep_as is not None and target.is_file():
                keep_second(target, keep_as)
            _rename(partial, target)
        except BaseException:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            raise
        sync_folder(target.parent)


def write_bytes(file: str | Path, content: bytes) -> None:
    """Replaces the content of a file; raises as :func:`replacing`."""
    with replacing(file) as stream:
        stream.write(content)


def write_text(file: str | Path, text: str) -> None:
    """Replaces the content of a file, in UTF-8; names that are not UTF-8 keep their bytes. Raises as ``replacing``."""
    try:
        content = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half of a pair, which no file name on Linux can be
        content = text.encode("utf-8", "backslashreplace")
    write_bytes(file, content)


def write_json(file: str | Path, content: Any, indent: int | None = 2) -> None:
    """Replaces the content of a file by JSON; NaN and infinities become null. Raises as :func:`replacing`."""
    write_text(file, json.dumps(plain(content), indent=indent, allow_nan=False) + "\n")


def append_line(file: Path, text: str) -> None:
    """Appends one line, on a line of its own even where the last one was cut off. Raises as :func:`replacing`."""
    with explained(file), open(file, "ab+") as stream:
        end = stream.seek(0, os.SEEK_END)
        if end:
            stream.seek(end - 1)
            text = text if stream.read(1) == b"\n" else f"\n{text}"
        stream.write(f"{text}\n".encode())


def require_writable(file: str | Path, option: str = "") -> None:
    """Raises where a file of that name cannot be written: before minutes are spent, not after. Leaves nothing behind.

    Args:
        file: The file that will be written; folders above it need not exist.
        option: That named it, for messages.

    Raises:
        UserError: As :func:`replacing`.
    """
    file = Path(file)
    with explained(f"{option} {file}".strip()):
        if file.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if file.exists() and not file.is_file():  # a device; to open a pipe could wait for ever
            if not os.access(file, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            return
        file = file.resolve()
        folder = next(parent for parent in file.parents if parent.exists())
        longest = os.pathconf(folder, "PC_NAME_MAX") if hasattr(os, "pathconf") else 255
        if max(len(os.fsencode(part)) for part in file.relative_to(folder).parts) > longest:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        trial = _partial_in(folder)
        open(trial, "xb").close()
        trial.unlink()


def sync_file(file: Path) -> None:
    """Waits until the content of a file has reached the storage; a missing file is none."""
    if file.is_file():
        with explained(file), open(file, "rb+") as stream:
            _sync(stream)


def sync_folder(folder: Path) -> None:
    """Waits until the names in a folder have reached the storage, where the file system can."""
    if os.name != "posix":
        return
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def file_sha256(file: Path) -> str:
    """SHA-256 of the content of a file, in hexadecimal digits; raises as :func:`file_error`."""
    digest = hashlib.sha256()
    with explained(file), open(file, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def keep_second(file: Path, second: Path) -> None:
    """Makes ``second`` another name of what ``file`` holds now, so that replacing ``file`` keeps the old content.

    At every moment ``file`` exists, and ``second`` is its old or its new content.
    """
    aside = _partial_in(second.parent)
    with explained(second):
        try:
            os.link(file, aside)
        except OSError:  # a file system without hard links: for a moment only `second` exists
            _rename(file, second)
            return
        _rename(aside, second)
        aside.unlink(missing_ok=True)  # where both were names of one file already, renaming does nothing


def remove_partials(folder: Path) -> None:
    """Removes what killed processes left of files that were never finished; only where nobody else writes."""
    for leftover in folder.glob(PARTIAL.format("*")):
        with suppress(OSError):
            leftover.unlink()


@contextmanager
def explained(path: str | Path | None = None) -> Iterator[None]:
    """Turns an OSError into the UserError of :func:`file_error`."""
    try:
        yield
    except OSError as error:
        raise file_error(error, path) from error


def file_error(error: OSError, path: str | Path | None = None) -> UserError:
    """The error a user can act on: :class:`MachineError` for a full or failing storage, UserError for a path."""
    where = path or error.filename or "a file"
    reason = (error.strerror or str(error)) if error.errno is not None else str(error)
    if error.errno in NO_SPACE:
        return MachineError(f"{where}: cannot be written ({reason}); free some space there, or name another place")
    if error.errno in OF_THE_MACHINE:
        return MachineError(f"{where}: {reason}; the storage or a limit of this machine refuses it")
    advice = {
        errno.ENAMETOOLONG: "choose a shorter name",
        errno.ENOENT: "check the path",
        errno.ENOTDIR: "a part of the path is a file; name a folder",
        errno.EEXIST: "a file lies where a folder is needed; name another place",
        errno.EISDIR: "a folder lies where a file is needed; name another file",
        errno.ELOOP: "links lead round in a circle",
    }.get(error.errno or 0, "check the path and who may read and write there")
    return UserError(f"{where}: {reason}; {advice}")


def plain(value: Any) -> Any:
    """The value with NaN and infinities as None, as JSON wants it."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _partial_in(folder: Path) -> Path:
    """A name for an unfinished file that no other writer takes."""
    return folder / PARTIAL.format(f"{os.getpid()}-{secrets.token_hex(4)}")


# Every change of a file goes through these two, so that tests can break off before and after each.
def _sync(stream: BinaryIO) -> None:
    stream.flush()
    os.fsync(stream.fileno())


def _rename(source: Path, target: Path) -> None:
    os.replace(source, target)
