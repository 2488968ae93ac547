"""The harness of `make chaos` sees what it is there to see. Nothing here is installed into the process of the tests."""

from __future__ import annotations

import errno
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from reliability.faults import Fault, Points, read_record
from reliability.fuzzing import mutated
from reliability.process import Outcome
from reliability.report import BEGIN, END, Row, rows_of, write_table
from reliability.runs import DIFFERING, LOST, SURVIVED, difference

from mdg.errors import UserError
from mdg.utils.files import append_line, write_text


def forked(work: Callable[[], None]) -> int:
    """Exit code of a fork that works, 128 + signal where one ends it; 7 for an OSError, 8 for a UserError."""
    pid = os.fork()
    if not pid:
        code = 0
        try:
            work()
        except OSError:
            code = 7
        except UserError:
            code = 8
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return code if code >= 0 else 128 - code


def faulty(folder: Path, fault: Fault | None, work: Callable[[], None], record: Path | None = None) -> int:
    def with_faults() -> None:
        Points(folder, fault, record).install()
        work()

    return forked(with_faults)


def test_every_change_of_the_folder_is_a_point_and_nothing_else_is(tmp_path):
    folder, record = tmp_path / "run", tmp_path / "points"
    folder.mkdir()

    def work() -> None:
        (tmp_path / "elsewhere").write_text("x")
        write_text(folder / "a.txt", "hello")
        append_line(folder / "log", "line")
        (folder / "a.txt").read_text()
        (folder / "log").unlink()

    assert faulty(folder, None, work, record) == 0
    kinds = [kind for kind, path in read_record(record)]
    assert kinds == ["mkdir", "open", "write", "fsync", "replace", "fsync", "open", "write", "unlink"]
    assert (folder / "a.txt").read_text() == "hello"


@pytest.mark.parametrize(
    ("moment", "left"), [("before", "old-"), ("half", "old-12"), ("after", "old-1234")], ids=lambda value: value
)
def test_a_kill_leaves_what_was_written_until_then(tmp_path, moment, left):
    file = tmp_path / "file"
    file.write_text("old-")

    def work() -> None:
        with open(file, "ab", buffering=0) as stream:  # points: open, write
            stream.write(b"1234")
            stream.write(b"5678")

    assert faulty(tmp_path, Fault(1, moment), work) == 128 + signal.SIGKILL
    assert file.read_text() == left


def test_a_call_that_fails_fails_once_or_from_then_on(tmp_path):
    def twice(wanted: list[str]) -> None:
        for name in ("a", "b"):
            try:
                (tmp_path / name).write_text("x")
            except OSError as error:
                assert error.errno == errno.ENOSPC
        assert os.listdir(tmp_path) == wanted

    for stays, wanted in ((False, ["b"]), (True, [])):
        assert faulty(tmp_path, Fault(0, "before", errno.ENOSPC, stays), partial(twice, wanted)) == 0
        for file in tmp_path.iterdir():
            file.unlink()


def test_the_one_writer_survives_a_kill_at_every_point(tmp_path):
    record = tmp_path / "points"
    folder = tmp_path / "run"
    folder.mkdir()
    file = folder / "file"
    faulty(folder, None, lambda: write_text(file, "new"), record)
    for number in range(len(read_record(record))):
        for moment in ("before", "half", "after"):
            file.write_text("old")
            code = faulty(folder, Fault(number, moment), lambda: write_text(file, "new"))
            assert code in (0, 128 + signal.SIGKILL)  # "half" of what is no write happens nowhere
            assert file.read_text() in ("old", "new")


@pytest.mark.parametrize(
    ("a", "b", "where"),
    [
        ({"x": torch.zeros(2)}, {"x": torch.zeros(2)}, None),
        ({"x": torch.tensor([0.0])}, {"x": torch.tensor([-0.0])}, "x"),
        ({"x": torch.tensor([float("nan")])}, {"x": torch.tensor([float("nan")])}, None),
        ({"x": torch.zeros(2)}, {"x": torch.zeros(2, dtype=torch.float64)}, "x"),
        ({"x": [1, 2]}, {"x": [1, 3]}, r"x\[1\]"),
        ({"x": 1}, {"x": 1.0}, "x"),
        ({"x": 1}, {"y": 1}, "keys"),
        ({"x": [1]}, {"x": [1, 2]}, "1 items against 2"),
    ],
)
def test_differences_are_found_to_the_bit(a, b, where):
    found = difference(a, b, "file")
    assert found is None if where is None else re.search(where, found)


