"""How processes find each other, what they tell each other beside tensors, and what is said when one is lost."""

from __future__ import annotations

import json
import os
import queue
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from mdg.errors import MachineError, UserError
from mdg.utils.launched import LISTENER, restart_count
from mdg.utils.network import name_interface

SECONDS_TO_FINISH = 0.2
SECONDS_PER_TRY = 2.0
SECONDS_FOR_A_REASON = 3.0
SECONDS_FOR_AN_ANSWER = 10.0
# In errors of collective operations that are plain RuntimeErrors, in small letters. Most of gloo's name one of its
# files; these of its connections, and those of libuv, do not.
LOST_CONTACT = ("gloo", "nccl", "caused pair closure", "connection closed", "connection reset", "closed the connection")
T = TypeVar("T")
_meetings = 0


class Control:
    """Small messages between processes that no GPU waits for: votes, calls to stop, the reason of a failure.

    Without arguments it is that of one process alone.

    Args:
        store: Keys and values that all processes see.
        group: A gloo group of all processes, None where that is the main one.
    """

    def __init__(self, store: dist.Store | None = None, group: dist.ProcessGroup | None = None):
        self.store, self.group = store, group
        self._vote: tuple[dist.Work, torch.Tensor] | None = None

    def vote(self, flag: bool) -> bool:
        """The outcome of the previous vote; this one's is on its way."""
        raised = self._outcome()
        ballot = torch.tensor(int(flag))
        self._vote = dist.all_reduce(ballot, group=self.group, async_op=True), ballot
        return raised

    def call_stop(self) -> None:
        """Lets the others see that this process was asked to stop."""
        self.ask(SECONDS_FOR_AN_ANSWER, lambda store: store.set("stop", ""))

    def stop_called(self) -> bool:
        """Whether any process has called for a stop."""
        return bool(self.ask(SECONDS_FOR_AN_ANSWER, lambda store: store.check(["stop"])))

    def ask(self, seconds: float, call: Callable[[dist.Store], T]) -> T | None:
        """What the store says within ``seconds``; None where there is none, or where it has gone: with the process or
        the launcher that kept it, or with the network."""
        if self.store is None:
            return None
        store = self.store
        try:
            return within(seconds, lambda: call(store))
        except NoAnswer:
            self.store = None  # nor will it answer the next time
        except dist.DistError:
            pass
        return None

    def finish(self) -> None:
        """Waits until every process has come to the end of its work."""
        if self.store is not None:
            self._outcome()
            dist.barrier(group=self.group)

    def _outcome(self) -> bool:
        if self._vote is None:
            return False
        work, ballot = self._vote
        self._vote = None
        work.wait()
        return bool(ballot.item())


class NoAnswer(Exception):
    """The store of keys and values does not answer."""


def within(seconds: float, call: Callable[[], T]) -> T:
    """What a call to the store gives; raises NoAnswer after ``seconds``.

    The store's client waits for its answers without a limit, even for that to the end of a wait with one (PyTorch
    2.12). Where the network is lost without a word the process would stay until TCP gives up, a quarter of an hour.
    """
    answers: queue.SimpleQueue[tuple[T | None, Exception | None]] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put((call(), None))
        except Exception as error:
            answers.put((None, error))

    threading.Thread(target=ask, daemon=True).start()
    try:
        value, error = answers.get(timeout=seconds)
    except queue.Empty:
        raise NoAnswer from None
    if error is not None:
        raise error
    return value  # type: ignore[return-value]


def join_group(rank: int, size: int, device: torch.device, timeout: float) -> Control:
    """Waits for all processes and makes the process group.

    Args:
        rank, size: This process and their number.
        device: Its device; "cuda" means NCCL, and a second group of gloo beside it.
        timeout: Seconds, for the start and for every collective operation.

    Raises:
        MachineError: A process did not start, or was lost while starting.
    """
    if size > int(os.environ.get("LOCAL_WORLD_SIZE", size)):
        name_interface(os.environ.get("MASTER_ADDR", "127.0.0.1"))
    store, limit = meet(rank, size, timeout), timedelta(seconds=timeout)
    backend = "nccl" if device.type == "cuda" else "gloo"
    try:
        dist.init_process_group(
            backend, store=dist.PrefixStore("group", store), rank=rank, world_size=size, timeout=limit
        )
        return Control(store, dist.new_group(backend="gloo", timeout=limit) if backend == "nccl" else None)
    except RuntimeError as error:
        raise MachineError(f"lost contact with another process while starting ({_first_line(error)})") from error


