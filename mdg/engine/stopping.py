"""Stopping cleanly: a cluster's time limit, a closed terminal and Ctrl-C end a run behind a saved step."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from types import FrameType
from typing import Any

from mdg.utils.launched import heeded

logger = logging.getLogger("mdg.train")

INSISTING = (signal.SIGTERM, signal.SIGINT)
SECONDS_OF_ONE_SIGNAL = 2.0


class StopSignals:
    """While active, the first of the :func:`heeded` signals sets ``received``; another SIGTERM or SIGINT acts as usual.

    The handler only takes a note. A line logged from it could fall into the middle of another one, whose locks and
    buffers are in use; so whoever asks by :meth:`asked` logs it.

    Attributes:
        received: Whether a stop was asked for.
        name: The first signal, such as "SIGTERM"; empty before.
    """

    def __init__(self) -> None:
        self.received, self.name = False, ""
        self._at, self._announced = 0.0, False
        self._previous: dict[int, Any] = {}
        # A cluster signals every process of a job and a launcher hands the same signal on: that is not a second one.
        launched = "LOCAL_RANK" in os.environ
        self._apart = SECONDS_OF_ONE_SIGNAL if launched else 0.0

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in heeded():
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def asked(self) -> bool:
        """``received``; the first time that it is true this is logged."""
        if self.received and not self._announced:
            self._announced = True
            logger.info("%s: stopping after this step and saving; SIGTERM or Ctrl-C now stops at once", self.name)
        return self.received

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self.received:
            self.received, self.name, self._at = True, signal.Signals(number).name, time.monotonic()
        elif number in INSISTING and time.monotonic() - self._at >= self._apart:
            self._restore()
            signal.raise_signal(number)
