"""Every error of a tool is one message and an exit code."""

from __future__ import annotations

import argparse
import errno
import logging
import os
import subprocess
import sys

import pytest

from mdg.errors import ConfigError, MachineError, NonFiniteError
from mdg.utils import crash
from mdg.utils.cli import calm_threads, run_tool
from mdg.utils.launched import command_line
from mdg.utils.logging import TerminalLog


def run(main, capsys, *arguments):
    with pytest.raises(SystemExit) as caught:
        run_tool(main, argparse.ArgumentParser(prog="tool"), arguments)
    return caught.value.code, capsys.readouterr().err


def raising(error):
    def main(_):
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ConfigError("wrong key"), 2, "tool: error: wrong key\n"),
        (NonFiniteError("NaN"), 2, "tool: error: NaN\n"),
        (MachineError("disk"), 3, "tool: error: disk\n"),
        (OSError(errno.ENOSPC, "No space left on device", "/x"), 3, "tool: error: /x: cannot be written (No space"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "/x"), 2, "tool: error: /x: No such file"),
        (
            RuntimeError("Symlink loop from '/a/b'"),
            2,
            "'/a/b': Too many levels of symbolic links",
        ),
        (MemoryError(), 3, "tool: error: not enough memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 3 TB"), 3, "not enough memory (Default"),
        (KeyboardInterrupt(), 130, "tool: error: interrupted\n"),
    ],
)
def test_each_error_has_its_code(capsys, error, code, message):
    got, text = run(raising(error), capsys)
    assert got == code and message in text and text.count("\n") == 1


def test_the_code_of_the_tool_is_passed_on(capsys):
    assert run(lambda _: 75, capsys)[0] == 75
    run_tool(lambda _: None, argparse.ArgumentParser(prog="tool"), [])


def test_an_unforeseen_error_is_one_line_and_a_report(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(crash, "_known", {"folder": tmp_path, "config": "name: run"})
    code, text = run(raising(ZeroDivisionError("division by zero\nsecond line")), capsys)
    (file,) = tmp_path.glob("error-tool-*.txt")
    assert code == 1 and text.count("\n") == 1 and str(file) in text and "Traceback" not in text
    report = file.read_text()
    assert "ZeroDivisionError: division by zero" in report and "raise error" in report  # the traceback
    assert "name: run" in report and "python: 3." in report and command_line() in report


def test_a_report_goes_elsewhere_where_the_run_cannot_take_it(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(crash, "_known", {"folder": tmp_path / "gone"})
    monkeypatch.setattr(crash.tempfile, "gettempdir", lambda: str(tmp_path))
    _, text = run(raising(ZeroDivisionError("x")), capsys)
    assert len(list(tmp_path.glob("error-tool-*.txt"))) == 1 and str(tmp_path) in text


def test_limits_are_raised_by_a_flag(monkeypatch, capsys):
    from mdg.utils.limits import limit

    monkeypatch.setenv("MDG_LIMIT_LIST_BYTES", "5")
    run_tool(lambda _: None, argparse.ArgumentParser(prog="tool"), ["--limit", "list_bytes=7"])
    assert limit("list_bytes") == 7
    code, text = run(lambda _: None, capsys, "--limit", "list=7")
    assert code == 2 and "Did you mean 'list_bytes'" in text


TOOL = """
import argparse
from mdg.errors import ConfigError
from mdg.utils.cli import run_tool
from mdg.utils.logging import TerminalLog
from mdg.utils.logging import console
def main(_):
    for _ in range(20000):
        console.print('größe [/left] \\u80cc ± ' + 'x' * 20)
    raise ConfigError('größe \\udcd6')
run_tool(main, argparse.ArgumentParser(prog='tool'))
"""


def test_a_reader_that_goes_away_is_no_error():
    command = f'{sys.executable} -c "$TOOL" | head -1; echo "${{PIPESTATUS[0]}}"'
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env={**os.environ, "TOOL": TOOL})
    assert done.stdout.splitlines()[-1] == "141" and done.stderr == "", done.stderr


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_terminal_that_cannot_show_a_character_shows_another(encoding):
    env = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run([sys.executable, "-c", TOOL.replace("20000", "1")], capture_output=True, env=env)
    assert done.returncode == 2 and b"Traceback" not in done.stderr and b"[/left]" in done.stdout
    assert done.stderr.startswith(b"tool: error: gr")


def test_log_lines_whose_reader_has_gone_are_no_traceback(capsys, monkeypatch):
    class Closed:
        def write(self, text):
            raise BrokenPipeError

        flush = write

    handler = TerminalLog(Closed())
    for _ in range(2):
        if handler.level <= logging.INFO:
            handler.handle(logging.LogRecord("mdg", logging.INFO, "", 0, "hello", None, None))
    assert capsys.readouterr().err == "" and handler.level > logging.CRITICAL


@pytest.mark.parametrize(
    ("given", "told"), [({}, "2000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)]
)
def test_threads_that_wait_go_to_sleep_unless_somebody_chose(monkeypatch, given, told):
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    calm_threads()
    assert os.environ.get("GOMP_SPINCOUNT") == told
