"""Launches of two processes: how they end, and what is said."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest
from commands import REPOSITORY, environment, shell

from mdg.engine.process_group import meet
from mdg.errors import MachineError
from mdg.launch import Launch, Rank, parse

RANKS = REPOSITORY / "tests" / "support" / "ranks.py"
LAUNCH = [sys.executable, "-m", "mdg.launch"]
PAIR = [*LAUNCH, "--nproc-per-node", "2"]
posix = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")


@contextlib.contextmanager
def started(*command: object, lines: int):
    """A launch whose processes have said "ready" that often, their numbers by rank and what was said until then."""
    process = subprocess.Popen(
        [str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment()
    )
    pids: dict[int, int] = {}
    said: list[str] = []
    try:
        for line in process.stdout:
            said.append(line.rstrip("\n"))
            if match := re.match(r"begin (\d) (\d+)", line):
                pids[int(match[1])] = int(match[2])
            lines -= line.startswith("ready")
            if not lines:
                break
        yield process, pids, said
    finally:
        for pid in (process.pid, *pids.values()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()


@pytest.fixture
def sleeper(tmp_path):
    """A tool without torch that sleeps, with SIGTERM handled as told."""

    def write(handler: str) -> Path:
        file = tmp_path / "sleeper.py"
        file.write_text(
            f"import os, signal, time\nsignal.signal(signal.SIGTERM, signal.{handler})\n"
            "print('begin 0', os.getpid(), flush=True)\nprint('ready', flush=True)\ntime.sleep(100)\n"
        )
        return file

    return write


# --- mistakes and losses -----------------------------------------------------------------------------------------


@pytest.mark.slow  # every launch imports PyTorch twice
def test_processes_that_differ_all_stop_and_say_in_what():
    done = shell(*PAIR, RANKS, "--differ")
    assert done.returncode == 2 and "ready" not in done.stdout
    assert done.stderr.count("code (process 0: version0; process 1: version1)") == 1
    assert "configuration (" not in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow  # three processes; what they say to each other is tested above
def test_the_message_is_that_of_the_process_that_failed():
    """Process 1 fails, process 0 loses contact: what is said is what happened, once, and not worth a restart."""
    done = shell(*PAIR, "--max-restarts", 2, RANKS, "--fail", 1)
    assert done.returncode == 2
    assert done.stderr == "ranks: error: process 1: images/3.png: broken\n"


@pytest.mark.slow  # every launch imports PyTorch twice
@posix
def test_a_killed_process_is_named():
    done = shell(*PAIR, RANKS, "--kill", 1, "--steps", 10**6)
    pid = re.search(r"begin 1 (\d+)", done.stdout)[1]
    assert done.returncode == 3 and "Traceback" not in done.stderr
    assert f"ranks: error: process 1 (pid {pid} on {socket.gethostname()}) was killed by SIGKILL" in done.stderr


class Arriving(list):
    """Signals, of which one arrives as soon as somebody has looked for it."""

    def __contains__(self, number: object) -> bool:
        known = super().__contains__(number)
        self.append(number)
        return known


def test_a_process_that_a_signal_ended_before_it_arrived_here_has_not_failed():
    """As where it is sent to every process of a job."""
    launch = Launch(parse().parse_args(["tool.py"]))
    launch.signals = Arriving()
    ended = Mock(poll=lambda: -signal.SIGTERM)
    assert launch._cause([Rank(1, ended)]) is None


@pytest.mark.slow  # every launch imports PyTorch twice
@posix
def test_a_restart_belongs_to_the_same_launch():
    done = shell(*PAIR, "--max-restarts", 2, RANKS, "--kill", 1)
    begun = re.findall(r"begin \d \d+ (\w+) (\d)", done.stdout)
    assert done.returncode == 0, done.stderr
    assert len({name for name, _ in begun}) == 1 and sorted(count for _, count in begun) == ["0", "0", "1", "1"]
    assert sorted(re.findall(r"done (\d)", done.stdout)) == ["0", "1"]
    assert "starting all processes anew, restart 1 of 2" in done.stderr


@pytest.mark.slow  # every launch imports PyTorch
def test_a_process_that_never_starts_is_named():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    machines = ["--nnodes", 2, "--node-rank", 0, "--master-addr", "127.0.0.1", "--master-port", port]
    done = shell(*LAUNCH, *machines, RANKS, "--timeout", 1)
    assert done.returncode == 3 and "Traceback" not in done.stderr
    assert "ranks: error: process 1 of 2 (counted from 0) did not start within 1 s" in done.stderr


def test_the_first_process_never_starts(monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(port))
    with pytest.raises(MachineError, match=f"process 1 did not reach process 0 at 127.0.0.1:{port} within 0.1 s"):
        meet(1, 2, 0.1)


# --- signals -----------------------------------------------------------------------------------------------------


@posix
@pytest.mark.parametrize("name, to", [("SIGTERM", "launcher"), pytest.param("SIGHUP", 1, marks=pytest.mark.slow)])
def test_processes_agree_and_a_signal_stops_all_behind_the_same_step(name, to):
    """A vote is known at the next call; processes with uneven shares of work do not wait for each other. A signal goes
    to the launcher, which hands it on, or to any single process, which tells the others."""
    with started(*PAIR, RANKS, "--agree", "--steps", 10**6, lines=2) as (process, pids, said):
        agreed = [line for line in said if line.startswith("agree")]
        assert agreed == ["agree [False, False, False, True, False] [1.0, 1.0, 1.0] 7 3 False"] * 2
        assert said.count("ended 0 True") == 2
        os.kill(process.pid if to == "launcher" else pids[to], getattr(signal, name))
        rest = process.stdout.read()
        assert process.wait(timeout=60) == 75
    saved = dict(re.findall(r"saved (\d) (\d+)", rest))
    assert set(saved) == {"0", "1"} and saved["0"] == saved["1"]
    assert f" {name}" in rest and "error" not in rest and "Traceback" not in rest


@pytest.mark.slow  # every launch imports PyTorch twice
@posix
def test_processes_save_and_end_where_the_launcher_is_killed():
    with started(*PAIR, RANKS, "--steps", 10**6, lines=2) as (process, *_):
        process.kill()
        rest = process.stdout.read()  # to the end: no process holds the pipe any longer
    assert sorted(re.findall(r"saved (\d)", rest)) == ["0", "1"]


@posix
def test_a_signal_before_anything_could_be_saved(sleeper):
    """Its number, as a shell would say, and no message: nothing failed."""
    with started(*LAUNCH, sleeper("SIG_DFL"), lines=1) as (process, *_):
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == "" and process.wait(timeout=60) == 128 + signal.SIGTERM


@posix
def test_a_process_that_does_not_stop_is_killed(sleeper):
    with started(*LAUNCH, "--grace", 0.1, sleeper("SIG_IGN"), lines=1) as (process, *_):
        process.send_signal(signal.SIGTERM)
        rest = process.stdout.read()
        assert "process 0 did not stop within 0.1 s and is killed" in rest and process.wait(timeout=60) == 3
