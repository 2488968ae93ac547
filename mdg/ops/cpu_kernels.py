"""Runs a CPU kernel that holds no lock of the interpreter in chunks, on as many threads as PyTorch uses."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import torch

_CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def equal_chunks(items: int, size: int) -> list[tuple[int, int]]:
    """``(start, stop)`` of consecutive chunks of ``size`` items; the last may be shorter."""
    return [(start, min(start + size, items)) for start in range(0, items, size)]


def run_chunks(kernel: Callable[[int, int, int], None], chunks: Sequence[tuple[int, int]]) -> None:
    """Calls ``kernel(chunk, start, stop)`` for every chunk. The chunks are the caller's, whatever the threads."""
    remaining = enumerate(chunks)  # shared: a step of it is atomic
    errors: list[BaseException] = []

    def work() -> None:
        try:
            for number, (start, stop) in remaining:
                if errors:
                    break
                kernel(number, start, stop)
        except BaseException as error:
            errors.append(error)

    run_team(work, min(torch.get_num_threads(), len(chunks)))
    if errors:
        raise errors[0]


def run_team(work: Callable[[], None], threads: int) -> None:
    """Calls ``work``, which must not raise, once on each of ``threads`` threads, this one among them."""
    parallel = _openmp()
    if threads <= 1:
        work()
    elif parallel is not None:
        parallel(_CALLBACK(lambda _: work()), None, threads, 0)
    else:
        helpers = [_pool(threads - 1).submit(work) for _ in range(threads - 1)]
        work()
        for helper in helpers:
            helper.result()


@lru_cache(maxsize=1)
def _openmp() -> Callable[..., None] | None:
    """``GOMP_parallel`` of the OpenMP library that PyTorch runs on, where it is one of GNU's, or None.

    After a parallel region the threads of OpenMP wait for the next one without giving their processor away, some
    milliseconds long. Threads of our own would compete with them for it; theirs are at once there.
    """
    package = Path(torch.__file__).parent
    for file in [*package.glob("lib/libgomp*.so*"), *package.glob("../torch.libs/libgomp*.so*")]:
        parallel = getattr(ctypes.CDLL(str(file)), "GOMP_parallel", None)
        if parallel is not None:
            parallel.argtypes, parallel.restype = [_CALLBACK, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint], None
            return parallel
    return None


@lru_cache(maxsize=4)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="mdg-kernel")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # threads do not survive a fork
