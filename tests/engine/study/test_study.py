"""A study: which runs it has, what is left of them after a stop, and the table of what came out."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from commands import environment

from mdg.config import dump_yaml
from mdg.engine.study import runner
from mdg.engine.study.plan import Job, read_study
from mdg.engine.study.report import RowScore
from mdg.engine.study.runner import Place, StudyRunner, Summary, duration, require_devices, shared_cores
from mdg.errors import ConfigError, MachineError

REPOSITORY = Path(__file__).resolve().parents[3]
DEMO = REPOSITORY / "configs" / "demo.yaml"
STUDY = """
name: Two rows
folder: {folder}
seeds: [1, 2]
opts: [train.epochs=1]
rows:
  - {{name: Whole, config: {demo}}}
  - {{name: Without MDI, config: {demo}, opts: [model.interaction=null], seeds: [1]}}
"""


def write(tmp_path: Path, text: str = STUDY) -> Path:
    file = tmp_path / "study.yaml"
    file.write_text(text.format(folder=tmp_path / "runs", demo=DEMO))
    return file


def test_every_row_with_every_seed_a_round_at_a_time(tmp_path):
    study = read_study(write(tmp_path))
    assert [job.title for job in study.jobs] == ["Whole, seed 1", "Without MDI, seed 1", "Whole, seed 2"]
    assert study.jobs[1].folder == tmp_path / "runs" / "without-mdi" / "seed1"
    config = study.jobs[1].resolved()
    assert (config.name, config.seed, config.train.epochs, config.model.interaction) == ("Without MDI", 1, 1, None)


def test_every_variant_of_every_row_is_a_row(tmp_path):
    variants = "seeds: [1]\nvariants: {{slow: [optimizer.lr=1e-4], fast: [optimizer.lr=1e-2]}}"
    study = read_study(write(tmp_path, STUDY.replace("seeds: [1, 2]", variants)))
    assert study.rows == ("Whole, slow", "Whole, fast", "Without MDI, slow", "Without MDI, fast")
    assert [job.resolved().optimizer.lr for job in study.jobs] == [1e-4, 1e-2, 1e-4, 1e-2]
    assert [job.resolved().model.interaction is None for job in study.jobs] == [False, False, True, True]
    assert study.jobs[3].folder == tmp_path / "runs" / "without-mdi-fast" / "seed1"


def test_rows_take_the_config_of_the_study(tmp_path):
    bare = STUDY.replace(", config: {demo}", "")
    study = read_study(write(tmp_path, bare.replace("seeds: [1, 2]", "seeds: [1]\nconfig: {demo}")))
    assert {job.config for job in study.jobs} == {DEMO}
    with pytest.raises(ConfigError, match="row 'Whole' has no config"):
        read_study(write(tmp_path, bare))


def test_every_split(tmp_path):
    text = STUDY.replace("seeds: [1, 2]", "seeds: [1]\nsplits: {{a: [data.seed=1], b: [data.seed=2]}}")
    study = read_study(write(tmp_path, text))
    assert [job.title for job in study.jobs] == [
        "Whole, a, seed 1", "Without MDI, a, seed 1", "Whole, b, seed 1", "Without MDI, b, seed 1",
    ]  # fmt: skip
    assert [job.resolved().data.seed for job in study.jobs] == [1, 1, 2, 2]
    assert len({job.folder for job in study.jobs}) == 4


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("rows:", "row:", ["study.yaml:6", "row: unknown key", "rows"]),
        ("Without MDI", "whole", ["study.yaml:6", "got whole twice"]),
        ("model.interaction=null", "model.interactoin=null", ["Without MDI, seed 1", "interaction"]),
        ("train.epochs=1", "seed=7", ["an override sets seed=7", "`seeds:`"]),
        ("seeds: [1, 2]", "seeds: []", ["study.yaml:4", "seeds"]),
    ],
)
def test_mistakes_are_named(tmp_path, old, new, words):
    with pytest.raises(ConfigError) as caught:
        read_study(write(tmp_path, STUDY.replace(old, new)))
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_a_run_of_another_configuration_is_not_taken_for_one_of_the_study(tmp_path):
    first = read_study(write(tmp_path)).jobs[0]
    first.folder.mkdir(parents=True)
    first.run.config.write_text(dump_yaml(first.resolved()))
    read_study(write(tmp_path))
    with pytest.raises(ConfigError, match=r"Whole, seed 1: the run in .* \(train.epochs: 1 there, 2 here\)"):
        read_study(write(tmp_path, STUDY.replace("epochs=1", "epochs=2")))


class Pretended(StudyRunner):
    """Trains and scores in no time. ``plan`` says by title what the next calls of a job do; else they succeed."""

    def __init__(self, *args, plan: dict[str, list[str]] | None = None, **kwargs):
        self.lines: list[str] = []
        super().__init__(*args, say=self.lines.append, **kwargs)
        self.plan, self.calls = plan or {}, []

    def _call(self, job: Job, place: Place, module: str, *arguments: str) -> int:
        self.calls.append((job.title, module.rpartition(".")[2], arguments[0]))
        does = self.plan.get(job.title, [])
        what = does.pop(0) if does else "succeed"
        job.log.write_text(f"step 1\nval: error: {what}\nlast words\n")
        if what == "fail":
            return 2
        if what == "stop":
            self._stop(signal.SIGTERM, None)
        if module.endswith("train"):
            for file in (job.run.last, job.run.best):
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(what)
            return 75 if what == "stop" else 0
        file = job.results(arguments[arguments.index("--split") + 1])
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps({"scores": {"mIoU": 50.0}}))
        return 0


def test_jobs_run_once(tmp_path):
    study = read_study(write(tmp_path))
    one = Pretended(study, [""])
    assert one.run().done == list(study.jobs)
    assert [call[:2] for call in one.calls] == [(job.title, what) for job in study.jobs for what in ("train", "val")]
    assert one.lines[-1] == "[3/3] Whole, seed 2: mIoU 50.00 on val"
    again = Pretended(study, [""])
    assert again.run().done == list(study.jobs) and again.calls == []


def test_a_failure_is_reported_skipped_and_tried_again(tmp_path):
    study = read_study(write(tmp_path))
    first = Pretended(study, [""], plan={"Whole, seed 1": ["fail"], "Without MDI, seed 1": ["succeed", "fail"]})
    summary = first.run()
    assert [job.title for job in summary.failed] == ["Whole, seed 1", "Without MDI, seed 1"]
    assert all("error: fail (exit code 2, " in problem for problem in summary.failed.values())
    assert [job.title for job in summary.done] == ["Whole, seed 2"]
    again = Pretended(study, [""])
    assert len(again.run().done) == 3
    trained = [call for call in again.calls if call[1] == "train"]
    # The one that had been trained goes on from its last state, which says that nothing is left.
    assert trained == [("Whole, seed 1", "train", str(DEMO)), ("Without MDI, seed 1", "train", "--resume")]


def test_a_stop_ends_the_study_and_the_next_call_resumes(tmp_path):
    study = read_study(write(tmp_path))
    summary = Pretended(study, [""], plan={"Without MDI, seed 1": ["stop"]}).run()
    assert summary.stopped and not summary.failed
    assert [job.title for job in summary.done] == ["Whole, seed 1"]
    again = Pretended(study, [""])
    assert not again.run().stopped
    assert again.calls[0] == ("Without MDI, seed 1", "train", "--resume")


def test_what_was_killed_before_its_first_save_begins_anew(tmp_path):
    study = read_study(write(tmp_path))
    folder = study.jobs[0].folder
    folder.mkdir(parents=True)
    (folder / "train.log").write_text("begun")
    one = Pretended(study, [""])
    one.run()
    assert one.calls[0] == ("Whole, seed 1", "train", str(DEMO)) and not (folder / "train.log").exists()


def test_jobs_run_side_by_side_on_their_devices(tmp_path, monkeypatch):
    study, seen = read_study(write(tmp_path)), set()
    one = Pretended(study, ["0", "1"])
    call = one._call
    monkeypatch.setattr(one, "_call", lambda job, place, *rest: seen.add(place.device) or call(job, place, *rest))
    assert set(one.run().done) == set(study.jobs) and seen <= {"0", "1"}


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores cannot be assigned here")
def test_jobs_at_once_share_the_cores(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 5, 6})
    assert shared_cores(1) == [set()]
    assert shared_cores(2) == [{0, 1}, {2, 5, 6}]
    assert shared_cores(7) == [{0}, {1}, {2}, {5}, {6}, {0}, {1}]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores cannot be assigned here")
def test_a_job_runs_on_its_cores(tmp_path, monkeypatch):
    job = read_study(write(tmp_path)).jobs[0]
    job.folder.parent.mkdir(parents=True)
    (tmp_path / "told.py").write_text("import os, time; time.sleep(1); print(sorted(os.sched_getaffinity(0)))")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    core = max(os.sched_getaffinity(0))
    assert StudyRunner(read_study(write(tmp_path)), [""])._call(job, Place("", {core}), "told") == 0
    assert job.log.read_text().strip() == f"[{core}]"


def test_the_time_left_is_that_of_the_row_where_it_is_known(tmp_path):
    study = read_study(write(tmp_path))
    study.folder.mkdir()
    (study.folder / runner.TIMES).write_text(
        '{"row": "Whole", "seconds": 600}\n{"row": "Other", "seconds": 60}\nhalf {'
    )
    one = StudyRunner(study, [""])
    one.summary = Summary()
    assert one._left() == "; about 26 min left"  # two of ten minutes, one of the mean of both


@pytest.mark.parametrize(
    ("seconds", "text"), [(10, "under a minute"), (125, "2 min"), (7200, "2 h"), (7900, "2 h 12 min")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_devices(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    assert require_devices(None) == ["2", "3"] and require_devices(1) == ["2"]
    with pytest.raises(MachineError, match="there are 2 GPUs"):
        require_devices(3)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert require_devices(None) == [""] and require_devices(2) == ["", ""]


def test_numbers_of_the_report():
    row = RowScore("a", (60.0, 62.0), None)
    assert row.mean == 61 and row.std == pytest.approx(np.sqrt(2)) and np.isnan(RowScore("b", (1.0,), None).std)


TINY = """
name: tiny
folder: {folder}
seeds: [1, 2]
rows:
  - {{name: a, config: {config}, opts: [data.cache=ram]}}
  - {{name: b, config: {config}, opts: [optimizer.lr=1e-3]}}
  - {{name: c, config: {config}, opts: ['loss=[{{type: CrossEntropy, class_weights: [1]}}]'], seeds: [1]}}
