"""How far a tool is: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import time

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from mdg.utils.logging import console

EVERY = 15.0  # seconds between two lines in a log


def time_left(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"


class Progress:
    """A context manager around the work; :meth:`advance` says that some of it is done.

    Args:
        total: How much there is; None where nobody knows, as with a camera.
        unit: What is counted, in the plural.
        title: What is being done.
        every: Seconds between two lines in a log.
    """

    def __init__(self, total: int | None, unit: str = "pairs", title: str = "", every: float = EVERY):
        self.total, self.unit, self.title, self.every = total, unit, title, every
        self.done = 0
        self._begun = self._told = time.perf_counter()
        self._bar: Bar | None = None

    def __enter__(self) -> Progress:
        self._begun = self._told = time.perf_counter()
        if console.is_terminal:
            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
                console=console,
            )
            self._bar.start()
            self._task = self._bar.add_task(self.title or self.unit, total=self.total, rate="")
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, count: int = 1) -> None:
        """So many more are done."""
        self.done += count
        now = time.perf_counter()
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, rate=f"{self.rate(now):.1f} {self.unit}/s")
        elif now - self._told >= self.every and self.done != self.total:
            self._told = now
            print(self.line(now), file=sys.stderr, flush=True)  # not among what a tool prints

    def rate(self, now: float | None = None) -> float:
        """How many are done in a second, since the beginning."""
        now = time.perf_counter() if now is None else now
        return self.done / max(now - self._begun, 1e-9)

    def line(self, now: float | None = None) -> str:
        """ "120 of 221 pairs, 3.1 pairs/s, 0:00:33 left"."""
        rate = self.rate(now)
        text = f"{self.title + ': ' if self.title else ''}{self.done}"
        if self.total is None:
            return f"{text} {self.unit}, {rate:.1f} {self.unit}/s"
        left = time_left((self.total - self.done) / rate) if rate else "unknown time"
        return f"{text} of {self.total} {self.unit}, {rate:.1f} {self.unit}/s, {left} left"
