"""How far a tool is, and work side by side."""

from __future__ import annotations

import threading

import pytest

from mdg.utils.progress import Progress, time_left
from mdg.utils.threads import in_order


def test_lines(capsys):
    progress = Progress(221, "pairs")
    progress._begun = 0.0
    progress.done = 120
    assert progress.line(60.0) == "120 of 221 pairs, 2.0 pairs/s, 0:00:50 left"
    assert Progress(None, "frames", "camera").line().startswith("camera: 0 frames, 0.0 frames/s")
    assert Progress(5).line().endswith("unknown time left")
    assert time_left(3725.4) == "1:02:05"


def test_a_log_gets_a_line_now_and_then(capsys):
    with Progress(4, every=0.0) as often:
        for _ in range(4):
            often.advance()
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" pairs")[0] for line in lines] == ["1 of 4", "2 of 4", "3 of 4"]
    with Progress(4, every=1e9) as rarely:
        rarely.advance(3)
    assert capsys.readouterr().err == "" and rarely.done == 3


@pytest.mark.parametrize("workers", [1, 3])
def test_results_are_in_order(workers):
    started = threading.Event()

    def work(item: int) -> int:
        if item == 0 and workers > 1:
            assert started.wait(10)  # the second is begun before the first is done
        started.set() if item == 1 else None
        return item * item

    assert list(in_order(work, iter(range(20)), workers)) == [item * item for item in range(20)]


def test_items_are_taken_as_they_are_needed():
    taken = []

    def items():
        for item in range(1000):
            taken.append(item)
            yield item

    results = in_order(abs, items(), 2, ahead=3)
    assert next(results) == 0 and len(taken) <= 7
    results.close()
    assert len(taken) <= 7


def test_an_error_comes_in_its_place():
    def work(item: int) -> int:
        if item == 2:
            raise ValueError("two")
        return item

    results = in_order(work, range(5), 2)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="two"):
        next(results)
