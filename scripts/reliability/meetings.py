"""Several processes in one place, and clocks that are wrong."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from reliability import process
from reliability.kills import stopped_run
from reliability.process import ROOT
from reliability.runs import DIFFERING, LOST, SURVIVED, TRAIN, Case, Lab, Skip, Verdict, compare

DAY = 86400
CLOCK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
static long turned(void) { const char *s = getenv("CLOCK_SECONDS"); return s ? atol(s) : 0; }
int clock_gettime(clockid_t id, struct timespec *t) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int code = real(id, t);
    if (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE) t->tv_sec += turned();
    return code;
}
int gettimeofday(struct timeval *t, void *zone) {
    struct timespec now; clock_gettime(CLOCK_REALTIME, &now);
    t->tv_sec = now.tv_sec; t->tv_usec = now.tv_nsec / 1000; (void)zone; return 0;
}
time_t time(time_t *out) {
    struct timespec now; clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}
"""


def two_resumes(lab: Lab) -> Iterator[Case]:
    """One run is resumed twice at once, or while it still trains: one goes on, the other is told who does."""
    begin = stopped_run(lab)
    seconds = lab.train(lab.work / "probe", lab.work / "probe-output").seconds
    shutil.rmtree(lab.work / "probe")
    for number in range(min(lab.tries, 40)):
        delay = 0.0 if number % 2 else random.Random(f"{lab.seed} {number}").uniform(0, seconds)
        yield Case("two resumes at once", str(number), partial(_resume_twice, lab, begin, delay))


def same_second(lab: Lab) -> Iterator[Case]:
    """Four runs of one name start at one moment: four folders, each with a whole run."""
    for number in range(min(lab.tries, 10)):
        yield Case("four runs start in one second", str(number), partial(_four_at_once, lab))


def clocks(lab: Lab) -> Iterator[Case]:
    """A clock that jumps back or forth between a run and its resume, and times of files that say the opposite."""
    begin = stopped_run(lab)
    for days in (-3650, -1, 1):
        yield Case("clock set back or forth", f"files-{days}-days", partial(_old_files, lab, begin, days))
    yield Case("clock set back or forth", "times-reversed", partial(_reversed_times, lab, begin))
    library = clock_library(lab.work)
    for days in (-3650, -1, 3650):
        yield Case("clock set back or forth", f"clock-{days}-days", partial(_turned_clock, lab, begin, library, days))


def _resume_twice(lab: Lab, begin: Path, delay: float, folder: Path) -> Verdict:
    run = folder / "run"
    shutil.copytree(begin, run)
    first = process.start(TRAIN, ["--resume", run], folder / "first")
    first.ends_within(delay)
    second = process.start(TRAIN, ["--resume", run], folder / "second")
    outcomes = [first.wait(), second.wait()]
    for outcome in outcomes:
        if outcome.fault:
            return Verdict(LOST, outcome.fault)
        if (
            outcome.code == 2
            and not re.search(r"process \d+", outcome.stderr)
            and "another process" not in outcome.stderr
        ):
            return Verdict(LOST, f"the second is not told who holds the run: {outcome.stderr}")
    # Both may get through, one after the other; the second then finds nothing left to do.
    if not any(outcome.code == 0 for outcome in outcomes):
        return Verdict(LOST, f"exit codes {[outcome.code for outcome in outcomes]}: {outcomes[0].stderr}")
    return compare(lab.reference, run)


def _four_at_once(lab: Lab, folder: Path) -> Verdict:
    opts = ["--opts", f"exp_dir={folder / 'exp'}"]
    children = [process.start(TRAIN, [lab.config, *opts], folder / f"output-{n}") for n in range(4)]
    for outcome in [child.wait() for child in children]:
        if outcome.fault or outcome.code:
            return Verdict(LOST, outcome.fault or f"exit code {outcome.code}: {outcome.stderr}")
    runs = sorted((folder / "exp" / lab.config.stem).iterdir())
    if len(runs) != 4:
        return Verdict(DIFFERING, f"four runs share {len(runs)} folders")
    for run in runs:
        verdict = compare(lab.reference, run, ("metrics",))
        if verdict.outcome != SURVIVED:
            return verdict
    return Verdict(SURVIVED)


def _old_files(lab: Lab, begin: Path, days: int, folder: Path) -> Verdict:
    run = folder / "run"
    shutil.copytree(begin, run)
    for file in run.rglob("*"):
        os.utime(file, (file.stat().st_mtime + days * DAY,) * 2)
    return lab.finish(run, folder / "output")


def _reversed_times(lab: Lab, begin: Path, folder: Path) -> Verdict:
    """The older state looks newer: what counts is the step inside."""
    run = folder / "run"
    shutil.copytree(begin, run)
    last = run / "checkpoints" / "last.pt"
    os.utime(last, (last.stat().st_mtime - DAY,) * 2)
    return lab.finish(run, folder / "output")


def _turned_clock(lab: Lab, begin: Path, library: Path, days: int, folder: Path) -> Verdict:
    run = folder / "run"
    shutil.copytree(begin, run)
    environment = {
        **os.environ,
        "LD_PRELOAD": str(library),
        "CLOCK_SECONDS": str(days * DAY),
        "PYTHONPATH": python_path(),
    }
    command = [sys.executable, ROOT / TRAIN, "--resume", run]
    ended = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=300)
    if ended.returncode:
        return Verdict(LOST, f"exit code {ended.returncode}: {ended.stderr[-300:]}")
    return compare(lab.reference, run)


def python_path() -> str:
    """PYTHONPATH with which another interpreter finds this package and this checkout."""
    return os.pathsep.join([str(ROOT), str(ROOT / "scripts"), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)


def clock_library(work: Path) -> Path:
    """A library that turns the clock of a program by CLOCK_SECONDS. Raises Skip without a C compiler."""
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None:
        raise Skip("no C compiler here, with which the clock of a program could be turned")
    source, library = work / "clock.c", work / "clock.so"
    source.write_text(CLOCK)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True, capture_output=True)
    return library
