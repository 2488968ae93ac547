"""SIGKILL: at random moments, and around every change of the run's folder, in new runs and in resumed ones."""

from __future__ import annotations

import errno
import random
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from reliability.faults import MOMENTS, Fault, Points, read_record
from reliability.runs import LOST, Case, Lab, Verdict, broken_state, has_state

TENSORBOARD = ("log.trackers=[tensorboard]",)


def random_kills(lab: Lab) -> Iterator[Case]:
    """Runs that are killed again and again until they reach their end; about four kills each."""
    reference = lab.fresh("reference-tensorboard", *TENSORBOARD)
    probe = lab.train(lab.work / "probe", lab.work / "probe-output", opts=TENSORBOARD)
    shutil.rmtree(lab.work / "probe")

    def attempt(number: int, kills: int, folder: Path) -> Verdict:
        draw, run, done = random.Random(f"{lab.seed} {number}"), folder / "run", 0
        while done < kills:
            if not has_state(run) and run.exists():
                shutil.rmtree(run)
            child = lab.start(run, folder / "output", opts=TENSORBOARD)
            if not child.ends_within(draw.uniform(0, probe.seconds)):
                child.kill()
            outcome = child.wait()
            if not outcome.killed:
                if outcome.code or outcome.fault:
                    return Verdict(LOST, f"after {done} kills: {outcome.fault or outcome.stderr}", max(1, done))
                shutil.rmtree(run)  # it was faster than its end; the next one begins anew
                continue
            done += 1
            if problem := broken_state(run):
                return Verdict(LOST, f"after {done} kills: {problem}", done)
        return lab.finish(run, folder / "output", reference, TENSORBOARD)._replace(tries=done)

    left = lab.tries
    for number in range(lab.tries):
        if not left:
            break
        kills = min(left, random.Random(f"{lab.seed} {number} kills").randint(1, 7))
        left -= kills
        yield Case("kill at a random moment", str(number), partial(attempt, number, kills))


def kills_at_every_change(lab: Lab) -> Iterator[Case]:
    """Before, in the middle of and after every write, sync, rename, ... of a new run."""
    for number, moment, what in _moments(_points_of_run(lab)):
        fault = Fault(number, moment)
        yield Case("kill around every write, sync and rename", f"{number}-{moment}-{what}", partial(_kill, lab, fault))


def kills_in_resume(lab: Lab) -> Iterator[Case]:
    """The same in a resumed run, which has another beginning: read, compare, cut the metrics, write the protocol."""
    stopped = stopped_run(lab)
    for number, moment, what in _moments(_points_of_resume(lab)):
        fault = Fault(number, moment)
        yield Case(
            "the same while a run is resumed", f"{number}-{moment}-{what}", partial(_kill, lab, fault, begin=stopped)
        )


def stopped_run(lab: Lab, *opts: str) -> Path:
    """A run killed in its last epoch: it has all files, and steps after the last save to be repeated."""
    name = "stopped" + "".join(opts)
    run = lab.work / name
    if not run.exists():
        points = _points_of_run(lab)
        saves = [
            n for n, (kind, path) in enumerate(points) if kind in ("replace", "rename") and path.endswith("last.pt")
        ]
        kill = Points(run, Fault(saves[-1] - 1, "before"))
        outcome = lab.train(run, lab.work / f"{name}-output", opts=opts, before=kill.install)
        assert outcome.killed, outcome
    return run


def _kill(lab: Lab, fault: Fault, folder: Path, begin: Path | None = None) -> Verdict:
    run = folder / "run"
    if begin is not None:
        shutil.copytree(begin, run)
    saved = has_state(run)
    outcome = lab.train(run, folder / "output", before=Points(run, fault).install)
    if not outcome.killed:
        return Verdict(LOST, f"not killed at {fault}: exit code {outcome.code} {outcome.stderr[-300:]}")
    if saved and not has_state(run):
        return Verdict(LOST, "there was a state and now there is none")
    return lab.finish(run, folder / "output")


def _points_of_run(lab: Lab) -> list[tuple[str, str]]:
    record = lab.work / "points-of-run"
    if not record.exists():
        run = lab.work / "recorded"
        lab.train(run, lab.work / "recorded-output", before=Points(run, record=record).install)
        shutil.rmtree(run)
    return read_record(record)


def _points_of_resume(lab: Lab) -> list[tuple[str, str]]:
    record = lab.work / "points-of-resume"
    if not record.exists():
        run = lab.work / "recorded-resume"
        shutil.copytree(stopped_run(lab), run)
        lab.train(run, lab.work / "recorded-output", before=Points(run, record=record).install)
        shutil.rmtree(run)
    return read_record(record)


def _moments(points: list[tuple[str, str]]) -> Iterator[tuple[int, str, str]]:
    for number, (kind, path) in enumerate(points):
        for moment in MOMENTS:
            if moment != "half" or kind == "write":
                yield number, moment, f"{kind}-{shown(path)}"


def shown(path: str) -> str:
    """Name of a file for the name of a case, which must be the same the next time."""
    return "partial" if path.endswith(".partial") else Path(path).name


def failing_calls(lab: Lab, error: int, kinds: tuple[str, ...], stays: bool) -> Iterator[tuple[str, Fault]]:
    """A fault for every change at which a call can fail, with its name."""
    for number, (kind, path) in enumerate(_points_of_run(lab)):
        if kind in kinds:
            name = f"{number}-{errno.errorcode[error]}-{kind}-{shown(path)}"
            yield name, Fault(number, "half" if kind == "write" else "before", error, stays, kinds)
