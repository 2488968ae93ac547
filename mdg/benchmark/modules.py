"""The table by module: parameters, multiply-accumulates, and milliseconds of the forward pass, measured by hooks."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from statistics import median
from typing import Any

import torch
from torch import nn

from mdg.benchmark.macs import MacCount, outermost_called
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


# How many levels of names below the network make rows of their own; the other parts are one row each.
LEVELS = {"interaction": 3, "fusion": 2, "decoder": 2, "auxiliary": 2}
REST = "rest"


def measure_modules(
    model: nn.Module, count: MacCount, forward: Callable[[], Any], device: torch.device, passes: int
) -> list[dict[str, Any]]:
    """Rows ``name``, ``params_m``, ``gmacs``, ``ms`` and ``share`` (of the milliseconds) of the table.

    A row counts all that its module contains; ``rest`` is what lies outside the outermost rows. Times are medians over
    passes of their own, because the hooks that take them cost time too.

    Args:
        model: The network, warmed up, not compiled.
        count: Its multiply-accumulates on one image.
        forward: One forward pass.
        device: Where it runs.
        passes: Number of timed passes.
    """
    names = row_names(model)
    parts = {name: outermost_called(name, count.by_module) for name in names}
    total_ms, ms = time_modules(model, {part for group in parts.values() for part in group}, forward, device, passes)
    cells = {
        name: (parameters_of(model.get_submodule(name)), count.within(name), sum(ms[part] for part in parts[name]))
        for name in names
    }
    outer = [values for name, values in cells.items() if "." not in name]
    whole = (parameters_of(model), count.within(), total_ms)
    cells[REST] = tuple(total - sum(column) for total, *column in zip(whole, *outer, strict=True))
    return [_row(name, *values, total_ms) for name, values in cells.items()]


def _row(name: str, parameters: int, macs: int, ms: float, total_ms: float) -> dict[str, Any]:
    return {"name": name, "params_m": parameters / 1e6, "gmacs": macs / 1e9, "ms": ms, "share": ms / total_ms}


def row_names(model: nn.Module) -> list[str]:
    """Names of the modules that are rows: those with parameters, in order, each before what it contains."""
    return [
        name
        for name, module in model.named_modules()
        if name and name.count(".") < LEVELS.get(name.partition(".")[0], 1) and parameters_of(module)
    ]


def parameters_of(module: nn.Module) -> int:
    """Number of parameters."""
    return sum(parameter.numel() for parameter in module.parameters())
