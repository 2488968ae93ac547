"""Runs on two processes that lose one, lose their launcher, or lose the network between them."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from reliability import process
from reliability.meetings import python_path
from reliability.process import ROOT, Child, Outcome
from reliability.runs import LOST, SURVIVED, TRAIN, Case, Lab, Skip, Verdict, broken_state, compare, has_state

TIMEOUT = 8  # seconds that processes wait for each other here
OPTS = ("--opts", f"process_timeout={TIMEOUT}")
PATIENCE = 60.0  # seconds after which a process that lost its peer counts as stuck; the launcher's own part included
SHARES = (0.05, 0.2, 0.35, 0.5, 0.65, 0.8, 0.95)  # of the time of a whole run, at which a process is killed
CLONE_NEWNET = 0x40000000


def lost_processes(lab: Lab) -> Iterator[Case]:
    """One of two processes is killed, or never starts; the other says so and ends, and the run can be continued."""
    reference, seconds = _reference(lab)
    for rank in (0, 1):
        yield Case("one of two processes lost", f"never-{rank}", partial(_lose, lab, reference, rank, None))
        for share in SHARES:
            case = partial(_lose, lab, reference, rank, share * seconds)
            yield Case("one of two processes lost", f"{share:g}-{rank}", case)


def lost_launchers(lab: Lab) -> Iterator[Case]:
    """The same below the launcher of tools/train_ddp.sh; it may be killed itself, or be told to stop."""
    reference, _ = _reference(lab)
    for victim in ("rank-0", "rank-1", "launcher", "stop"):
        yield Case("process or launcher lost under train_ddp.sh", victim, partial(_launched, lab, reference, victim))


def lost_network(lab: Lab) -> Iterator[Case]:
    """Two hosts, which are network namespaces of this machine, with a cable that is pulled out."""
    reference, seconds = _reference(lab)
    with hosts():
        pass
    for share in (None, 0.1, 0.4, 0.7):
        name = "cable-stays" if share is None else f"cable-pulled-at-{share:g}"
        case = partial(_pull_cable, lab, reference, None if share is None else share * seconds)
        yield Case("two hosts lose the network between them", name, case)


def _reference(lab: Lab) -> tuple[Path, float]:
    """A run on two processes that nothing happens to, and the seconds that another one took."""
    run, note = lab.work / "reference-2", lab.work / "reference-2-seconds"
    if not run.exists():
        for place in (lab.work / "probe-2", run):  # the first is slower
            began = time.monotonic()
            outcomes = _finish_pair(lab, place, lab.work / "reference-2-output")
            assert all(outcome.code == 0 for outcome in outcomes), outcomes
            note.write_text(str(time.monotonic() - began))
    return run, float(note.read_text())


def _start_pair(
    lab: Lab,
    run: Path,
    output: Path,
    ranks: Sequence[int] = (0, 1),
    address: str = "127.0.0.1",
    before: Callable[[int], Callable[[], None]] | None = None,
) -> list[Child]:
    arguments = ["--resume", run, *OPTS] if has_state(run) else [lab.config, "--run-dir", run, *OPTS]
    group = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": address, "MASTER_PORT": str(_free_port())}
    return [
        process.start(
            TRAIN,
            arguments,
            output / f"rank-{rank}",
            environment={**group, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            before=before(rank) if before else None,
        )
        for rank in ranks
    ]


def _finish_pair(lab: Lab, run: Path, output: Path) -> list[Outcome]:
    return [child.wait(PATIENCE) for child in _start_pair(lab, run, output)]


def _lose(lab: Lab, reference: Path, victim: int, seconds: float | None, folder: Path) -> Verdict:
    run = folder / "run"
    if seconds is None:
        outcome = _start_pair(lab, run, folder / "output", ranks=[1 - victim])[0].wait(PATIENCE)
    else:
        children = _start_pair(lab, run, folder / "output")
        if children[victim].ends_within(seconds):
            [child.wait(PATIENCE) for child in children]
            return Verdict(SURVIVED, "the run was faster", 0)
        children[victim].kill()
        children[victim].wait()
        outcome = children[1 - victim].wait(PATIENCE)
    if outcome.fault:
        return Verdict(LOST, f"the other process: {outcome.fault}")
    if outcome.code == 0:  # it had nothing left to do with the other
        return compare(reference, run, ("last.pt", "best.pt", "metrics"))
    return _continue(lab, reference, run, folder)


def _continue(lab: Lab, reference: Path, run: Path, folder: Path) -> Verdict:
    if problem := broken_state(run):
        return Verdict(LOST, problem)
    if not has_state(run):
        shutil.rmtree(run, ignore_errors=True)
    for outcome in _finish_pair(lab, run, folder / "continued"):
        if outcome.fault or outcome.code:
            return Verdict(LOST, f"cannot be continued: {outcome.fault or outcome.stderr.strip()[-300:]}")
    return compare(reference, run, ("last.pt", "best.pt", "metrics"))


def _launched(lab: Lab, reference: Path, victim: str, folder: Path) -> Verdict:
    run = folder / "run"
    environment = {**os.environ, "NPROC": "2", "PYTHON": sys.executable, "PYTHONPATH": python_path()}
    opts = [*OPTS, "train.epochs=100000"]
    command = ["bash", ROOT / "tools" / "train_ddp.sh", lab.config, "--run-dir", run, *opts]
    output = folder / "launched"
    with open(output, "w") as stream:
        launcher = subprocess.Popen(command, env=environment, stdout=stream, stderr=stream, start_new_session=True)
        try:
            return _lose_launched(launcher, victim, run, output)
        finally:
            for pid in [launcher.pid, *_ranks(run).values()]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            launcher.wait()


def _lose_launched(launcher: subprocess.Popen, victim: str, run: Path, output: Path) -> Verdict:
    if not _wait_until(lambda: has_state(run) or launcher.poll() is not None, 180) or launcher.poll() is not None:
        return Verdict(LOST, f"the run did not begin: {output.read_text()[-300:]}")
    ranks = _ranks(run)
    if victim.startswith("rank"):
        os.kill(ranks[int(victim[-1])], signal.SIGKILL)
    else:
        os.kill(launcher.pid, signal.SIGTERM if victim == "stop" else signal.SIGKILL)
    if not _wait_until(lambda: launcher.poll() is not None and not _ranks(run), PATIENCE):
        return Verdict(LOST, f"still running after {PATIENCE:.0f} s: {sorted(_ranks(run))}")
    text = output.read_text()
    if "Traceback" in text or "unforeseen" in text:
        return Verdict(LOST, f"traceback: {text.strip().splitlines()[-1][:300]}")
    wanted = {"stop": 75, "launcher": -signal.SIGKILL}.get(victim)
    if launcher.returncode == 0 or (wanted is not None and launcher.returncode != wanted):
        return Verdict(LOST, f"exit code {launcher.returncode}, expected {wanted or 'another one than 0'}")
    problem = broken_state(run)
    return Verdict(LOST, problem) if problem else Verdict(SURVIVED)


def _ranks(run: Path) -> dict[int, int]:
    """Process ids of the processes that train in ``run``, by rank."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            arguments = (entry / "cmdline").read_bytes().split(b"\0")
            if os.fsencode(run) in arguments and any(a.endswith(b"tools/train.py") for a in arguments[:3]):
                values = dict(
                    item.split(b"=", 1) for item in (entry / "environ").read_bytes().split(b"\0") if b"=" in item
                )
                if b"RANK" in values:
                    found[int(values[b"RANK"])] = int(entry.name)
        except (OSError, ValueError):  # no process, or one that has just ended
            continue
    return found


