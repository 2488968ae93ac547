"""How kernels are compiled, and why they cannot be. Importing this module imports numba.

Compiling takes a minute, so what was compiled is kept on disk. A cache is no promise, though: it may be impossible to
write, full or damaged. Importing kernels never fails for that, and neither does calling them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numba
from numba.core.caching import FunctionCache

from mdg.ops.numba_math import FAST_SUMS


class _Cache(FunctionCache):
    """A cache on disk; a file that is damaged, or that cannot be written, costs the time to compile."""

    def load_overload(self, *arguments: Any) -> Any:
        try:
            return super().load_overload(*arguments)
        except Exception:  # a file cut off or written by another program can fail in any way
            return None

    def save_overload(self, *arguments: Any) -> None:
        try:
            super().save_overload(*arguments)
        except Exception:
            with suppress(Exception):
                self.flush()  # else a damaged index would stay


def jit(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator of a kernel that runs without the interpreter's lock, with its machine code kept on disk."""
    kernel = numba.njit(nogil=True, fastmath=FAST_SUMS, error_model="numpy")(function)
    with suppress(RuntimeError):  # no place for a cache; `why_not_cached` says so
        kernel._cache = _Cache(function)
    return kernel


def why_not_cached() -> str | None:
    """numba can keep its machine code nowhere."""
    try:
        _Cache(why_not_cached)
    except RuntimeError:
        return "numba can write its cache nowhere, and would compile for minutes in every run (set NUMBA_CACHE_DIR)"
    return None
