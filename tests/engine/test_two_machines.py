"""A training over two machines, which are two network namespaces of this one: alone, and with one of them lost."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from commands import REPOSITORY, environment

from mdg.engine.checkpoint import load_checkpoint
from mdg.utils.run_directory import RunDirectory
from tests.engine.conftest import TINY
from tests.engine.test_processes import assert_same

SECONDS = 300
TIMEOUT = 20  # seconds after which a silent machine counts as lost
ADDRESSES = ("10.77.0.1", "10.77.0.2")

pytestmark = pytest.mark.slow  # half a minute of waiting for a machine that is gone


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


class Machines:
    """Two namespaces with a cable between them. What runs in one reaches the other through that alone."""

    def __init__(self, folder: Path):
        tag = uuid.uuid4().hex[:6]
        self.names, self.ends = [f"mdg{tag}{n}" for n in "ab"], [f"v{tag}{n}" for n in "ab"]
        self.folder, self.running = folder, []
        for name in self.names:
            ip("netns", "add", name)
        ip("link", "add", self.ends[0], "type", "veth", "peer", "name", self.ends[1])
        for name, end, address in zip(self.names, self.ends, ADDRESSES, strict=True):
            ip("link", "set", end, "netns", name)
            ip("-n", name, "addr", "add", f"{address}/24", "dev", end)
            self.plug(name, end, "up")

    def plug(self, name: str, end: str, state: str) -> None:
        for link in ("lo", end):
            ip("-n", name, "link", "set", link, state)

    def train(self, *arguments: object, mishaps: str = "") -> list[subprocess.Popen]:
        """The launchers of both."""
        self.running = []
        for rank, name in enumerate(self.names):
            several = {"NPROC": "1", "NNODES": "2", "NODE_RANK": str(rank), "MASTER_ADDR": ADDRESSES[0]}
            command = ["ip", "netns", "exec", name, "bash", REPOSITORY / "tools/train_ddp.sh", *arguments]
            self.running.append(
                subprocess.Popen(
                    [str(word) for word in command],
                    stdout=(self.folder / f"{rank}.log").open("a"),
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    env=environment(**several, MISHAPS=mishaps, NOTES=str(self.folder)),
                )
            )
        return self.running

    def lose(self, rank: int) -> None:
        """No more word from a machine: its cable is out and all that runs on it is gone."""
        self.plug(self.names[rank], self.ends[rank], "down")
        self.kill(rank)

    def kill(self, rank: int) -> None:
        pids = subprocess.run(["ip", "netns", "pids", self.names[rank]], capture_output=True, text=True, check=True)
        for pid in pids.stdout.split():
            os.kill(int(pid), signal.SIGKILL)

    def close(self) -> None:
        for rank, name in enumerate(self.names):
            self.kill(rank)
            ip("netns", "del", name)


@pytest.fixture
def machines(tmp_path) -> Iterator[Machines]:
    if shutil.which("ip") is None or not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("network namespaces need root and the program ip")
    try:
        made = Machines(tmp_path)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"network namespaces cannot be made here: {error.stderr.decode().strip()}")
    yield made
    made.close()


def test_a_lost_machine_costs_no_step(machines, tmp_path):
    """What is left ends by itself and resumes with another machine to the weights of a run without a mishap."""
    config = tmp_path / "tiny.yaml"
    changes = {"custom_imports": ["reliability.tiny", "mishaps"], "train": {"epochs": 4, "batch_size": 1}}
    changes |= {"checkpoint": {"every_steps": 2}, "process_timeout": TIMEOUT}
    config.write_text(yaml.safe_dump(TINY | changes))

    def log() -> str:
        return "\n".join((tmp_path / f"{rank}.log").read_text() for rank in (0, 1))

    straight, broken = RunDirectory(tmp_path / "straight"), RunDirectory(tmp_path / "broken")
    assert [launcher.wait(SECONDS) for launcher in machines.train(config, "--run-dir", straight.path)] == [0, 0], log()

    launchers = machines.train(config, "--run-dir", broken.path, mishaps="freeze:1:7")
    until = time.monotonic() + SECONDS
    while not (tmp_path / "frozen").exists():
        assert time.monotonic() < until and launchers[0].poll() is None, log()
        time.sleep(0.1)
    machines.lose(1)
    assert launchers[0].wait(SECONDS) == 3, log()
    assert "lost" in (tmp_path / "0.log").read_text()
    assert load_checkpoint(broken.last)["progress"]["step"] == 6

    machines.plug(machines.names[1], machines.ends[1], "up")
    ip("-n", machines.names[1], "addr", "replace", f"{ADDRESSES[1]}/24", "dev", machines.ends[1])
    assert [launcher.wait(SECONDS) for launcher in machines.train("--resume", broken.path)] == [0, 0], log()
    states = [load_checkpoint(run.last) for run in (straight, broken)]
    for key in ("model", "optimizer", "progress"):
        assert_same(states[0][key], states[1][key], key)
