"""Log lines on the terminal and in the run's ``train.log``."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import MemoryHandler
from pathlib import Path

from rich.console import Console
from rich.highlighter import NullHighlighter
from rich.logging import RichHandler


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """The reader has gone: the tool ends as it would with ``print``, see :func:`mdg.utils.cli.run_tool`."""
        self.quiet = True
        raise BrokenPipeError


# A pipe or a file has no width of its own; tables should not be cut there.
# Names of classes and files are printed as they are: what stands in brackets is no markup.
console = _Console(soft_wrap=True, width=None if sys.stdout.isatty() else 140, markup=False, emoji=False)


def tolerate_encoding() -> None:
    """A terminal that cannot show a character gets another one in its place, not an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


class FileLog(logging.FileHandler):
    """A log file that falls silent, with one warning, where it can no longer be written (a full disk)."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  (the name is the standard library's)
        self.setLevel(logging.CRITICAL + 1)
        error = sys.exc_info()[1]
        print(f"warning: {self.baseFilename} is no longer written ({error})", file=sys.stderr, flush=True)


class TerminalLog(logging.StreamHandler):
    """Log lines on the standard output; falls silent where its reader has gone (``tool | head``)."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  (the name is the standard library's)
        if isinstance(sys.exc_info()[1], BrokenPipeError):
            self.setLevel(logging.CRITICAL + 1)
        else:
            super().handleError(record)


def setup_logging(main: bool = True) -> None:
    """Sends the ``mdg`` loggers to the terminal; processes other than the main one only report warnings."""
    root = logging.getLogger("mdg")
    root.setLevel(logging.INFO)
    root.propagate = False
    root.handlers = [_terminal_handler()]
    root.handlers[0].setLevel(logging.INFO if main else logging.ERROR)


def _terminal_handler() -> logging.Handler:
    if console.is_terminal:  # keeps lines above the progress bar
        return RichHandler(
            console=console,
            show_path=False,
            show_level=False,
            log_time_format="[%H:%M:%S]",
            highlighter=NullHighlighter(),
        )
    handler = TerminalLog(sys.stdout)  # a file or a pipe: one record, one line
    handler.setFormatter(logging.Formatter("[%(asctime)s] %(message)s", datefmt="%H:%M:%S"))
    return handler


def log_to_file(file: Path) -> logging.Handler:
    """Appends the ``mdg`` loggers to a file as well; remove the handler with :func:`stop_log_to_file`."""
    handler = FileLog(file, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s"))
    logging.getLogger("mdg").addHandler(handler)
    return handler


@contextmanager
def early_lines() -> Iterator[MemoryHandler]:
    """Keeps the lines of the block for a file that cannot be opened yet; give them to it with :func:`pass_on`."""
    kept = MemoryHandler(capacity=10_000, flushLevel=logging.CRITICAL + 1)
    logger = logging.getLogger("mdg")
    logger.addHandler(kept)
    try:
        yield kept
    finally:
        logger.removeHandler(kept)


def pass_on(kept: MemoryHandler, handler: logging.Handler) -> None:
    """Writes the lines kept so far."""
    kept.setTarget(handler)
    kept.flush()
    kept.setTarget(None)


def stop_log_to_file(handler: logging.Handler) -> None:
    """Closes a handler of :func:`log_to_file`."""
    logging.getLogger("mdg").removeHandler(handler)
    handler.close()
