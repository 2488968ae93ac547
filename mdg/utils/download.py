"""Files over HTTP: continued where an earlier attempt stopped, checked against a digest, whole or not there at all."""

from __future__ import annotations

import http.client
import json
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from email.message import Message
from pathlib import Path
from typing import IO, Any, NamedTuple
from urllib.parse import urlsplit

from filelock import FileLock, Timeout

from mdg import __version__
from mdg.errors import MachineError, UserError, WeightsError
from mdg.utils.files import explained, file_sha256, require_writable, sync_file, write_json
from mdg.utils.limits import limit, require_within

ATTEMPTS = 4
TIMEOUT = 30.0  # seconds without a byte
CHUNK = 1 << 20
DIGEST = re.compile(r"[0-9a-f]{64}")

Progress = Callable[[int, "int | None"], None]
"""Takes the bytes that are there and the bytes that there will be, where the server says so."""


class Fetched(NamedTuple):
    """What a download left: size, SHA-256, and who vouched for that (empty where nobody did)."""

    size: int
    sha256: str
    vouched: str


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Keeps the SHA-256 that Hugging Face announces beside the address that it redirects to."""

    announced = ""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        tag = (headers.get("X-Linked-ETag") or "").strip('"').lower()
        if DIGEST.fullmatch(tag):
            self.announced = tag
        if urlsplit(newurl).scheme not in ("http", "https"):
            raise WeightsError(f"{req.full_url}: redirects to {newurl[:80]}, which is no address of the web")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def download(url: str, target: Path, *, sha256: str = "", progress: Progress = lambda done, whole: None) -> Fetched:
    """Fetches a file.

    Until it is whole and checked it is called ``NAME.part``; what an attempt left there is continued where the server
    still has the same file, here and in a later process.

    Args:
        url: ``http://`` or ``https://``.
        target: The file to write; one that is there is replaced.
        sha256: What the digest must be, or how it must begin (8 hex digits and more).
        progress: Told now and then.

    Raises:
        MachineError: No connection, or one that breaks again and again; what has come is kept.
        WeightsError: An address that has no such file, or a file with another digest, which is not kept.
    """
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc:
        raise UserError(f"{url}: expected an address that begins with http:// or https://")
    if sha256 and not re.fullmatch(r"[0-9a-f]{8,64}", sha256):
        raise UserError(f"{sha256}: expected a SHA-256, 64 hexadecimal digits (0-9, a-f) or the first 8 of them")
    require_writable(target)
    part = _Part(target, url)
    lock = FileLock(part.file.with_name(f"{part.file.name}.lock"), timeout=0)
    with explained(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except Timeout:
            raise UserError(f"{target}: another process fetches it at this moment; wait for it") from None
    try:
        return part.finish(sha256, _receive(part, progress))
    finally:
        lock.release()
        Path(lock.lock_file).unlink(missing_ok=True)


def _receive(part: _Part, progress: Progress) -> str:
    """Tries until the part is whole, or no attempt gets further; returns the digest that the server announced."""
    attempt = 1
    while True:
        before = part.size()
        try:
            return part.receive(progress)
        except (OSError, http.client.HTTPException) as error:
            refusal = _refusal(part.url, error)
            if refusal is not None:
                raise refusal from None
            if attempt == ATTEMPTS or (attempt > 1 and part.size() <= before):
                kept = f"; {part.size():,} bytes are kept, the same command continues" if part.size() else ""
                raise MachineError(f"{part.url}: {_spoken(error)}{kept}") from None
            attempt += 1


class _Part:
    """The unfinished file beside the target, and a note of what it is a part of."""

    def __init__(self, target: Path, url: str):
        self.target, self.url = target, url
        self.file = target.with_name(f"{target.name}.part")
        self.note = target.with_name(f"{target.name}.part.json")

    def size(self) -> int:
        return self.file.stat().st_size if self.file.is_file() else 0

    def receive(self, progress: Progress) -> str:
        """Asks for what is missing and appends it; returns the digest that was announced, or nothing.

        Raises:
            OSError, HTTPException: As urllib does, and where the connection ends too early.
        """
        redirects = _Redirects()
        opener = urllib.request.build_opener(redirects)
        request = urllib.request.Request(self.url, headers={"User-Agent": f"mdg/{__version__}"})
        validator, size = self._validator(), self.size()
        if size and validator:
            request.add_header("Range", f"bytes={size}-")
            request.add_header("If-Range", validator)
        try:
            answer = opener.open(request, timeout=TIMEOUT)
        except urllib.error.HTTPError as error:
            if error.code == 416 and (error.headers.get("Content-Range") or "") == f"bytes */{size}":
                return redirects.announced  # it was whole already
            if error.code == 416:
                self.file.unlink(missing_ok=True)
            raise
        with answer:
            start = self._start(answer, size)
            length = answer.headers.get("Content-Length")
            whole = start + int(length) if length is not None and length.isdigit() else None
            if whole is not None:
                require_within("download_bytes", whole, self.url, WeightsError)
            with explained(self.file):
                write_json(self.note, {"url": self.url, "validator": _validator_of(answer.headers)})
                stream = open(self.file, "ab" if start else "wb")  # noqa: SIM115  (closed below, errors told apart)
            with stream:
                done = start
                while chunk := answer.read(CHUNK):
                    with explained(self.file):
                        stream.write(chunk)
                    done += len(chunk)
                    if done > limit("download_bytes"):
                        require_within("download_bytes", done, self.url, WeightsError)
                    progress(done, whole)
        if whole is not None and done < whole:
            raise http.client.IncompleteRead(b"", whole - done)
        return redirects.announced

    def _validator(self) -> str:
        """By what the server knows again the version of the file that the part is of; empty where there is none."""
        with suppress(OSError, ValueError):
            note = json.loads(self.note.read_text(encoding="utf-8"))
            if isinstance(note, dict) and note.get("url") == self.url:
                return str(note.get("validator") or "")
        return ""

    def _start(self, answer: Any, size: int) -> int:
        """Where the answer begins: 0, or behind the part where the server continues it."""
        if answer.status != http.client.PARTIAL_CONTENT:
            return 0
        match = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range") or "")
        if match is None or int(match[1]) != size:
            self.file.unlink(missing_ok=True)
            raise http.client.HTTPException("the server sent another range than the one asked for")
        return size

    def finish(self, sha256: str, announced: str) -> Fetched:
        """Checks the whole file and gives it its name."""
        with explained(self.file):
            size, digest = self.size(), file_sha256(self.file)
            for expected, who in ((sha256, "given"), (announced, "announced by the server")):
                if expected and not digest.startswith(expected):
                    self.file.unlink()
                    self.note.unlink(missing_ok=True)
                    raise WeightsError(
                        f"{self.url}: the file that came ({size:,} bytes) has the SHA-256 {digest}, not {expected} as "
                        f"{who}; it was not kept"
                    )
            sync_file(self.file)
            self.file.replace(self.target)
            self.note.unlink(missing_ok=True)
        return Fetched(size, digest, "given" if sha256 else "announced by the server" if announced else "")


def _validator_of(headers: Message) -> str:
    """A strong ETag, or else the date of the last change."""
    tag = headers.get("ETag") or ""
    return tag if tag and not tag.startswith("W/") else headers.get("Last-Modified") or ""


def _refusal(url: str, error: Exception) -> UserError | None:
    """The error of an answer that trying again would not change."""
    if isinstance(error, urllib.error.HTTPError) and error.code < 500 and error.code not in (408, 416, 425, 429):
        meaning = {401: "asks for a login", 403: "is not given to everybody", 404: "has no such file", 410: "is gone"}
        return WeightsError(f"{url}: {meaning.get(error.code, 'is refused')} (HTTP {error.code} {error.reason})")
    return None


def _spoken(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answers HTTP {error.code} {error.reason}"
    if isinstance(error, http.client.IncompleteRead):
        return f"the connection ended {error.expected or 0:,} bytes too early"
    reason = getattr(error, "reason", error)
    return f"no connection ({getattr(reason, 'strerror', None) or reason or type(error).__name__})"
