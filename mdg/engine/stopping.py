"""Stopping cleanly: SIGTERM (a cluster's time limit) and Ctrl-C end the run behind a saved step."""

from __future__ import annotations

import logging
import signal
import threading
from types import FrameType

logger = logging.getLogger("mdg.train")


class StopSignals:
    """While active, the first SIGTERM or SIGINT sets ``received``; a second one acts as usual."""

    def __init__(self) -> None:
        self.received = False
        self._previous: dict[int, object] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.received = True
        self._restore()
        logger.info("%s: stopping after this step and saving; once more stops at once", signal.Signals(number).name)
