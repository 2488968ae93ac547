"""The command mdg.commands.doctor: kernels compiled ahead, backends measured, and what it says of a machine."""

from __future__ import annotations

import pytest

from mdg.benchmark import machine
from mdg.commands import doctor
from mdg.ops import cpu_kernels, measured


def test_kernels_are_compiled_ahead(capsys):
    doctor.main(["--compile"])
    assert capsys.readouterr().out == "the CPU kernels are compiled\n"


def test_there_are_no_kernels_without_numba(monkeypatch, capsys):
    monkeypatch.setattr(cpu_kernels, "why_not_numba", lambda: "numba is not installed")
    doctor.main(["--compile"])
    assert capsys.readouterr().out == "no CPU kernels to compile: numba is not installed\n"


@pytest.fixture
def unmeasured(tmp_path, monkeypatch):
    """A machine that was never measured, and few and small shapes to measure it by."""
    q = (1, 20, 20, 2, 16)
    shapes = [("linear", ((400, 64), (128, 64), (128,))), ("neighborhood_attention", (q, q, q, 5, 0.25))]
    monkeypatch.setattr(machine, "standard_shapes", lambda: shapes)
    monkeypatch.setattr(machine, "ROUNDS", 1)
    monkeypatch.setenv(measured.FOLDER_VARIABLE, str(tmp_path / "cache"))
    measured.use(None)
    yield tmp_path / "cache" / "backends.json"
    measured.use(None)


def test_a_race_is_shown_kept_and_gone_by(unmeasured, capsys):
    doctor.main([])
    told = capsys.readouterr().out
    assert "measured     not yet" in told and "doctor.py --race" in told
    doctor.main(["--race"])
    told = capsys.readouterr().out
    assert "linear" in told and "400x64x128" in told and "800x25x16" in told and "onednn" in told
    assert f"kept in {unmeasured}" in told.replace("\n", " ")
    (measurement,) = measured.read(unmeasured)
    assert {name: len(timings) for name, timings in measurement.operators.items()} == {
        "linear": 1, "neighborhood_attention": 1,
    }  # fmt: skip
    measured.use(None)  # as in a new process
    doctor.main([])
    told = capsys.readouterr().out
    assert f"measured     {measurement.at}, with" in told and "2 shapes" in told
    fastest = next(iter(measurement.operators["linear"][0].ms("training")))
    assert f"linear on cpu, training: {fastest}" in told
    assert f"no: measured: {fastest} is faster" in told


def test_a_place_that_cannot_be_written_is_said_before_the_race(unmeasured, monkeypatch, capsys):
    unmeasured.parent.write_text("a file")
    monkeypatch.setattr(machine, "measure_machine", lambda: pytest.fail("measured in vain"))
    with pytest.raises(SystemExit) as end:
        doctor.main(["--race"])
    assert end.value.code == 2 and "backends.json" in capsys.readouterr().err
