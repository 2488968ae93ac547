"""Runs a CPU kernel that holds no lock of the interpreter in chunks, on as many threads as PyTorch uses."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import torch


def equal_chunks(items: int, size: int) -> list[tuple[int, int]]:
    """``(start, stop)`` of consecutive chunks of ``size`` items; the last may be shorter."""
    return [(start, min(start + size, items)) for start in range(0, items, size)]


def run_chunks(kernel: Callable[[int, int, int], None], chunks: Sequence[tuple[int, int]]) -> None:
    """Calls ``kernel(chunk, start, stop)`` for every chunk. The chunks are the caller's, whatever the threads."""
    threads = min(torch.get_num_threads(), len(chunks))
    if threads <= 1:
        for number, (start, stop) in enumerate(chunks):
            kernel(number, start, stop)
    else:
        for _ in _pool(threads).map(lambda item: kernel(item[0], *item[1]), enumerate(chunks)):
            pass


@lru_cache(maxsize=4)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="mdg-kernel")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # threads do not survive a fork
