"""Shards that are fetched: over HTTP and from folders, into a cache that never holds more than it may."""

from __future__ import annotations

import logging
import os
import pickle
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from mdg.data import TrainLoader, build_dataset
from mdg.data.shards.cache import ShardCache
from mdg.data.shards.make import Size, make_shards
from mdg.errors import DataError, MachineError
from mdg.options.shards import GIB
from mdg.registry import DATASETS
from mdg.utils import download

SYNTHETIC = {
    "type": "Synthetic", "height": 32, "width": 40, "train_images": 24, "val_images": 2, "test_images": 2,
}  # fmt: skip


class Handler(SimpleHTTPRequestHandler):
    """Counts what is asked for; what a test sets changes the answers."""

    asked: Counter[str]
    instead: dict[str, bytes]

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        name = self.path.rsplit("/", 1)[-1]
        self.asked[name] += 1
        if name not in self.instead:
            super().do_GET()
            return
        content = self.instead[name]
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Eight shards of three frames for training."""
    folder = tmp_path_factory.mktemp("made")
    make_shards(DATASETS.parse(SYNTHETIC), folder, Size(3, None))
    return folder


@pytest.fixture
def server(made) -> Iterator[ThreadingHTTPServer]:
    handler = type("Own", (Handler,), {"asked": Counter(), "instead": {}})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(made))) as running:
        running.daemon_threads, running.handler = True, handler
        running.url = f"http://127.0.0.1:{running.server_address[1]}"
        threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield running
        running.shutdown()


def largest(made: Path) -> int:
    return max(file.stat().st_size for file in made.glob("train-*.tar"))


def gib(made: Path, shards: float) -> float:
    """Room for so many shards."""
    return shards * largest(made) / GIB


def held(folder: Path) -> int:
    """Bytes of shards in a cache, whole or not; without the notes on those that come."""
    total = 0
    for file in folder.glob("*.tar*"):
        try:
            total += 0 if file.suffix in (".claim", ".json") else file.stat().st_size
        except FileNotFoundError:
            continue
    return total


def open_shards(root, cache: Path, role: str = "train", **options):
    return build_dataset({"type": "Shards", "root": root, "cache": cache, "shuffle_shards": 2, **options}, role)


def train_loader(dataset, **options) -> TrainLoader:
    return TrainLoader(dataset, [], **{"batch_size": 2, "seed": 1, "workers": 0, "prefetch": 2, **options})


# --- fetching ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_over_http_fetches_each_shard_once_and_holds_the_bound(server, made, tmp_path, workers):
    original = build_dataset(SYNTHETIC, "train")
    room = 5 if workers else 2  # loader processes are a window ahead
    dataset = open_shards(server.url, tmp_path / "cache", cache_gib=gib(made, room))
    seen = []
    for batch in train_loader(dataset, workers=workers).epoch(0):
        assert held(tmp_path / "cache") <= room * largest(made)
        for place, index in enumerate(batch.indices):
            np.testing.assert_array_equal(batch.label_BHW[place].numpy(), original[index].label_HW)
            seen.append(index)
    assert sorted(seen) == list(range(24))
    assert {name: n for name, n in server.handler.asked.items() if name.startswith("train")} == {
        f"train-{number:06d}.tar": 1 for number in range(8)
    }
    assert not [file.name for file in (tmp_path / "cache").iterdir() if ".tar." in file.name]


def test_a_later_run_finds_what_is_kept(server, made, tmp_path):
    for _ in range(2):
        dataset = open_shards(server.url + "/", tmp_path, cache_gib=gib(made, 8))
        assert [dataset[place].name for place in range(24)] == dataset.names
    assert {name: n for name, n in server.handler.asked.items() if n > 1} == {"index.json": 2}


def test_a_list_of_folders_takes_each_shard_from_where_it_is(made, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    for folder, names in (
        (one, ["index.json", "train-000000.tar"]),
        (two, [f"train-{n:06d}.tar" for n in range(1, 8)]),
    ):
        folder.mkdir()
        for name in names:
            os.link(made / name, folder / name)
    dataset = open_shards([one, two], tmp_path / "cache", cache_gib=gib(made, 3))
    assert [dataset[place].name for place in range(24)] == dataset.names
    assert 0 < held(tmp_path / "cache") <= 3 * largest(made)
    (two / "train-000007.tar").unlink()
    with pytest.raises(DataError, match=r"one/train-000007.tar: no such shard, though index.json names it"):
        open_shards([one, two], tmp_path / "cache")


def test_the_second_place_answers_where_the_first_does_not(server, made, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "ATTEMPTS", 1)
    nobody = "http://127.0.0.1:9"
    dataset = open_shards([nobody, tmp_path / "nowhere", server.url + "/none", server.url], tmp_path / "cache")
    assert dataset[0].name == dataset.names[0]
    with pytest.raises(MachineError, match="no connection") as caught:
        open_shards([nobody, tmp_path / "nowhere"], tmp_path / "cache")
    assert "no such folder" in str(caught.value)


def test_what_an_earlier_attempt_left_is_room_again(made, tmp_path):
    """A process died while it fetched: its claim and its part are there, its lock is not held."""
    most = 2 * largest(made)
    (tmp_path / "aaaa-train-000009.tar.claim").write_text(str(most))
    (tmp_path / "aaaa-train-000009.tar.fetched.part").write_bytes(bytes(most))
    dataset = open_shards([made], tmp_path, cache_gib=gib(made, 2))
    assert dataset[0].name == dataset.names[0]
    assert held(tmp_path) <= most and not list(tmp_path.glob("aaaa*"))


def test_a_living_process_keeps_the_room_it_claimed(made, tmp_path):
    most = 2 * largest(made)
    (tmp_path / "aaaa-train-000009.tar.claim").write_text(str(most))
    dataset = open_shards([made], tmp_path, cache_gib=gib(made, 2))
    lock = FileLock(tmp_path / "aaaa-train-000009.tar.lock")
    with ThreadPoolExecutor(1) as pool:
        with lock:
            waiting = pool.submit(dataset.read, 0)
            time.sleep(0.3)
            assert not waiting.done() and held(tmp_path) == 0
        assert waiting.result().name == dataset.names[0]


def test_a_shard_that_is_damaged_in_the_cache_is_fetched_again(server, made, tmp_path, caplog):
    dataset = open_shards(server.url, tmp_path)
    expected = dataset[0]
    kept = next(tmp_path.glob("*-train-000000.tar"))
    for damaged in (bytes(kept.stat().st_size), b""):
        kept.write_bytes(damaged)
        with caplog.at_level(logging.WARNING, logger="mdg.data"):
            np.testing.assert_array_equal(dataset[0].rgb_HW3, expected.rgb_HW3)
    assert caplog.text.count("fetched again") == 2 and server.handler.asked["train-000000.tar"] == 3


# --- the bound -----------------------------------------------------------------------------------------------------


def test_many_readers_never_hold_more_than_the_bound(tmp_path):
    """Sixteen threads (locks tell them apart as they do processes) want ten shards in a cache for three."""
    cache, size, worst = ShardCache(tmp_path, 3000), 1000, []

    def fetch(name: str, target: Path) -> None:
        with open(target, "wb", buffering=0) as stream:
            for _ in range(10):
                stream.write(name[:1].encode() * 100)
                worst.append(held(tmp_path))

    def read(number: int) -> bool:
        name = f"{number % 10}.tar"
        with cache.open(name, size, partial(fetch, name)) as stream:
            content = stream.read()
        worst.append(held(tmp_path))
        return content == name[:1].encode() * size

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(read, np.random.default_rng(0).integers(0, 10, 80).tolist()))
    assert size < max(worst) <= 3000
    assert {file.name for file in tmp_path.iterdir() if not file.name.endswith(".tar")} == {"turn.lock"}


def test_the_shard_that_was_used_longest_ago_goes(tmp_path):
    cache, fetched = ShardCache(tmp_path, 3000), []

    def use(name: str) -> None:
        def fetch(target: Path) -> None:
            fetched.append(name)
            target.write_bytes(bytes(1000))

        cache.open(f"{name}.tar", 1000, fetch).close()
        time.sleep(0.02)  # what tells the order is a time of the file system

    for name in "abcadab":
        use(name)
    assert fetched == list("abcdb") and sorted(f.stem for f in tmp_path.glob("*.tar")) == ["a", "b", "d"]


def test_a_cache_smaller_than_a_shard_is_refused_and_than_a_window_named(made, tmp_path, caplog):
    with pytest.raises(DataError, match=r"data.cache_gib: got .* bytes\), expected at least the size of a shard"):
        open_shards([made], tmp_path, cache_gib=gib(made, 0.5))
    with caplog.at_level(logging.WARNING, logger="mdg.data"):
        open_shards([made], tmp_path, cache_gib=gib(made, 1.5))
        open_shards([made], tmp_path, cache_gib=gib(made, 2.0))
    assert caplog.text.count("holds 1 shards, fewer than") == 1


# --- mistakes ------------------------------------------------------------------------------------------------------

PAGE = b"<!DOCTYPE html><html><body>Sign in</body></html>"


def test_an_address_that_answers_web_pages(server, tmp_path):
    server.handler.instead["index.json"] = PAGE
    with pytest.raises(DataError, match=r"/index.json: got a web page, expected the index"):
        open_shards(server.url, tmp_path)
    del server.handler.instead["index.json"]
    server.handler.instead["train-000000.tar"] = PAGE
    dataset = open_shards(server.url, tmp_path)
    with pytest.raises(DataError, match=r"train-000000.tar: got a web page, expected [\d,]+ bytes, as index.json says"):
        dataset[0]
    assert held(tmp_path) == 0


def test_a_shard_of_another_digest_is_not_kept(server, made, tmp_path):
    content = bytearray((made / "train-000000.tar").read_bytes())
    content[3000] ^= 1
    server.handler.instead["train-000000.tar"] = bytes(content)
    with pytest.raises(DataError, match=r"train-000000.tar: got a shard of SHA-256 \w+..., expected \w+..., as index"):
        open_shards(server.url, tmp_path / "web")[0]
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in made.glob("*.*"):
        if file.is_file():
            os.link(file, copy / file.name)
    (copy / "train-000000.tar").unlink()
    (copy / "train-000000.tar").write_bytes(content)
    with pytest.raises(DataError, match=r"copy/train-000000.tar: got a shard of SHA-256 \w+..., expected"):
        open_shards([copy], tmp_path / "cache")[0]
    assert held(tmp_path / "web") == held(tmp_path / "cache") == 0


def test_a_server_without_the_shard_and_one_that_is_longer(server, made, tmp_path):
    with pytest.raises(DataError, match=r"/none/index.json: has no such file \(HTTP 404"):
        open_shards(server.url + "/none", tmp_path)
    server.handler.instead["train-000000.tar"] = bytes(largest(made) + 1)
    with pytest.raises(DataError, match=r"train-000000.tar: got [\d,]+ bytes, expected"):
        open_shards(server.url, tmp_path)[0]
    assert held(tmp_path) == 0


def test_a_cache_that_cannot_be_written(made, tmp_path):
    (tmp_path / "file").write_text("")
    dataset = open_shards([made], tmp_path / "file" / "cache")
    with pytest.raises(DataError, match="cannot be kept there: name another folder as data.cache"):
        dataset[0]


def test_a_data_set_travels_to_processes_that_are_started_anew(made, tmp_path):
    dataset = open_shards([made], tmp_path)
    other = pickle.loads(pickle.dumps(dataset))
    assert other.facts() == dataset.facts()
    np.testing.assert_array_equal(other[3].rgb_HW3, dataset[3].rgb_HW3)
