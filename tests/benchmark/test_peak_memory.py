"""Memory of a process of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from mdg.benchmark.memory import peak_memory
from mdg.errors import UserError


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


@pytest.mark.parametrize("megabytes", [40, 240])
def test_a_known_allocation_is_seen(megabytes):
    found = peak_memory("known_allocation:prepare", {"megabytes": megabytes})
    assert found["memory_of"] == "process"
    # The kernel counts pages in batches per processor, so it is off by a few.
    assert megabytes - 2 < found["peak_memory_mb"] - found["baseline_memory_mb"] < megabytes + 20
    assert 5 < found["baseline_memory_mb"] < 120  # without PyTorch, and without the memory of this process


def test_memory_of_this_process_does_not_count():
    held = bytearray(600 * 2**20)
    held[::4096] = b"x" * len(held[::4096])
    assert peak_memory("known_allocation:prepare", {"megabytes": 10})["peak_memory_mb"] < 200


def test_a_failure_is_one_message():
    with pytest.raises(UserError, match=r"(?s)exit code 1:.*RuntimeError: no such thing"):
        peak_memory("known_allocation:fail", {"why": "no such thing"})
