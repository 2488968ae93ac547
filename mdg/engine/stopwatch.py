"""Where the time of an epoch goes: waiting for data, forward, backward, optimizer, the rest.

On a GPU the host runs ahead, so that its clock says nothing of the work: there each part is timed by events of the
device, which are read at the end of the epoch, when it has long done that work. Waiting for data is the host's.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

PARTS = ("data", "forward", "backward", "optimizer")
Event = torch.cuda.Event


class Stopwatch:
    """Adds up the seconds of :data:`PARTS`; nothing of it changes what is computed.

    Args:
        device: Where the network runs.
    """

    def __init__(self, device: torch.device):
        self._on_device = device.type == "cuda"
        self.start()

    def start(self) -> None:
        """A new epoch."""
        self._began = time.perf_counter()
        self._seconds = dict.fromkeys(PARTS, 0.0)
        self._events: list[tuple[str, Event, Event]] = []

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Adds what happens inside to a part."""
        if self._on_device and name != "data":
            before, after = Event(enable_timing=True), Event(enable_timing=True)
            before.record()
            yield
            after.record()
            self._events.append((name, before, after))
        else:
            began = time.perf_counter()
            yield
            self._seconds[name] += time.perf_counter() - began

    def shares(self) -> tuple[float, dict[str, float]]:
        """Seconds since :meth:`start`, and the share of each part and of the ``rest`` (logging, saving, a GPU that
        waits for the host); one in sum."""
        if self._events:
            self._events[-1][2].synchronize()
        for name, before, after in self._events:
            self._seconds[name] += before.elapsed_time(after) / 1000
        self._events = []
        total = max(time.perf_counter() - self._began, 1e-9)
        shares = {name: seconds / total for name, seconds in self._seconds.items()}
        return total, {**shares, "rest": max(0.0, 1 - sum(shares.values()))}
