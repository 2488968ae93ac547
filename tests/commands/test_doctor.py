"""The command mdg.commands.doctor: kernels compiled ahead, or the reason why there are none."""

from __future__ import annotations

from mdg.commands import doctor
from mdg.ops import cpu_kernels


def test_kernels_are_compiled_ahead(capsys):
    doctor.main(["--compile"])
    assert capsys.readouterr().out == "the CPU kernels are compiled\n"


def test_there_are_no_kernels_without_numba(monkeypatch, capsys):
    monkeypatch.setattr(cpu_kernels, "why_not_numba", lambda: "numba is not installed")
    doctor.main(["--compile"])
    assert capsys.readouterr().out == "no CPU kernels to compile: numba is not installed\n"
