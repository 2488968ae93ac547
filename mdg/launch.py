"""Starts a tool in several processes on this machine and ends as they end.

    python -m mdg.launch --nproc-per-node 4 tools/train.py configs/demo.yaml

The arguments are those of ``torchrun`` that most launches need, and the tools run under torchrun as well. Other than
torchrun this launcher hands every signal that asks for a stop to the processes and waits until they have saved, ends
without a traceback, names a process that was killed, and does not restart what would only fail again.

Exit codes, as of a tool that runs alone:
    0   all processes are done.
    2   a mistake of the user. It is never restarted, nor is 75.
    3   the machine: a process was killed or did not stop in time, contact was lost, no memory, a full disk.
    75  stopped by a signal behind a saved step; --resume continues.
    1   an error that nobody foresaw.
    128 + number of a signal that ended the processes before there was anything to save.
The process that failed first decides.

Several machines: one launcher on each with ``--nnodes``, ``--node-rank``, ``--master-addr`` and ``--master-port``.
A restart (``--max-restarts``) restarts the processes of one machine; those of the others lose contact and are restarted
by their launchers.
"""

from __future__ import annotations

import argparse
import math
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from mdg.errors import MachineError, UserError
from mdg.utils.cli import EXIT_STOPPED
from mdg.utils.launched import LAUNCH_ID, LAUNCHER, LISTENER, RESTARTS, heeded

SECONDS_BETWEEN_LOOKS = 0.05
SECONDS_BETWEEN_SIGNALS = 5.0
SECONDS_AFTER_FAILURE = 30.0
FINAL = (UserError.exit_code, EXIT_STOPPED)


class Rank(NamedTuple):
    """One process of the launch and its number among those of all machines."""

    number: int
    process: subprocess.Popen

    @property
    def code(self) -> int | None:
        """Its exit code, minus the number of a signal that killed it, None while it runs."""
        return self.process.poll()


