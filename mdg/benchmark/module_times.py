"""Milliseconds of single modules within a forward pass, by hooks."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from statistics import median
from typing import Any

import torch
from torch import nn

from mdg.benchmark.timing import elapsed_ms


def time_modules(
    model: nn.Module, names: Iterable[str], forward: Callable[[], Any], device: torch.device, passes: int
) -> tuple[float, dict[str, float]]:
    """Milliseconds of the whole pass and of the named modules (zero where one does not run), medians over passes."""
    names = list(names)
    totals: list[float] = []
    parts: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(passes):
        with _stopwatches(model, names, device) as read:
            totals.append(elapsed_ms(forward, device))
        times = read()
        for name in names:
            parts[name].append(times[name])
    return median(totals), {name: median(values) for name, values in parts.items()}


@contextmanager
def _stopwatches(model: nn.Module, names: Iterable[str], device: torch.device) -> Iterator[Callable[[], dict]]:
    """Times the named modules; the function that it gives returns milliseconds by name, summed over calls."""
    marks: list[tuple[str, Any]] = []
    make = _Event if device.type == "cuda" else _Instant

    def read() -> dict[str, float]:
        sums: dict[str, float] = defaultdict(float)
        running: dict[str, Any] = {}
        for name, mark in marks:
            if name in running:
                sums[name] += mark.since(running.pop(name))
            else:
                running[name] = mark
        return sums

    with ExitStack() as hooks:
        for name in names:
            module = model.get_submodule(name)
            for register in (module.register_forward_pre_hook, module.register_forward_hook):
                hooks.callback(register(lambda *_, name=name: marks.append((name, make()))).remove)
        yield read


class _Instant:
    def __init__(self) -> None:
        self.seconds = time.perf_counter()

    def since(self, other: _Instant) -> float:
        return 1000 * (self.seconds - other.seconds)


class _Event:
    def __init__(self) -> None:
        self.event = torch.cuda.Event(enable_timing=True)
        self.event.record()

    def since(self, other: _Event) -> float:
        return other.event.elapsed_time(self.event)
