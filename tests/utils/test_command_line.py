"""The command that a run writes down."""

from __future__ import annotations

import sys

import pytest

from mdg.utils.launched import command_line


@pytest.mark.parametrize(
    ("program", "told"),
    [("{}/tools/train.py", "tools/train.py"), ("/elsewhere/train.py", "/elsewhere/train.py"), ("train.py", "train.py")],
)
def test_a_program_below_the_working_directory_is_told_from_there(tmp_path, monkeypatch, program, told):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [program.format(tmp_path), "--opts", "optimizer.groups=[{match: x}]"])
    assert command_line() == f"{told} --opts 'optimizer.groups=[{{match: x}}]'"