def _wait_until(true: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(0.05)
    return False


def _pull_cable(lab: Lab, reference: Path, seconds: float | None, folder: Path) -> Verdict:
    run = folder / "run"
    with hosts() as (names, address):
        children = _start_pair(
            lab, run, folder / "output", address=address, before=lambda rank: partial(_enter, names[rank])
        )
        if seconds is not None:
            if children[0].ends_within(seconds):
                [child.wait(PATIENCE) for child in children]
                return Verdict(SURVIVED, "the run was faster", 0)
            _ip("-n", names[0], "link", "set", "cable0", "down")
        outcomes = [child.wait(PATIENCE) for child in children]
    if seconds is None:
        if any(outcome.code for outcome in outcomes):
            return Verdict(LOST, f"without a fault: {[outcome.stderr[-200:] for outcome in outcomes]}")
        return compare(reference, run, ("last.pt", "best.pt", "metrics"))
    for rank, outcome in enumerate(outcomes):
        if outcome.fault:
            return Verdict(LOST, f"process {rank}: {outcome.fault}")
    if any(outcome.code == 0 for outcome in outcomes):  # nothing was left to do with the other
        return compare(reference, run, ("last.pt", "best.pt", "metrics"))
    return _continue(lab, reference, run, folder)


@contextmanager
def hosts() -> Iterator[tuple[list[str], str]]:
    """Two network namespaces joined by a cable, and the address of the first. Raises Skip where none can be made."""
    names = [f"mdg-{os.getpid()}-{rank}" for rank in (0, 1)]
    try:
        for name in names:
            _ip("netns", "add", name)
        _ip("-n", names[0], "link", "add", "cable0", "type", "veth", "peer", "name", "cable1", "netns", names[1])
        for rank, name in enumerate(names):
            _ip("-n", name, "addr", "add", f"10.77.0.{rank + 1}/24", "dev", f"cable{rank}")
            _ip("-n", name, "link", "set", f"cable{rank}", "up")
            _ip("-n", name, "link", "set", "lo", "up")
    except (OSError, subprocess.CalledProcessError) as error:
        _remove(names)
        raise Skip(f"no network namespaces here ({error}); they take root and iproute2") from None
    try:
        yield names, "10.77.0.1"
    finally:
        _remove(names)


def _remove(names: Sequence[str]) -> None:
    for name in names:
        subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def _enter(name: str) -> None:
    with open(f"/run/netns/{name}") as place:
        if ctypes.CDLL(None, use_errno=True).setns(place.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"setns {name}")
    os.environ["GLOO_SOCKET_IFNAME"] = f"cable{name[-1]}"


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("", 0))
        return listener.getsockname()[1]
