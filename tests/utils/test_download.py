"""Downloads from a server on this machine that breaks off, redirects, forgets and lies."""

from __future__ import annotations

import hashlib
import re
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from filelock import FileLock

from mdg.errors import MachineError, UserError, WeightsError
from mdg.utils.download import download

CONTENT = bytes(range(256)) * 8192  # 2 MiB
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Gives ``content`` at every address; what a test sets changes how."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.tag, self.ranges = CONTENT, '"one"', True
        self.breaks: list[int] = []  # bytes after which the next answers break off
        self.statuses: list[int] = []  # of the next answers, before any content
        self.announced = DIGEST
        self.asked: list[str | None] = []  # the ranges asked for

    def url(self, path: str = "/file.pth") -> str:
        return f"http://127.0.0.1:{self.server_address[1]}{path}"


class Handler(BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        server = self.server
        if self.path.startswith("/hub/"):  # as Hugging Face: the digest with the redirection
            self.send_response(302)
            self.send_header("Location", "/file.pth")
            self.send_header("X-Linked-ETag", f'"{server.announced}"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if self.path == "/elsewhere":
            self.send_response(302)
            self.send_header("Location", "ftp://127.0.0.1/file")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        wanted = self.headers.get("Range")
        server.asked.append(wanted)
        if server.statuses:
            self.send_error(server.statuses.pop(0))
            return
        start = 0
        if wanted and server.ranges and self.headers.get("If-Range") == server.tag:
            start = int(re.match(r"bytes=(\d+)-", wanted)[1])
            if start >= len(server.content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(server.content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}")
        else:
            self.send_response(200)
        self.send_header("ETag", server.tag)
        self.send_header("Content-Length", str(len(server.content) - start))
        self.end_headers()
        end = start + server.breaks.pop(0) if server.breaks else len(server.content)
        self.wfile.write(server.content[start:end])


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield running
        running.shutdown()


def left(tmp_path) -> list[str]:
    return sorted(file.name for file in tmp_path.iterdir())


def test_a_file_comes_whole(server, tmp_path):
    seen = []
    found = download(server.url(), tmp_path / "new" / "a.pth", progress=lambda done, whole: seen.append((done, whole)))
    assert (found.size, found.sha256, found.vouched) == (len(CONTENT), DIGEST, "")
    assert (tmp_path / "new" / "a.pth").read_bytes() == CONTENT and left(tmp_path / "new") == ["a.pth"]
    assert seen[-1] == (len(CONTENT), len(CONTENT)) and len(seen) > 1


def test_a_broken_connection_continues(server, tmp_path):
    server.breaks = [100_000, 900_000]
    found = download(server.url(), tmp_path / "a.pth", sha256=DIGEST)
    assert found == (len(CONTENT), DIGEST, "given") and (tmp_path / "a.pth").read_bytes() == CONTENT
    assert server.asked == [None, "bytes=100000-", "bytes=1000000-"] and left(tmp_path) == ["a.pth"]


def test_the_next_process_continues(server, tmp_path):
    server.breaks = [1000, 0, 0, 0]
    with pytest.raises(MachineError, match=r"ended [\d,]+ bytes too early; 1,000 bytes are kept, the same command con"):
        download(server.url(), tmp_path / "a.pth")
    assert left(tmp_path) == ["a.pth.part", "a.pth.part.json"]
    server.asked, server.breaks = [], []
    download(server.url(), tmp_path / "a.pth")
    assert server.asked == ["bytes=1000-"] and (tmp_path / "a.pth").read_bytes() == CONTENT


def test_a_file_that_came_whole_before_its_end_is_not_fetched_again(server, tmp_path):
    server.breaks = [1000, 0, 0]
    with pytest.raises(MachineError):
        download(server.url(), tmp_path / "a.pth")
    (tmp_path / "a.pth.part").write_bytes(CONTENT)
    download(server.url(), tmp_path / "a.pth")
    assert (tmp_path / "a.pth").read_bytes() == CONTENT


@pytest.mark.parametrize("change", ["another version", "no ranges", "another address"])
def test_a_part_of_something_else_is_not_continued(server, tmp_path, change):
    server.breaks = [1000, 0, 0]
    with pytest.raises(MachineError):
        download(server.url(), tmp_path / "a.pth")
    server.breaks, url = [], server.url()
    if change == "another version":
        server.tag, server.content = '"two"', CONTENT[::-1]
    elif change == "no ranges":
        server.ranges = False
    else:
        url, server.content = server.url("/other.pth"), CONTENT[::-1]
    download(url, tmp_path / "a.pth")
    assert (tmp_path / "a.pth").read_bytes() == server.content


def test_a_weak_tag_vouches_for_nothing(server, tmp_path):
    server.tag, server.breaks = 'W/"one"', [1000]
    download(server.url(), tmp_path / "a.pth")
    assert server.asked == [None, None] and (tmp_path / "a.pth").read_bytes() == CONTENT


def test_the_digest_that_a_hub_announces(server, tmp_path):
    assert download(server.url("/hub/a"), tmp_path / "a.pth").vouched == "announced by the server"
    server.announced = "0" * 64
    with pytest.raises(WeightsError, match=rf"SHA-256 {DIGEST}, not {'0' * 64} as announced by the server; it was not"):
        download(server.url("/hub/a"), tmp_path / "b.pth")
    assert left(tmp_path) == ["a.pth"]


def test_a_digest_may_be_given_by_its_beginning(server, tmp_path):
    assert download(server.url(), tmp_path / "a.pth", sha256=DIGEST[:8]).vouched == "given"
    with pytest.raises(WeightsError, match="not 00000000 as given; it was not kept"):
        download(server.url(), tmp_path / "b.pth", sha256="0" * 8)
    assert left(tmp_path) == ["a.pth"]
    with pytest.raises(UserError, match="expected a SHA-256"):
        download(server.url(), tmp_path / "b.pth", sha256="abc")


@pytest.mark.parametrize(
    ("status", "message"), [(404, "has no such file"), (401, "asks for a login"), (403, "is not given"), (410, "gone")]
)
def test_refusals_are_not_tried_again(server, tmp_path, status, message):
    server.statuses = [status] * 5
    with pytest.raises(WeightsError, match=message):
        download(server.url(), tmp_path / "a.pth")
    assert len(server.asked) == 1 and left(tmp_path) == []


def test_a_server_that_is_busy_for_a_moment(server, tmp_path):
    server.statuses = [503]
    download(server.url(), tmp_path / "a.pth")
    assert len(server.asked) == 2
    server.statuses = [503] * 9
    with pytest.raises(MachineError, match="the server answers HTTP 503"):
        download(server.url(), tmp_path / "b.pth")


def test_no_server(tmp_path):
    with socket.socket() as bound:  # bound and not listening: nobody else takes the port
        bound.bind(("127.0.0.1", 0))
        with pytest.raises(MachineError, match=r"no connection \(Connection refused\)"):
            download(f"http://127.0.0.1:{bound.getsockname()[1]}/a", tmp_path / "a.pth")
    assert left(tmp_path) == []


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/a", "a.pth", "http://"])
def test_other_addresses(tmp_path, url):
    with pytest.raises(UserError, match="expected an address that begins with http"):
        download(url, tmp_path / "a.pth")


def test_a_redirection_out_of_the_web(server, tmp_path):
    with pytest.raises(WeightsError, match="redirects to ftp://127.0.0.1/file, which is no address of the web"):
        download(server.url("/elsewhere"), tmp_path / "a.pth")


def test_more_than_the_limit(server, tmp_path, monkeypatch):
    monkeypatch.setenv("MDG_LIMIT_DOWNLOAD_BYTES", "1000000")
    with pytest.raises(WeightsError, match="raise the limit with --limit download_bytes=2097152"):
        download(server.url(), tmp_path / "a.pth")


def test_one_process_at_a_time(server, tmp_path):
    with FileLock(tmp_path / "a.pth.part.lock"), pytest.raises(UserError, match="another process fetches it"):
        download(server.url(), tmp_path / "a.pth")
