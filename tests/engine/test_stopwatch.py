"""The time of an epoch by its parts, with a clock that the tests move."""

from __future__ import annotations

import pytest
import torch

from mdg.engine import stopwatch
from mdg.engine.stopwatch import Stopwatch


class Clock:
    """Seconds of the host."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(stopwatch, "time", clock)
    return clock


def take(watch: Stopwatch, clock: Clock, **seconds: float) -> None:
    for name, value in seconds.items():
        with watch.part(name):
            clock.now += value


def test_parts_and_the_rest_are_one_in_sum(clock):
    watch = Stopwatch(torch.device("cpu"))
    for _ in range(2):
        take(watch, clock, data=1, forward=2, backward=4, optimizer=1)
        clock.now += 2  # a line of the log
    total, shares = watch.shares()
    assert total == 20
    assert shares == pytest.approx({"data": 0.1, "forward": 0.2, "backward": 0.4, "optimizer": 0.1, "rest": 0.2})
    watch.start()
    take(watch, clock, backward=3)
    assert watch.shares() == (3, {"data": 0, "forward": 0, "backward": 1, "optimizer": 0, "rest": 0})


def test_on_a_gpu_the_device_is_asked(clock, monkeypatch):
    """The host has queued the work in no time; the device says how long it took."""
    times = iter([0, 30, 30, 90])  # milliseconds at which the events happen

    class Event:
        synchronized = 0

        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            self.at = next(times)

        def synchronize(self):
            Event.synchronized += 1

        def elapsed_time(self, other):
            return other.at - self.at

    monkeypatch.setattr(stopwatch, "Event", Event)
    watch = Stopwatch(torch.device("cuda"))
    take(watch, clock, data=0.02)
    take(watch, clock, forward=0, backward=0)
    clock.now = 0.2
    total, shares = watch.shares()
    assert total == 0.2 and Event.synchronized == 1
    assert shares == pytest.approx({"data": 0.1, "forward": 0.15, "backward": 0.3, "optimizer": 0, "rest": 0.45})
