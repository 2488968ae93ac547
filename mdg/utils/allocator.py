"""The C library's allocator, set up for a process that needs the same large blocks again in every step."""

from __future__ import annotations

import ctypes
import os

# Parameters of mallopt(3), from <malloc.h>, in the order in which they are set.
ARENA_MAX, MMAP_MAX, TRIM_THRESHOLD = -8, -4, -1
# One heap: the backward pass runs on a thread of its own and must reuse what the forward pass freed.
KEEP = {ARENA_MAX: 1, MMAP_MAX: 0, TRIM_THRESHOLD: 2**31 - 1}
USERS = ("MALLOC_ARENA_MAX", "MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")


def tune_allocator() -> bool:
    """Tells glibc to keep freed blocks, all in one heap that does not shrink; returns whether it took it.

    By default glibc maps a block of more than 32 MB anew each time, so that in each step the kernel zeroes the
    activations page by page (a third of a training step on a CPU), and keeps many smaller ones (a gigabyte).

    Where the user tunes glibc by its own environment variables, where the C library is another one, or is replaced
    (jemalloc, tcmalloc), nothing is changed.
    """
    tuned = any(name in os.environ for name in USERS) or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "")
    if tuned or "malloc" in os.environ.get("LD_PRELOAD", ""):
        return False
    try:
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018  (raises where the C library is not glibc)
        mallopt = library.mallopt
    except (OSError, TypeError, AttributeError):
        return False
    return all([mallopt(*setting) for setting in KEEP.items()])
