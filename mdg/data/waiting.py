"""Waiting for batches of loader processes: not for ever, not past a signal, and not where there is no room for them."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import active_children
from multiprocessing.process import BaseProcess
from typing import Any

import torch

from mdg.data.batches import Batch
from mdg.errors import MachineError

SHARED_MEMORY = "/dev/shm"
SECONDS_BETWEEN_LOOKS = 0.5
SECONDS_AFTER_STOP = 5.0
SECONDS_TO_DIE = 1.0
ADVICE = (
    "set --opts pipeline.workers=0 to read in the main process, fewer pipeline.workers or a smaller pipeline.prefetch, "
    "or give a container more shared memory (docker run --shm-size=8g, or --ipc=host)"
)


class NoBatch(MachineError):
    """No batch comes from the loader processes: one was lost, they hang, or a stop was asked for while they did.

    Raised where a batch is asked for and nowhere else, so the state of a training is that of a whole step.
    """


@contextmanager
def deaths_found_by_waiting() -> Iterator[list[BaseProcess]]:
    """Starts loader processes in the block; they are in the list afterwards, and die without a signal handler.

    torch would raise their death out of a handler of SIGCHLD, wherever the main process is then, even while it saves or
    exits. Whoever waits for a batch finds out as well.
    """
    found: list[BaseProcess] = []
    before, handler = set(active_children()), signal.getsignal(signal.SIGCHLD) if hasattr(signal, "SIGCHLD") else None
    try:
        yield found
    finally:
        found += [process for process in active_children() if process not in before]
        if handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, handler)


def wait_for(
    take: Callable[[], Any],
    processes: Sequence[BaseProcess] = (),
    timeout: float | None = None,
    stop: Callable[[], bool] | None = None,
) -> Any:
    """What ``take`` returns, called anew while it raises torch's "DataLoader timed out".

    Args:
        take: Asks a loader whose own timeout is ``SECONDS_BETWEEN_LOOKS``.
        processes: Those of the loader.
        timeout: Seconds to wait at most; None: for ever.
        stop: Whether a stop was asked for. A batch that is about to come is still waited for, a few seconds.

    Raises:
        NoBatch: Nothing came in time, or a loader process has died.
    """
    started, stopped = time.monotonic(), None
    while True:
        try:
            return take()
        except (RuntimeError, ConnectionError, EOFError, FileNotFoundError) as error:
            if "timed out after" not in str(error):
                raise _lost(error, processes) or error from None
        now = time.monotonic()
        if timeout is not None and now - started >= timeout:
            raise NoBatch(
                f"no batch came from the loader processes within {timeout:g} s (pipeline.timeout): the storage of the "
                f"data hangs or is slow (raise pipeline.timeout), or a loader process hangs; {ADVICE}"
            )
        if stop is not None and stop():
            stopped = stopped or now
            if now - stopped >= SECONDS_AFTER_STOP:
                raise NoBatch(
                    f"asked to stop while no batch came from the loader processes for {now - started:.0f} s; if they "
                    f"hang: {ADVICE}"
                )


def _lost(error: Exception, processes: Sequence[BaseProcess]) -> MachineError | None:
    """A message for the ways in which torch tells that a loader process has died."""
    text = str(error)
    if text.startswith("Caught "):  # an error within a loader process, which lives
        return None
    if text.startswith("Too many open files"):
        return NoBatch("loader processes need more open files than allowed: raise the limit with ulimit -n 65536")
    if isinstance(error, RuntimeError) and not text.startswith("DataLoader worker"):
        return None
    for process in processes:
        process.join(SECONDS_TO_DIE / len(processes))  # a connection breaks a moment before its process is gone
    dead = [f"process {process.pid}: {_cause(process.exitcode)}" for process in processes if process.exitcode]
    return NoBatch(f"a loader process was lost ({'; '.join(dead) or text}): {ADVICE}")


def _cause(code: int) -> str:
    if code > 0:
        return f"exit code {code}"
    name = signal.Signals(-code).name
    hints = {"SIGKILL": "; the system does so when memory is short", "SIGBUS": f"; {SHARED_MEMORY} is full"}
    return f"killed by {name}{hints.get(name, '')}"


def share(made: Batch | list[Batch]) -> Batch | list[Batch] | MachineError:
    """Moves what a loader process made to shared memory, where the main process finds it; an error where it is full.

    torch would do it later and in another thread, where a lack of room is printed, the batch never comes and the main
    process waits for ever.
    """
    try:
        for tensor in _tensors_of(made):
            tensor.share_memory_()
    except RuntimeError as error:
        return MachineError(
            f"no room in shared memory for a batch of {_mebibytes(_bytes_of(made))} ({_first_line(error)}): {ADVICE}"
        )
    return made


def require_room(made: Batch | list[Batch], loaders: int, prefetch: int) -> None:
    """Refuses a loader whose processes would, sooner or later, hold more than all shared memory of the machine.

    Args:
        made: What one of them gave.
        loaders, prefetch: Loader processes, and how many places each works ahead.
    """
    if not os.path.isdir(SHARED_MEMORY):
        return
    room, need = shutil.disk_usage(SHARED_MEMORY).total, _bytes_of(made) * (loaders * prefetch + 1)
    if need > room:
        raise MachineError(
            f"{loaders} loader processes that hold {prefetch} batches each need {_mebibytes(need)} of shared memory; "
            f"{SHARED_MEMORY} has {_mebibytes(room)}: {ADVICE}"
        )


def _tensors_of(made: Batch | list[Batch]) -> list[torch.Tensor]:
    return [tensor for batch in ([made] if isinstance(made, Batch) else made) for tensor in batch[:3]]


def _bytes_of(made: Batch | list[Batch]) -> int:
    return sum(tensor.nbytes for tensor in _tensors_of(made))


def _mebibytes(count: int) -> str:
    return f"{count / 2**20:.1f} MiB"


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