"""


@pytest.mark.slow  # a dozen processes that import PyTorch
@pytest.mark.skipif(os.name != "posix", reason="kills processes by signal")
def test_a_study_that_is_killed_again_and_again_loses_and_doubles_nothing(tmp_path, tiny_yaml):
    file = tmp_path / "study.yaml"
    file.write_text(TINY.format(folder=tmp_path / "runs", config=tiny_yaml))
    command = [sys.executable, REPOSITORY / "scripts" / "run_study.py", file]
    straight = tmp_path / "straight.yaml"
    straight.write_text(TINY.format(folder=tmp_path / "straight", config=tiny_yaml))

    def run(seconds: float | None, number: int = signal.SIGKILL, study: Path = file) -> tuple[int, str]:
        with subprocess.Popen(
            [*command[:-1], study], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment()
        ) as process:
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                process.send_signal(number)
            return process.wait(120), process.stdout.read()

    for seconds, number in ((5, signal.SIGKILL), (9, signal.SIGTERM), (13, signal.SIGKILL)):
        run(seconds, number)
    code, text = run(None)
    assert code == 1 and "c, seed 1: failed: " in text and "expected 9 numbers" in text
    code, plain = run(None, study=straight)
    assert code == 1
    for job in (job for job in read_study(straight).jobs if job.row != "c"):
        one, two = (json.loads(j.results("val").read_text()) for j in (job, _same(read_study(file), job)))
        assert (
            one["confusion_matrix"] == two["confusion_matrix"] and one["checkpoint_sha256"] == two["checkpoint_sha256"]
        )
    assert (tmp_path / "runs" / "val.png").is_file()
    table = (tmp_path / "runs" / "table.md").read_text()
    assert re.search(r"\| b \| 2 \| [\d.]+ ± [\d.]+ \| [+-][\d.]+ \[", table) and "| c | 0 |  |  |  |" in table
    folders = sorted(path.name for path in (tmp_path / "runs" / "a").iterdir() if path.is_dir())
    assert folders == ["seed1", "seed2"]


def _same(study, job):
    return next(other for other in study.jobs if other.title == job.title)
