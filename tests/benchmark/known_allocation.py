"""A step of known size, for the process whose memory is measured."""

from __future__ import annotations

from collections.abc import Callable


def prepare(arguments: dict) -> Callable[[], None]:
    """A step that holds ``megabytes`` for a moment."""

    def step() -> None:
        block = bytearray(arguments["megabytes"] * 2**20)
        block[::4096] = b"x" * len(block[::4096])  # memory is the process's own only once it is written to
        del block

    return step


def fail(arguments: dict) -> Callable[[], None]:
    """A step that cannot be prepared."""
    raise RuntimeError(arguments["why"])
