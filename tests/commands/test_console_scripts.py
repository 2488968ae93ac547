"""The ways to a command: console script, file under tools/ or scripts/, ``python -m``. All are one main."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import re
import runpy
import subprocess
import sys

import pytest
from commands import REPOSITORY

import mdg.commands
from mdg.commands import prepare

COMMANDS = [module.name for module in pkgutil.iter_modules(mdg.commands.__path__)]
SCRIPT = re.compile(r'"(mdg-[\w-]+) = (mdg\.commands\.\w+):main"')
SCRIPTS = dict(SCRIPT.findall((REPOSITORY / "setup.py").read_text(encoding="utf-8")))
FILES = [*(REPOSITORY / "tools").glob("*.py"), *(REPOSITORY / "scripts").glob("prepare_*.py")]


def load(file):
    spec = importlib.util.spec_from_file_location(f"tool_{file.stem}", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def said(main, capsys, *arguments: str) -> tuple[int, str]:
    """Exit code, and everything that was printed."""
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    printed = capsys.readouterr()
    return stop.value.code or 0, printed.out + printed.err


def test_the_console_scripts_of_a_user():
    names = ["train", "val", "infer", "check-data", "doctor", "compare", "benchmark", "prepare", "study", "explain"]
    names += ["export", "export-weights", "fetch", "report", "robustness", "calibrate", "register", "demo-web"]
    assert set(SCRIPTS) == {f"mdg-{name}" for name in names}


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_console_script_prints_its_help(name, capsys):
    code, text = said(importlib.import_module(SCRIPTS[name]).main, capsys, "--help")
    assert code == 0 and text.startswith("usage: ") and "--limit" in text


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_file_is_thin_and_called_as_it_always_was(file, capsys):
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 15
    code, text = said(load(file).main, capsys, "--help")
    assert code == 0 and text.startswith(f"usage: {file.stem} ")


def test_a_command_imports_nothing_heavy_before_it_runs():
    """So that ``--help`` and a mistake take no seconds."""
    heavy = ("torch", "numpy", "pydantic", "cv2", "rich.progress", "mdg.config", "mdg.data", "mdg.engine")
    modules = ", ".join(f"mdg.commands.{name}" for name in COMMANDS)
    code = f"import sys, {modules}; print(*(name for name in {heavy!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_runs_as_a_module(name, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    monkeypatch.delitem(sys.modules, f"mdg.commands.{name}", raising=False)  # else runpy warns
    code, text = said(lambda _: runpy.run_module(f"mdg.commands.{name}", run_name="__main__"), capsys)
    assert code == 0 and text.startswith("usage: ")


def test_prepare_takes_the_data_set_first(tmp_path, capsys):
    code, text = said(prepare.main, capsys, "mfnt", str(tmp_path), str(tmp_path / "goal"))
    assert code == 2 and "argument DATASET" in text and all(name in text for name in ("mfnt", "mfnet", "pst900", "fmb"))
    named = said(prepare.main, capsys, "pst900", str(tmp_path / "a.zip"), "--dry-run", str(tmp_path / "goal"))
    script = said(load(REPOSITORY / "scripts" / "prepare_pst900.py").main, capsys,
                  str(tmp_path / "a.zip"), "--dry-run", str(tmp_path / "goal"))  # fmt: skip
    assert named[0] == script[0] == 2 and named[1].startswith("prepare: error: ")
    assert named[1].removeprefix("prepare") == script[1].removeprefix("prepare_pst900")
