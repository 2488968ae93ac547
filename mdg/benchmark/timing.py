"""How long a step takes: CUDA events on a GPU, the monotonic clock on a CPU."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch


def elapsed_ms(action: Callable[[], Any], device: torch.device) -> float:
    """Milliseconds of one call, until all its work on the device is done."""
    if device.type == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize(device)
        start.record()
        action()
        end.record()
        torch.cuda.synchronize(device)
        return start.elapsed_time(end)
    begun = time.perf_counter()
    action()
    return 1000 * (time.perf_counter() - begun)


def repeat_ms(action: Callable[[], Any], device: torch.device, warmup: int, steps: int) -> list[float]:
    """Milliseconds of each of ``steps`` calls, after ``warmup`` calls that do not count."""
    for _ in range(warmup):
        action()
    return [elapsed_ms(action, device) for _ in range(steps)]


def summary(times_ms: Sequence[float]) -> dict[str, float]:
    """Median, 95th percentile (interpolated between neighbouring values) and minimum."""
    median, p95 = np.percentile(times_ms, [50, 95]).tolist()
    return {"median": median, "p95": p95, "min": min(times_ms)}
