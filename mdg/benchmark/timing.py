"""How long a step takes and how many images pass: CUDA events on a GPU, the monotonic clock on a CPU.

Images are counted against two clocks: that on the wall, which is what a training waits for, and the processor time of
this process, which other programs on the machine hardly change.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mdg.data.transforms.chain import Sample, Transform


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


ROUNDS = 5  # other programs slow down some of the rounds


@dataclass(frozen=True)
class Rate:
    """Images made in each round, its duration and the processor time of this process, both in seconds."""

    images: list[int]
    seconds: list[float]
    cpu_seconds: list[float]

    def summary(self, in_process: bool = True) -> dict[str, Any]:
        """Images per second of the ``best`` and ``median`` round and ``per_cpu_second``; the number of ``images``.

        Args:
            in_process: No other process took part; else ``per_cpu_second`` is None.
        """
        rates = [images / seconds for images, seconds in zip(self.images, self.seconds, strict=True)]
        per_cpu_second = 1000 / self.cpu_ms() if in_process else None
        images = sum(self.images)
        return {
            "best": max(rates), "median": statistics.median(rates), "per_cpu_second": per_cpu_second, "images": images,
        }  # fmt: skip

    def cpu_ms(self) -> float:
        """Milliseconds of processor time per image."""
        return 1000 * sum(self.cpu_seconds) / sum(self.images)


def count_images(
    stream: Iterator[int],
    seconds: float,
    warm_up: int = 1,
    clock: Callable[[], float] = time.perf_counter,
    cpu_clock: Callable[[], float] = time.process_time,
) -> Rate:
    """Rate of a stream that yields, each time it has made some images, their number.

    Args:
        stream: Endless.
        seconds: Duration in all, on ``clock``; a round ends with the first yield after its share.
        warm_up: Yields that come before and do not count.
        clock, cpu_clock: Tell the time, and the processor time of this process, in seconds.
    """
    for _ in range(warm_up):
        next(stream)
    rate = Rate([], [], [])
    for _ in range(ROUNDS):
        images, start, cpu_start, elapsed = 0, clock(), cpu_clock(), 0.0
        while elapsed < seconds / ROUNDS:
            images += next(stream)
            elapsed = clock() - start
        rate.images.append(images)
        rate.seconds.append(elapsed)
        rate.cpu_seconds.append(cpu_clock() - cpu_start)
    return rate


class Stopwatch:
    """A transform that keeps the processor time of another one."""

    def __init__(self, transform: Transform, cpu_clock: Callable[[], float] = time.process_time):
        self.transform, self.name, self.cpu_clock = transform, type(transform).__name__, cpu_clock
        self.calls, self.cpu_seconds = 0, 0.0

    def __call__(self, sample: Sample) -> Sample:
        start = self.cpu_clock()
        sample = self.transform(sample)
        self.cpu_seconds += self.cpu_clock() - start
        self.calls += 1
        return sample

    def cpu_ms(self) -> float:
        """Milliseconds per call; of a transform with a probability, calls that did nothing included."""
        return 1000 * self.cpu_seconds / self.calls
