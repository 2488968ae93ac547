"""Chunks of work on the threads of PyTorch's OpenMP, or of a pool where it has none."""

from __future__ import annotations

import threading

import pytest
import torch

from mdg.ops import cpu_kernels
from mdg.ops.cpu_kernels import equal_chunks, run_chunks


@pytest.fixture(params=["openmp", "pool"])
def team(request, monkeypatch):
    if request.param == "pool":
        monkeypatch.setattr(cpu_kernels, "_openmp", lambda: None)
    elif cpu_kernels._openmp() is None:
        pytest.skip("PyTorch brings no libgomp on this platform")
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield request.param
    torch.set_num_threads(before)


def test_chunks_cover_all_items():
    assert equal_chunks(7, 3) == [(0, 3), (3, 6), (6, 7)]
    assert equal_chunks(0, 3) == []


def test_every_chunk_runs_once(team):
    seen = []
    run_chunks(lambda *chunk: seen.append(chunk), equal_chunks(100, 3))
    assert sorted(seen) == [(number, 3 * number, min(3 * number + 3, 100)) for number in range(34)]


def test_chunks_run_at_once(team):
    together = threading.Barrier(3, timeout=60)
    idents = set()

    def wait(*chunk: int) -> None:
        together.wait()  # fails unless three threads are inside
        idents.add(threading.get_ident())

    run_chunks(wait, equal_chunks(3, 1))
    assert len(idents) == 3 and threading.get_ident() in idents


@pytest.mark.parametrize("kind", [ValueError, IndexError, KeyboardInterrupt])
def test_an_error_comes_out_and_the_next_call_works(team, kind):
    def fail(number: int, start: int, stop: int) -> None:
        if number == 5:
            raise kind("chunk 5")

    with pytest.raises(kind, match="chunk 5"):
        run_chunks(fail, equal_chunks(8, 1))
    seen = []
    run_chunks(lambda number, *_: seen.append(number), equal_chunks(8, 1))
    assert sorted(seen) == list(range(8))


def test_one_chunk_stays_on_this_thread(team):
    seen = []
    run_chunks(lambda *chunk: seen.append(threading.get_ident()), [(0, 4)])
    assert seen == [threading.get_ident()]


def test_no_chunk():
    run_chunks(lambda *chunk: pytest.fail("called"), [])