@pytest.mark.parametrize(
    ("code", "stderr", "seen"),
    [
        (0, "", None),
        (2, "train: error: no such file", None),
        (2, "", "0 messages"),
        (2, "train: error: a\ntrain: error: b", "2 messages"),
        (1, "train: error: unforeseen KeyError: 'x'; this is a fault of mdg", "unforeseen"),
        (1, "Traceback (most recent call last):\n  File x\nKeyError: 'x'", "traceback: KeyError"),
        (128 + signal.SIGSEGV, "", "signal 11"),
        (128 + signal.SIGKILL, "", None),
        (75, "", None),
    ],
)
def test_what_no_user_should_see_is_seen(code, stderr, seen):
    fault = Outcome(code, "", stderr, 1.0).fault
    assert fault is None if seen is None else seen in fault
    assert Outcome(0, "", "", 1.0, timed_out=True).fault == "no end within 1 s"


def test_a_kind_that_is_tried_again_replaces_its_rows_only(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\n{END}\nafter\n")
    results = [
        {"kind": "kill", "outcome": SURVIVED, "tries": 5, "seconds": 1.0},
        {"kind": "kill", "outcome": LOST, "tries": 3, "seconds": 1.0},
        {"kind": "kill", "outcome": DIFFERING, "tries": 1, "seconds": 1.0},
    ]
    assert rows_of("kills", results, "abc") == [Row("kill", "kills", (7, 1, 1), 3.0, "abc")]
    write_table(page, "make chaos", rows_of("kills", results, "abc"), ["kills", "disk"])
    write_table(page, "make chaos", [Row("disk full", "disk", (2, 0, 0), 1.0, "abc")], ["kills", "disk"])
    lines = page.read_text().splitlines()
    assert lines[0] == "before" and lines[-1] == "after"
    assert [line for line in lines if line.startswith(("| kill", "| disk"))] == [
        "| kill | `kills` | 9 | 7 | 1 | 1 | 3 | abc |",
        "| disk full | `disk` | 2 | 2 | 0 | 0 | 1 | abc |",
    ]
    write_table(page, "make chaos", [Row("kill", "kills", (1, 0, 0), 1.0, "def")], ["kills", "disk"])
    assert "| kill | `kills` | 1 | 1 | 0 | 0 | 1 | def |" in page.read_text()
    assert "| kill | `kills` | 9" not in page.read_text() and "| disk full |" in page.read_text()


def test_a_page_without_a_place_for_the_table_is_an_error(tmp_path):
    with pytest.raises(UserError, match="expected the line"):
        write_table(tmp_path / "nothing.md", "make chaos", [], [])


def test_blind_mutations_repeat_themselves_and_change_something():
    first = [mutated(random.Random(n), [b"hello world", b"other"]) for n in range(20)]
    assert first == [mutated(random.Random(n), [b"hello world", b"other"]) for n in range(20)]
    assert len(set(first)) > 15


@pytest.mark.slow
def test_chaos_and_fuzz_run(repository, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"{BEGIN}\n{END}\n")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    arguments = ["--only", "random-kills", "kills-at-changes", "--kills", "4", "--every", "40", "--lanes", "1"]
    command = [sys.executable, "scripts/chaos.py", *arguments, "--out", page, "--work", tmp_path / "work"]
    ended = subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert page.read_text().count("| 0 | 0 |") == 2
    command = [sys.executable, "scripts/fuzz.py", "--only", "yaml", "--seconds", "3", "--findings", tmp_path / "found"]
    ended = subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0 and "yaml: 3 s, clean" in ended.stdout, ended.stdout + ended.stderr