class Launch:
    """All attempts of one launch.

    Args:
        args: The command line, see :func:`parse`.
    """

    def __init__(self, args: argparse.Namespace):
        self.args, self.id = args, uuid.uuid4().hex
        self.signals: list[int] = []  # those that have arrived
        self.program = Path(args.tool).stem

    def run(self) -> int:
        """Starts the processes, anew after failures as often as allowed; returns the exit code."""
        for number in heeded():
            signal.signal(number, lambda number, frame: self.signals.append(number))
        for attempt in range(self.args.max_restarts + 1):
            code = self._watch(self._start(attempt))
            if code == 0 or code in FINAL or self.signals or attempt == self.args.max_restarts:
                break
            self._say(f"starting all processes anew, restart {attempt + 1} of {self.args.max_restarts}")
        return code

    def _start(self, attempt: int) -> list[Rank]:
        args = self.args
        listener = _listen() if args.nnodes == 1 else None
        common = {name: value for name, value in os.environ.items() if not name.startswith("TORCHELASTIC_")} | {
            "WORLD_SIZE": str(args.nnodes * args.nproc_per_node),
            "LOCAL_WORLD_SIZE": str(args.nproc_per_node),
            "MASTER_ADDR": "127.0.0.1" if listener else args.master_addr,
            "MASTER_PORT": str(listener.getsockname()[1] if listener else args.master_port),
            LAUNCH_ID: self.id,
            LAUNCHER: str(os.getpid()),
            RESTARTS: str(attempt),
        }
        posix = os.name == "posix"
        ranks: list[Rank] = []
        try:
            for local in range(args.nproc_per_node):
                number = args.node_rank * args.nproc_per_node + local
                environment = common | {"RANK": str(number), "LOCAL_RANK": str(local)}
                passed: tuple[int, ...] = ()
                if posix and listener and number == 0:  # where the processes meet; nobody can take the port from them
                    passed = (listener.fileno(),)
                    environment[LISTENER] = str(listener.fileno())
                command = [sys.executable, "-u", args.tool, *args.arguments]
                # Ctrl-C in the terminal reaches this process alone, which hands it on.
                process = subprocess.Popen(command, env=environment, start_new_session=posix, pass_fds=passed)
                ranks.append(Rank(number, process))
        except OSError as error:
            _send(ranks, signal.SIGTERM)
            raise MachineError(f"cannot start process {len(ranks)} ({error.strerror})") from error
        finally:
            if listener:
                listener.close()
        return ranks

    def _watch(self, ranks: list[Rank]) -> int:
        """Waits for all processes, hands signals on, ends the others where one fails; returns the exit code."""
        cause, handed_on, deadline, again = None, 0, math.inf, math.inf
        while running := [rank for rank in ranks if rank.code is None]:
            now = time.monotonic()
            while handed_on < len(self.signals):
                _send(running, self.signals[handed_on])
                handed_on, deadline = handed_on + 1, now + self.args.grace
            if cause is None and (cause := self._cause(ranks)) is not None:
                _send(running, signal.SIGTERM)
                again, deadline = now + SECONDS_BETWEEN_SIGNALS, now + SECONDS_AFTER_FAILURE
            if now >= again:  # the main process alone may be saving
                _send([rank for rank in running if rank.number > 0], signal.SIGTERM)
                again = math.inf
            if deadline == math.inf and any(rank.code == EXIT_STOPPED for rank in ranks):
                deadline = now + self.args.grace
            if now >= deadline:
                if cause is None:
                    cause = running[0]
                    self._say(f"error: process {cause.number} did not stop within {self.args.grace:g} s and is killed")
                _send(running, getattr(signal, "SIGKILL", signal.SIGTERM))
                deadline = math.inf
            time.sleep(SECONDS_BETWEEN_LOOKS)
        return self._code(ranks, cause or self._cause(ranks))

    def _cause(self, ranks: list[Rank]) -> Rank | None:
        """The failed process that made the others fail."""
        # Looked at once more where one has failed: what caused it ended before it. Who lost contact is no cause.
        failed = self._failed(ranks) and self._failed(ranks)
        if not failed:
            return None
        code, cause = min(failed, key=lambda pair: (pair[0] > 0, pair[0] == MachineError.exit_code))
        if code < 0:
            name = signal.Signals(-code).name
            memory = "; the system does so when memory is short" if name == "SIGKILL" else ""
            self._say(
                f"error: process {cause.number} (pid {cause.process.pid} on {socket.gethostname()}) was killed by "
                f"{name}{memory}"
            )
        return cause

    def _failed(self, ranks: list[Rank]) -> list[tuple[int, Rank]]:
        """Processes that ended other than as they were asked to, behind their exit codes."""
        ended = [(code, rank) for rank in ranks if (code := rank.code) is not None]
        return [(code, rank) for code, rank in ended if code not in (0, EXIT_STOPPED) and -code not in self.signals]

    def _code(self, ranks: list[Rank], cause: Rank | None) -> int:
        if cause is not None:
            code = cause.process.wait()
            return code if code > 0 else MachineError.exit_code
        codes = [rank.process.wait() for rank in ranks]
        return EXIT_STOPPED if EXIT_STOPPED in codes else max(code if code >= 0 else 128 - code for code in codes)

    def _say(self, message: str) -> None:
        print(f"{self.program}: {message}", file=sys.stderr, flush=True)


def _send(ranks: Sequence[Rank], number: int) -> None:
    for rank in ranks:
        if os.name == "posix" or number != signal.SIGINT:  # on Windows Ctrl-C has reached them already
            rank.process.send_signal(number)


def _listen() -> socket.socket:
    """A socket on a port of its own, for the processes of this machine alone."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(1024)
    return listener


def _at_least(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if int(text) < least:
            raise ValueError
        return int(text)

    number.__name__ = f"number, {least} or more"
    return number


def parse() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="launch", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nproc-per-node", type=_at_least(1), default=1, metavar="N", help="processes on this machine")
    parser.add_argument("--nnodes", type=_at_least(1), default=1, metavar="N", help="machines; default 1")
    parser.add_argument("--standalone", action="store_true", help="one machine, which is the default")
    parser.add_argument("--node-rank", type=_at_least(0), default=0, metavar="I", help="number of this machine, from 0")
    parser.add_argument("--master-addr", default="127.0.0.1", metavar="HOST", help="machine 0, where there are several")
    parser.add_argument("--master-port", type=_at_least(1), default=29500, metavar="PORT", help="a free port of it")
    parser.add_argument("--max-restarts", type=_at_least(0), default=0, metavar="N", help="after failures; default 0")
    parser.add_argument(
        "--grace",
        type=float,
        default=600.0,
        metavar="SECONDS",
        help="time to finish a step and to save after a signal, before the processes are killed; default 600",
    )
    parser.add_argument("tool", help="a Python file, such as tools/train.py")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="its arguments")
    return parser


def main() -> None:
    """Launches what the command line says and exits with its code."""
    launch = Launch(parse().parse_args())
    try:
        code = launch.run()
    except MachineError as error:
        launch._say(f"error: {error}")
        code = error.exit_code
    sys.exit(code)


if __name__ == "__main__":
    main()
