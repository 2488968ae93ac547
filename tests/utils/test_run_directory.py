"""A run has a folder of its own, one process that works in it, and a log that survives damage."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mdg.errors import ConfigError, UserError
from mdg.utils.run_directory import RunDirectory, fresh_path, make_fresh_folder

HOLD = """
import sys, time
from pathlib import Path
from mdg.utils.run_directory import RunDirectory
with RunDirectory(Path(sys.argv[1])).held('command'):
    print('held', flush=True)
    time.sleep(60)
"""


def test_runs_that_start_together_get_folders_of_their_own(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda _: make_fresh_folder(tmp_path / "exp" / "20261125-170956"), range(40)))
    assert len(set(folders)) == 40 and all(folder.is_dir() for folder in folders)


def test_a_held_run_names_its_holder_until_that_one_is_killed(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        expected = f"process {holder.pid} on .* works in this run since"
        with pytest.raises(ConfigError, match=expected), RunDirectory(tmp_path).held():
            pass
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    (tmp_path / ".mdg-1-a.partial").write_text("left by the killed process")
    with RunDirectory(tmp_path).held():
        assert json.loads((tmp_path / "running.json").read_text())["pid"] == os.getpid()
        assert not (tmp_path / ".mdg-1-a.partial").exists()
    assert not list(tmp_path.iterdir())


def test_a_run_that_was_killed_before_it_began_blocks_nothing_and_is_known(tmp_path, monkeypatch):
    """A restart finds its folder, and by hand the same command may be given again."""
    monkeypatch.setenv("MDG_LAUNCH_ID", "launch-1")
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    holder.stdout.readline()
    holder.kill()
    holder.wait()
    assert RunDirectory(tmp_path).launch == "launch-1"
    assert RunDirectory.create(tmp_path, "name", tmp_path).path == tmp_path
    (tmp_path / "train.log").write_text("")
    with pytest.raises(ConfigError, match="nothing is overwritten"):
        RunDirectory.create(tmp_path, "name", tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\x00", b'{"pid": 1}'])
def test_a_damaged_note_of_the_holder_is_no_obstacle(tmp_path, content):
    from filelock import FileLock

    (tmp_path / "running.json").write_bytes(content)
    expected = pytest.raises(ConfigError, match="another process works in this run")
    with FileLock(tmp_path / ".lock"), expected, RunDirectory(tmp_path).held():
        pass
    with RunDirectory(tmp_path).held():
        pass


def record(step, kind="train"):
    return json.dumps({"kind": kind, "step": step}).encode()


def test_records_later_than_a_step_are_dropped(tmp_path):
    run = RunDirectory(tmp_path)
    lines = [record(1), record(2), record(2, "eval"), record(3)]
    run.metrics.write_bytes(b"\n".join(lines) + b"\n")
    run.truncate_metrics(2)
    assert run.metrics.read_bytes() == b"\n".join(lines[:3]) + b"\n"
    run.truncate_metrics(2, evaluated=False)
    assert run.metrics.read_bytes() == b"\n".join(lines[:2]) + b"\n"


@pytest.mark.parametrize(
    "damage", [b"3", b"\xff\xfe\x00", b'{"kind": "tr', b"[" * 5000, b"null", b'{"step": "x"}', b""]
)
def test_damaged_records_never_block_a_run(tmp_path, damage):
    run = RunDirectory(tmp_path)
    run.metrics.write_bytes(b"\n".join([record(1), damage, record(2)]) + b"\n" + damage)
    run.truncate_metrics(2)
    assert run.metrics.read_bytes() == b"\n".join([record(1), record(2)]) + b"\n"


@pytest.mark.parametrize("name", ["file/below", "file", "n" * 300])
def test_folders_that_cannot_be_made_are_errors_of_the_user(tmp_path, name):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError):
        RunDirectory.create(tmp_path, "x", tmp_path / name)
    with pytest.raises(UserError):
        RunDirectory.create(tmp_path / name, "x")


def test_a_run_that_never_began_leaves_nothing(tmp_path):
    run = RunDirectory.create(tmp_path / "exp", "name")
    run.leave_if_empty()
    assert not list(tmp_path.iterdir())
    run = RunDirectory.create(tmp_path / "exp", "name")
    (tmp_path / "exp" / "other").mkdir()
    run.leave_if_empty()
    assert [path.name for path in (tmp_path / "exp").iterdir()] == ["other"]


def test_best_inside_an_epoch_is_forgotten_where_the_run_goes_on(tmp_path):
    run = RunDirectory(tmp_path)
    run.best.parent.mkdir()
    run.best.write_text("inside")
    run.forget_unfinished_best()
    assert run.best.read_text() == "inside"
    run.best_of_epochs.write_text("whole")
    run.forget_unfinished_best()
    assert run.best.read_text() == "whole" and not run.best_of_epochs.exists()


def test_a_device_is_no_file_that_has_to_be_kept(tmp_path):
    (tmp_path / "a.json").touch()
    assert fresh_path(tmp_path / "a.json") == tmp_path / "a-2.json"
    assert str(fresh_path(Path(os.devnull))) == os.devnull
