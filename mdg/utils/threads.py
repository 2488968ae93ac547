"""Work done side by side, with results in order and few of them waiting."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

S = TypeVar("S")
T = TypeVar("T")
AHEAD = 4  # results per worker that may wait for their turn


def in_order(work: Callable[[S], T], items: Iterable[S], workers: int, ahead: int = AHEAD) -> Iterator[T]:
    """``work`` of every item, in the order of the items whatever the number of workers.

    Items are taken as they are needed, by the caller's own thread. Where the caller stops early (Ctrl-C), what has
    begun is finished and nothing else is begun.

    Args:
        work: Called in threads; with one worker in the caller's.
        items: May have no end.
        workers: Threads.
        ahead: Results per worker that may wait for their turn.
    """
    if workers == 1:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[T]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) >= ahead * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
