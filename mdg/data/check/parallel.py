"""The same work on many frames at once, with results in order and few of them waiting.

Threads rather than processes: decoding, counting levels and hashing all run without the interpreter lock, nothing has
to be copied between processes, and a data set need not be picklable.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import cv2

from mdg.data.reading.images import quiet_opencv

T = TypeVar("T")
AHEAD = 4  # results per worker that may wait for their turn


def default_workers() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_order(work: Callable[[int], T], count: int, workers: int) -> Iterator[T]:
    """``work(0)``, ``work(1)``, ... ``work(count - 1)``, in that order whatever the number of workers.

    Where the caller stops early (Ctrl-C), what has begun is finished and nothing else is begun.
    """
    if workers == 1:
        yield from map(work, range(count))
        return
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[T]] = deque()
        try:
            for index in range(count):
                waiting.append(pool.submit(work, index))
                if len(waiting) >= AHEAD * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


@contextmanager
def one_thread_each() -> Iterator[None]:
    """OpenCV with one thread per call, as the workers are many, and silent about files that the report names."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        with quiet_opencv():
            yield
    finally:
        cv2.setNumThreads(threads)
