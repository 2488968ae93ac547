"""A run goes by the times that it began with: a machine that is measured anew changes no run."""

from __future__ import annotations

import pytest
import torch

from mdg.ops import measured
from mdg.ops.measured import Timing, of_this_machine

pytestmark = pytest.mark.no_cover


def invented(fastest):
    """A measurement of this machine."""
    ms = {name: 1.0 if name == fastest else 2.0 for name in ("onednn", "torch")}
    timing = Timing(numbers=[400, 64, 128], forward_ms=ms, backward_ms=ms)
    return of_this_machine({"linear": [timing]})


@pytest.fixture(autouse=True)
def own_table(tmp_path, monkeypatch):
    """Nothing measured, and as many threads as the tiny runs have."""
    monkeypatch.setenv(measured.FOLDER_VARIABLE, str(tmp_path / "cache"))
    measured.use(None)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
    measured.use(None)


def chosen():
    return measured.ranking("linear", (400, 64, 128), "forward", ("torch", "onednn"))[:1]


def test_a_resumed_run_takes_its_own_times(tiny_run):
    first, second = invented("onednn"), invented("torch")
    measured.keep(first)
    run = tiny_run("run", "train.max_steps=1")
    assert measured.read(run.backends) == [first] and chosen() == ("onednn",)
    measured.keep(second)
    assert chosen() == ("torch",)
    tiny_run("run", "train.max_steps=2", resume=True)
    assert measured.read(run.backends) == [first] and chosen() == ("onednn",)
    assert measured.read(tiny_run("other", "train.max_steps=1").backends) == [second]


def test_a_run_remembers_that_nothing_was_measured(tiny_run):
    run = tiny_run("run", "train.max_steps=1")
    (nothing,) = measured.read(run.backends)
    assert nothing.at is None and nothing.operators == {}
    measured.keep(invented("onednn"))
    tiny_run("run", "train.max_steps=2", resume=True)
    assert measured.read(run.backends) == [nothing] and chosen() == ()


@pytest.mark.parametrize("field", ["threads", "kernels"])
def test_times_of_another_machine_or_code_are_kept_and_not_taken(tiny_run, field):
    """The run goes on with what is measured here, and remembers both."""
    run = tiny_run("run", "train.max_steps=1")
    other = invented("onednn").model_copy(update={field: {"threads": 77, "kernels": "other"}[field]})
    measured.write(run.backends, [other])
    here = invented("torch")
    measured.keep(here)
    tiny_run("run", "train.max_steps=2", resume=True)
    assert measured.read(run.backends) == [here, other] and chosen() == ("torch",)


def test_a_damaged_file_of_a_run_is_a_warning(tiny_run):
    run = tiny_run("run", "train.max_steps=1")
    run.backends.write_text("{")
    here = invented("torch")
    measured.keep(here)
    tiny_run("run", "train.max_steps=2", resume=True)
    assert f"not used: {run.backends}" in (run.path / "train.log").read_text()
    assert measured.read(run.backends) == [here]


def test_a_run_whose_times_are_gone_says_that_its_bits_may_differ(tiny_run):
    """Also where nothing else tells: the file may have been left behind when the run was copied."""
    measured.keep(invented("onednn").model_copy(update={"at": "2026-01-01 00:00:00"}))
    run = tiny_run("run", "train.max_steps=1")
    run.backends.unlink()
    measured.keep(invented("torch").model_copy(update={"at": "2026-02-02 00:00:00"}))
    tiny_run("run", "train.max_steps=2", resume=True)
    before, now = "2026-01-01 00:00:00 when the run was saved", "now 2026-02-02 00:00:00"
    assert f"backends were measured: {before}, {now}; last bits" in (run.path / "train.log").read_text()


def test_a_run_that_has_its_times_says_nothing(tiny_run):
    measured.keep(invented("onednn").model_copy(update={"at": "2026-01-01 00:00:00"}))
    run = tiny_run("run", "train.max_steps=1")
    measured.keep(invented("torch").model_copy(update={"at": "2026-02-02 00:00:00"}))
    tiny_run("run", "train.max_steps=2", resume=True)
    assert "last bits" not in (run.path / "train.log").read_text()
