"""What a process is set to before a network runs in it: backends, precision, compilation, memory, determinism."""

from __future__ import annotations

import ctypes
import os
import shutil

import torch
from torch import nn

from mdg.config import RunConfig
from mdg.errors import ConfigError
from mdg.ops import set_backend

# Parameters of mallopt(3), from <malloc.h>, in the order in which they are set.
ARENA_MAX, MMAP_MAX, MMAP_THRESHOLD, TRIM_THRESHOLD = -8, -4, -3, -1
ONE_HEAP = {ARENA_MAX: 1}  # the backward pass runs on a thread of its own and must reuse what the forward freed
KEEP = {**ONE_HEAP, MMAP_MAX: 0, TRIM_THRESHOLD: 2**31 - 1}
GIVE_BACK = {**ONE_HEAP, MMAP_MAX: 2**16, MMAP_THRESHOLD: 2**23}
USERS = ("MALLOC_ARENA_MAX", "MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")

# Inductor would choose a memory layout for convolutions and pass it on to what feeds them. The maps of this network are
# channels-last already, as ``BHWC`` tensors that a convolution sees through a view; taking those for ``BCHW`` ones, it
# turned them round, and with PyTorch 2.12 a training step on a CPU then wrote outside of its buffers.
COMPILE_OPTIONS = {"layout_optimization": False}


def apply_runtime(config: RunConfig) -> None:
    """Backends of the operators, memory and determinism, for this process."""
    for operator in type(config.ops).model_fields:
        backend = getattr(config.ops, operator)
        # `auto` leaves the choice to the environment variable, then to the operator itself.
        set_backend(operator, None if backend == "auto" else backend)
    if config.device == "cpu" or not torch.cuda.is_available():
        # Whoever computes activations again wants less memory rather than more speed.
        tune_allocator(keep_freed=not config.train.activation_checkpointing)
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if config.train.compile and config.device != "cuda" and not torch.cuda.is_available():
        _require_compiler()
    torch.use_deterministic_algorithms(config.deterministic, warn_only=True)


def _require_compiler() -> None:
    if not any(map(shutil.which, ("c++", "g++", "clang++"))):
        raise ConfigError(
            "train.compile: torch.compile on a CPU needs a C++ compiler (c++, g++ or clang++) and none is on the PATH; "
            "install one or set --opts train.compile=false"
        )


def make_autocast(config: RunConfig, device: torch.device) -> torch.autocast:
    """Autocast in the configured precision; off for fp32."""
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[config.train.precision]
    return torch.autocast(device.type, dtype=dtype if dtype != torch.float32 else None, enabled=dtype != torch.float32)


def compile_network(model: nn.Module) -> None:
    """Compiles a network in place, at its first forward pass; names and weights stay as they are."""
    model.compile(options=COMPILE_OPTIONS)


def tune_allocator(keep_freed: bool) -> bool:
    """Tells glibc what to do with freed blocks; returns whether it took it.

    By default glibc maps a block of more than 32 MB anew each time, so that in each step the kernel zeroes the
    activations page by page (a third of a training step on a CPU), and keeps many smaller ones (a gigabyte).

    Args:
        keep_freed: True: all blocks come from one heap that does not shrink; fast. False: blocks of 8 MB and more go
            back to the system when they are freed; slower, and the peak is what is really in use.

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
    return all([mallopt(*setting) for setting in (KEEP if keep_freed else GIVE_BACK).items()])
