"""What a tool sets up for its log, taken back."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def own_logging() -> Iterator[None]:
    """Level and handlers of our logger are afterwards what they were."""
    logger = logging.getLogger("mdg")
    before = logger.level, logger.propagate, logger.handlers[:]
    try:
        yield
    finally:
        level, logger.propagate, logger.handlers = before
        logger.setLevel(level)
