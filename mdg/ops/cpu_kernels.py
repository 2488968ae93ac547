"""How tensors reach the numba kernels, why they cannot, and the threads on which kernels run: PyTorch's own.

Importing this module does not import numba, which takes a second.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mdg.ops.dispatch import constant_while_tracing, is_installed

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


OPERATORS = ("attention", "channel_scan", "neighborhood_attention", "resized_sum")
LOG2_E = 1.4426950408889634  # the kernels take powers of two: exp(x) = exp2(LOG2_E x)


def why_not_float32(x: Tensor) -> str | None:
    """The tensor is not on a CPU or not float32, or numba cannot be used."""
    if x.device.type != "cpu":
        return f"it runs on a CPU and the input is on {x.device.type}"
    if x.dtype != torch.float32:
        return f"it computes in float32 and the input is {str(x.dtype).removeprefix('torch.')}"
    return why_not_numba()


def why_not_numba() -> str | None:
    """numba is missing, cannot be imported, or has no place for what it compiles."""
    return _failure() if is_installed("numba") else "numba is not installed"


@constant_while_tracing
def _failure() -> str | None:
    return _try_numba()


@functools.cache
def _try_numba() -> str | None:
    # Any error counts: numba built for another numpy or llvmlite may fail in ways other than ImportError.
    try:
        for operator in OPERATORS:
            importlib.import_module(f"mdg.ops.{operator}.numba_kernels")
        from mdg.ops.numba_math import why_not_cached

        return why_not_cached()
    except Exception as error:
        first = next(iter(str(error).strip().splitlines()), "")
        return f"numba cannot be used here ({type(error).__name__}: {first})"


def flat(*tensors: Tensor) -> list[Any]:
    """Per tensor its memory as a flat array and the strides of all axes but the last, whose stride is 1."""
    arguments: list[Any] = []
    for x in tensors:
        x = x.detach()
        if x.stride(-1) != 1 or x.numel() == 0:
            x = x.contiguous()
        reach = sum((size - 1) * stride for size, stride in zip(x.shape, x.stride(), strict=True)) + 1
        arguments += [x.as_strided((reach if x.numel() else 0,), (1,)).numpy(), x.stride()[:-1]]
    return arguments
