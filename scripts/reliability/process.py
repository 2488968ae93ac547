"""Runs the tools in forks of this process, which has imported everything already: a tenth of a second each, not five.

A fork is what the command ``python tools/NAME.py ARGUMENTS`` would be after its imports. Harm done to it, by a signal,
by a limit or by itself, ends with it.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import io
import os
import resource
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
PRELOADED = (
    "mdg.engine", "mdg.engine.predict", "mdg.engine.compare.tables", "mdg.engine.compare.tables", "mdg.data.check",
    "mdg.data.prepare", "mdg.benchmark.throughput", "mdg.benchmark.run", "mdg.benchmark.workload",
    "mdg.benchmark.page", "mdg.utils.logging", "mdg.utils.charts", "torch.utils.tensorboard", "reliability.tiny",
)  # fmt: skip
SECONDS = 60.0


@dataclass(frozen=True)
class Outcome:
    """How a program ended: ``code`` as a shell sees it (128 + signal where a signal ended it), and what it wrote."""

    code: int
    stdout: str
    stderr: str
    seconds: float
    timed_out: bool = False

    @property
    def killed(self) -> bool:
        """Whether a SIGKILL ended it."""
        return self.code == 128 + signal.SIGKILL

    @property
    def fault(self) -> str | None:
        """What no user should ever see, or None: silence, a traceback, an unforeseen error, a crash, no end."""
        if self.timed_out:
            return f"no end within {self.seconds:.0f} s"
        if "Traceback (most recent call last)" in self.stderr + self.stdout:
            return f"traceback: {_last_line(self.stderr) or _last_line(self.stdout)}"
        if "unforeseen" in self.stderr:
            return _last_line(self.stderr)
        if self.code > 128 and self.code not in (128 + signal.SIGINT, 128 + signal.SIGKILL, 128 + signal.SIGPIPE):
            return f"ended by signal {self.code - 128}"
        if self.code and not self.killed and self.stderr.count(": error: ") != 1 and self.code != 75:
            return f"exit code {self.code} with {self.stderr.count(': error: ')} messages: {_last_line(self.stderr)}"
        return None


class Child:
    """A running fork; ``output`` holds its files stdout and stderr."""

    def __init__(self, pid: int, output: Path):
        self.pid, self.output, self.began = pid, output, time.monotonic()

    def wait(self, seconds: float = SECONDS) -> Outcome:
        """Waits for its end, which it is brought to after ``seconds``."""
        timed_out = not self.ends_within(seconds)
        if timed_out:
            self.kill()
            self.ends_within(SECONDS)
        took = time.monotonic() - self.began
        out, err = ((self.output / name).read_text(errors="replace") for name in ("stdout", "stderr"))
        return Outcome(self._code, out, err, took, timed_out)

    def ends_within(self, seconds: float) -> bool:
        """Waits at most so long; whether it has ended."""
        end = time.monotonic() + seconds
        while not hasattr(self, "_code"):
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                code = os.waitstatus_to_exitcode(status)
                self._code = code if code >= 0 else 128 - code
                self._end_group()  # loader processes it left behind
            elif time.monotonic() > end:
                return False
            else:
                time.sleep(0.002)
        return True

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Sends a signal to it alone, as a system short of memory does."""
        if not hasattr(self, "_code"):
            os.kill(self.pid, number)

    def _end_group(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)


@cache
def _tool(file: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"tool_{Path(file).stem}", ROOT / file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def preload() -> None:
    """Imports what the tools import; nothing is computed, since threads that ran here would be missing in forks."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for name in PRELOADED:
        importlib.import_module(name)
    import cv2
    import torch

    from mdg.config import load_config

    load_config(ROOT / "configs" / "demo.yaml")  # registries import their components on first use
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()


def start(
    tool: str,
    arguments: Sequence[object],
    output: Path,
    *,
    before: Callable[[], None] | None = None,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    memory: int | None = None,
) -> Child:
    """Starts ``python TOOL ARGUMENTS`` as a fork.

    Args:
        tool: Such as "tools/train.py".
        arguments: Of the command line.
        output: Folder for the files stdout and stderr; made.
        before: Called in the fork first, to do it harm.
        environment: Variables it sees besides those of this process.
        folder: Where it works.
        memory: Bytes of address space that it may take beyond what it starts with.
    """
    output.mkdir(parents=True, exist_ok=True)
    arguments = [str(argument) for argument in arguments]
    module = _tool(tool)
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return Child(pid, output)
    code = 1
    try:
        os.setsid()
        _redirect(output)
        os.environ.update(environment or {})
        os.chdir(folder or ROOT)
        if memory is not None:
            _limit_memory(memory)
        sys.argv = [tool, *arguments]
        if before is not None:
            before()
        code = _exit_code(module, arguments)
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except OSError:
                code = code or 120
        os._exit(code)
    raise AssertionError("unreachable")


def run(tool: str, arguments: Sequence[object], output: Path, *, seconds: float = SECONDS, **options) -> Outcome:
    """Starts a tool as :func:`start` does and waits for its end."""
    return start(tool, arguments, output, **options).wait(seconds)


def _exit_code(module: ModuleType, arguments: Sequence[str]) -> int:
    try:
        module.main(arguments)
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
            return 1
        return end.code or 0
    finally:
        threading._shutdown()  # what the interpreter does at its end: threads that are no daemons finish
    return 0


def _redirect(output: Path) -> None:
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        file = os.open(output / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(file, descriptor)
        os.close(file)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    sys.stdout, sys.stderr = (io.TextIOWrapper(io.FileIO(number, "w", closefd=False), "utf-8") for number in (1, 2))


def _limit_memory(extra: int) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    size = pages * resource.getpagesize() + extra
    resource.setrlimit(resource.RLIMIT_AS, (size, size))


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1][:300] if lines else ""