def meet(rank: int, size: int, timeout: float) -> dist.Store:
    """A store that all processes have reached.

    Raises:
        MachineError: Those that did not come within ``timeout`` seconds are named.
    """
    global _meetings
    _meetings += 1
    end = time.monotonic() + timeout
    store = dist.PrefixStore(f"mdg/{restart_count()}/{_meetings}", _connect(rank, end, timeout))
    here = [f"here/{other}" for other in range(size)]
    waiting = timedelta(seconds=SECONDS_PER_TRY)  # short waits: a store that has fallen silent is noticed soon
    try:
        within(max(timeout, SECONDS_FOR_AN_ANSWER), lambda: store.set(here[rank], ""))
        while True:
            try:
                within(SECONDS_PER_TRY + SECONDS_FOR_AN_ANSWER, lambda: store.wait(here, waiting))
                return store
            except dist.DistError:
                if time.monotonic() >= end:
                    break
        there = within(SECONDS_FOR_AN_ANSWER, lambda: [store.check([name]) for name in here])
    except (dist.DistError, NoAnswer) as error:
        raise MachineError(_not_started([0], size, timeout)) from error
    missing = [other for other in range(size) if not there[other]]
    raise MachineError(_not_started(missing, size, timeout))


def _connect(rank: int, end: float, timeout: float) -> dist.TCPStore:
    host, port = os.environ.get("MASTER_ADDR", "127.0.0.1"), int(os.environ.get("MASTER_PORT", 29500))
    # torchrun keeps the store itself; otherwise the first process does, on a socket that our launcher may have opened.
    keeper = rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    listener = os.environ.pop(LISTENER, None) if keeper else None
    while True:
        try:
            return dist.TCPStore(
                host,
                port,
                is_master=keeper,
                timeout=timedelta(seconds=SECONDS_PER_TRY),
                wait_for_workers=False,
                multi_tenant=keeper,
                master_listen_fd=int(listener) if listener else None,
                use_libuv=os.name == "posix",
            )
        except dist.DistError as error:
            if keeper:
                raise MachineError(
                    f"process 0 cannot listen on {host}:{port} ({_first_line(error)}); choose another MASTER_PORT"
                ) from error
            if time.monotonic() >= end:
                raise MachineError(
                    f"process {rank} did not reach process 0 at {host}:{port} within {timeout:g} s; check that it "
                    "runs, MASTER_ADDR and MASTER_PORT, and the firewall between the machines"
                ) from error


def _not_started(missing: list[int], size: int, timeout: float) -> str:
    who = f"{'process' if len(missing) == 1 else 'processes'} {', '.join(map(str, missing))}"
    return (
        f"{who} of {size} (counted from 0) did not start within {timeout:g} s; look for its own message, on its own "
        "machine, and start all processes anew"
    )


def told_reason(error: Exception, control: Control, rank: int) -> Exception:
    """The error to end with: one's own, told to the others, or the reason why contact was lost with another process.

    The others only see that contact was lost. What they say should be what happened.
    """
    if not _is_lost_contact(error):
        code = error.exit_code if isinstance(error, UserError) else 1
        text = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {_first_line(error)}"
        control.ask(SECONDS_FOR_A_REASON, lambda store: _tell(store, {"rank": rank, "code": code, "text": text}))
        control.call_stop()  # who is busy with a share of its own, as in a validation, need not finish it
        return error
    reason = control.ask(2 * SECONDS_FOR_A_REASON, _listen)
    if reason is not None:
        told = UserError(f"process {reason['rank']}: {reason['text']}")
        told.exit_code = reason["code"]
        return told
    return MachineError(
        f"lost contact with another process ({_first_line(error)}); it was killed, or its machine or the network "
        "failed. The run continues from its last saved step with --resume"
    )


def _tell(store: dist.Store, reason: dict[str, Any]) -> None:
    if not store.check(["reason"]):
        store.set("reason", json.dumps(reason))


def _listen(store: dist.Store) -> dict[str, Any]:
    store.wait(["reason"], timedelta(seconds=SECONDS_FOR_A_REASON))
    return json.loads(store.get("reason"))


def _is_lost_contact(error: Exception) -> bool:
    text = str(error).lower()
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and any(phrase in text for phrase in LOST_CONTACT)
    )


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]


def leave_group() -> None:
    """``destroy_process_group()`` after a moment in which the group's own thread can finish.

    The destructor of a gloo group waits for the group's thread while it holds the lock of the interpreter. That thread
    may still need the lock to free the tensors of the last collective operations (seen with PyTorch 2.12), and both
    would wait for ever: a run that is over would never end. Asleep, this thread holds no lock. Keeping the group alive
    instead is no way out: its threads then end with the process, sometimes with an abort.
    """
    time.sleep(SECONDS_TO_FINISH)
    dist.destroy_process_group()
