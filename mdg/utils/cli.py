"""Common ground of the command-line tools: every error becomes one message and an exit code, and arguments are spelt
alike. docs/reliability.md lists the codes."""

from __future__ import annotations

import argparse
import atexit
import errno
import gc
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from mdg.errors import MachineError, UserError
from mdg.utils.crash import write_report
from mdg.utils.files import file_error
from mdg.utils.limits import LIMITS, raise_limit
from mdg.utils.logging import tolerate_encoding

EXIT_UNFORESEEN = 1
EXIT_STOPPED = 75  # sysexits.h: a temporary failure, try again; here: stopped by a signal, resumable
EXIT_INTERRUPTED = 130
EXIT_CLOSED = 141  # what a shell gives a program whose reader has gone
SPINS = "2000"  # some ten microseconds: longer than most waits of a machine that is not busy
OUT_OF_MEMORY = ("can't allocate memory", "out of memory", "not enough memory", "unable to mmap")


def calm_threads() -> None:
    """Lets threads of OpenMP that wait for one another go to sleep soon; unless somebody chose otherwise.

    By default GNU's library lets them spin for a millisecond and more. Where another program has one of their cores,
    they burn the time that it could do its part in, and a pass takes 4 to 7 times as long (docs/benchmarks.md). The
    library reads this when PyTorch loads it.
    """
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = SPINS


@contextmanager
def imports() -> Iterator[None]:
    """Around the imports of a tool that needs PyTorch: half a second less until it starts, as much until it ends.

    Hardly anything that a module makes is garbage, but Python looks for it again and again while there are more of
    them, and once more at exit.
    """
    collected = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collected:
            gc.enable()
        gc.freeze()
        atexit.register(gc.freeze)


def run_tool(
    main: Callable[[argparse.Namespace], int | None],
    parser: argparse.ArgumentParser,
    arguments: Sequence[str] | None = None,
) -> None:
    """Runs a tool and exits with the code that ``main`` returns (None: 0), or that of the error it ends with.

    A mistake of the user, a failing machine and an error that nobody foresaw are one message each, never a traceback.
    """
    parser.add_argument(
        "--limit",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=VALUE",
        help=f"read larger files: {', '.join(LIMITS)}",
    )
    tolerate_encoding()
    calm_threads()
    args = parser.parse_args(arguments)
    try:
        for text in args.limit:
            raise_limit(text)
        code = main(args) or 0
        sys.stdout.flush()
    except BrokenPipeError:
        # `tool | head`: the reader has gone. Python would complain once more when it closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = EXIT_CLOSED
    except KeyboardInterrupt:
        _say(parser.prog, "interrupted")
        code = EXIT_INTERRUPTED
    except Exception as error:
        code = _explain(parser.prog, error)
    if code:
        sys.exit(code)


def _explain(program: str, error: Exception) -> int:
    if isinstance(error, OSError):
        error = file_error(error)
    elif isinstance(error, RuntimeError) and "Symlink loop" in str(error):  # Path.resolve() before Python 3.13
        error = file_error(OSError(errno.ELOOP, os.strerror(errno.ELOOP)), str(error).rpartition(" from ")[2])
    elif isinstance(error, MemoryError) or any(hint in str(error).lower() for hint in OUT_OF_MEMORY):
        first = next(iter(str(error).strip().splitlines()), "") or "no more memory"
        error = MachineError(f"not enough memory ({first[:200]}); choose smaller images, batches or fewer processes")
    if isinstance(error, UserError):
        _say(program, str(error))
        return error.exit_code
    file = write_report(program, error)
    first = next(iter(str(error).strip().splitlines()), "")
    where = f"a report lies in {file}" if file else "no report could be written"
    _say(program, f"unforeseen {type(error).__name__}: {first[:300]}; this is a fault of mdg: {where}")
    return EXIT_UNFORESEEN


def _say(program: str, message: str) -> None:
    rank = int(os.environ.get("RANK", 0))
    if rank:
        # A mistake of the user stops all processes alike; the launcher ends this one when the first has spoken.
        time.sleep(10)
        program = f"{program} [process {rank}]"
    print(f"{program}: error: {message}", file=sys.stderr, flush=True)


def user_path(text: str) -> str:
    """A path of the command line. Shells leave the ``~`` of ``--out=~/masks`` alone; it is the home folder here too."""
    return os.path.expanduser(text)


def positive(text: str) -> int:
    """A whole number of the command line, from 1 to 999999999."""
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) > 0):
        raise argparse.ArgumentTypeError(f"got {text[:40]!r}, expected a whole number from 1 up")
    return int(text)


def add_pairs(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """The image pairs of a tool, and the network that sees them."""
    parser.add_argument(
        "--rgb", type=user_path, required=required, metavar="PATH", help="image or folder; 4-channel without --thermal"
    )
    parser.add_argument(
        "--thermal", type=user_path, metavar="PATH", help="thermal image or folder; scaled and aligned as in training"
    )
    add_network(parser)


def add_network(parser: argparse.ArgumentParser) -> None:
    """The network of a tool, and how images are prepared for it."""
    add_checkpoint(parser)
    parser.add_argument(
        "--thermal-scaling", metavar="YAML", help="how values become 8 bits: minmax, percentile, or '{mode: ...}'"
    )
    parser.add_argument(
        "--align", metavar="HOW", help="resize both to the size of rgb or thermal; the file of a rig (.yaml); or refuse"
    )
    parser.add_argument("--grey-rgb", metavar="WHAT", help="RGB images of one channel: repeat, or refuse")


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    """``--checkpoint`` and the configuration that goes with it."""
    parser.add_argument(
        "--checkpoint", type=user_path, metavar="FILE", help="default: best.pt of the newest run in exp/"
    )
    parser.add_argument(
        "--config", type=user_path, metavar="YAML", help="default: the configuration inside the checkpoint"
    )


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
