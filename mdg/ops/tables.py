"""Tensors that depend on sizes alone, made once and kept while they are in use.

A cache forgets. A CUDA graph does not: it reads the same memory in every replay, so whoever records one has to own the
tables that it reads. All tables are handed out here, and :func:`keeping` collects those handed out meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, wraps
from typing import Any, TypeVar

import torch

T = TypeVar("T")
Kept = dict[Any, Any]
MAX_TABLES = 16  # of one function
_local = threading.local()


def cached_tables(make: Callable[..., T]) -> Callable[..., T]:
    """Decorator of a function from sizes, dtypes and devices to tensors: the latest results are kept.

    Tables are ordinary tensors, made outside of inference mode: one born in it could not be saved for a later backward.
    """

    @lru_cache(maxsize=MAX_TABLES)
    def cached(*key: Any) -> T:
        with torch.inference_mode(False), torch.no_grad():
            return make(*key)

    @wraps(make)
    def hand_out(*key: Any) -> T:
        kept: Kept | None = getattr(_local, "kept", None)
        if kept is None:
            return cached(*key)
        # What was handed out before is handed out again, even where the cache has forgotten it since: a table that is
        # made while a graph is recorded would lie in the memory of that graph.
        if (make, key) not in kept:
            kept[make, key] = cached(*key)
        return kept[make, key]

    hand_out.cache_clear = cached.cache_clear  # type: ignore[attr-defined]  # of functools.lru_cache
    return hand_out


@contextmanager
def keeping() -> Iterator[Kept]:
    """Collects every table that is handed out to this thread in the block; they live as long as what it yields."""
    outer = getattr(_local, "kept", None)
    kept: Kept = {}
    _local.kept = kept
    try:
        yield kept
    finally:
        _local.kept = outer
        if outer is not None:
            outer.update(kept)
