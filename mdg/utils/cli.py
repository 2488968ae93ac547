"""Common ground of the command-line tools: user errors become one message, and arguments are spelt alike."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence

from mdg.errors import UserError

EXIT_USER_ERROR = 2


def run_tool(
    main: Callable[[argparse.Namespace], object],
    parser: argparse.ArgumentParser,
    arguments: Sequence[str] | None = None,
) -> None:
    """Runs a tool and exits: 0 when done, 2 with a message (and no traceback) for a mistake of the user."""
    args = parser.parse_args(arguments)
    try:
        main(args)
    except UserError as error:
        _report(parser.prog, str(error))
        sys.exit(EXIT_USER_ERROR)
    except (PermissionError, NotADirectoryError, IsADirectoryError) as error:
        _report(parser.prog, f"{error.filename}: {error.strerror}; check the path and who may write there")
        sys.exit(EXIT_USER_ERROR)
    except KeyboardInterrupt:
        _report(parser.prog, "interrupted")
        sys.exit(130)


def _report(program: str, message: str) -> None:
    rank = int(os.environ.get("RANK", 0))
    if rank:
        # A mistake of the user stops all processes alike; the launcher ends this one when the first has spoken.
        time.sleep(10)
        program = f"{program} [process {rank}]"
    print(f"{program}: error: {message}", file=sys.stderr, flush=True)


def add_opts(parser: argparse.ArgumentParser) -> None:
    """Adds ``--opts key=value ...``."""
    parser.add_argument(
        "--opts",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="overrides of the configuration, such as train.epochs=2 data.root=/path",
    )
