"""Running the jobs of a study: each in processes of its own, one after the other or one on each GPU."""

from __future__ import annotations

import itertools
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from mdg.engine.study.plan import Job, Study
from mdg.errors import MachineError
from mdg.utils.cli import EXIT_STOPPED
from mdg.utils.files import append_line, explained
from mdg.utils.launched import LAUNCHER

SECONDS_TO_SAVE = 120
TIMES = "times.jsonl"  # seconds of every finished job, from which the time left is estimated


@dataclass
class Summary:
    """What came of a study: jobs that are done, why others failed, and whether a signal stopped it."""

    done: list[Job] = field(default_factory=list)
    failed: dict[Job, str] = field(default_factory=dict)
    stopped: bool = False


def gpus() -> list[str]:
    """The GPUs that jobs may use, as ``CUDA_VISIBLE_DEVICES`` names them; none where there is no driver."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name.strip()]
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [str(number) for number, line in enumerate(listed.splitlines()) if line.startswith("GPU ")]


class Place(NamedTuple):
    """Where a job runs: the name of a GPU, or an empty string for the CPU; and its cores, an empty set for all."""

    device: str
    cores: set[int]


def shared_cores(jobs: int) -> list[set[int]]:
    """Cores of each of so many jobs at once; empty sets where a job may use all, or where cores cannot be assigned.

    Jobs that share cores wait for one another's threads: two of them take far longer than one after the other.
    """
    if jobs == 1 or not hasattr(os, "sched_getaffinity"):
        return [set() for _ in range(jobs)]
    cores = sorted(os.sched_getaffinity(0))
    if jobs > len(cores):
        return [{cores[place % len(cores)]} for place in range(jobs)]
    bounds = [place * len(cores) // jobs for place in range(jobs + 1)]
    return [set(cores[begin:end]) for begin, end in itertools.pairwise(bounds)]


class StudyRunner:
    """Runs what is left of a study.

    A job whose scores exist is left out, one that was begun goes on where it was saved, one that failed is tried again.

    Args:
        study: The jobs.
        devices: A place for a job each: the name of a GPU, or an empty string for the CPU.
        allow_changes: Continue runs that were begun by other code.
        say: Prints a line.
    """

    def __init__(
        self, study: Study, devices: Sequence[str], *, allow_changes: bool = False, say: Callable[[str], None] = print
    ):
        self.study, self.devices, self.allow_changes, self.say = study, list(devices), allow_changes, say
        self.summary = Summary([job for job in study.jobs if job.scored])
        self._lock = threading.Lock()
        self._processes: dict[str, subprocess.Popen] = {}
        self._stopping = False

    def run(self) -> Summary:
        """Runs the jobs; returns when all are done, have failed, or were stopped by a signal.

        Raises:
            MachineError: The folder of the study cannot be written.
        """
        left: queue.SimpleQueue[Job] = queue.SimpleQueue()
        for job in self.study.jobs:
            if not job.scored:
                left.put(job)
        _make_folder(self.study.folder)
        self.say(f"{self.study.name}: {len(self.summary.done)} of {len(self.study.jobs)} runs are done{self._left()}")
        handlers = {number: signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            cores = shared_cores(len(self.devices))
            places = [Place(*pair) for pair in zip(self.devices, cores, strict=True)]
            threads = [threading.Thread(target=self._work, args=(left, place)) for place in places]
            for thread in threads:
                thread.start()
            for thread in threads:
                while thread.is_alive():
                    thread.join(0.2)  # a join without a limit would keep signals waiting
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        return self.summary

    def _stop(self, number: int, frame: object) -> None:
        """Hands a signal on: trainings save and end, and no further job begins."""
        self._stopping = self.summary.stopped = True
        for process in list(self._processes.values()):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)

    def _work(self, left: queue.SimpleQueue[Job], place: Place) -> None:
        while not self._stopping:
            try:
                job = left.get_nowait()
            except queue.Empty:
                return
            started = time.perf_counter()
            try:
                problem = self._finish(job, place)
            except Exception as error:  # a full disk, a folder without permission: the next job may fare better
                problem = f"{type(error).__name__}: {error}"
            if self._stopping and not job.scored:
                return
            self._report(job, problem, time.perf_counter() - started)

    def _finish(self, job: Job, place: Place) -> str | None:
        """Trains what is left of a job and scores it; why it failed, or None."""
        _make_folder(job.folder.parent)
        job.run.wait_until_left(SECONDS_TO_SAVE)  # of a study that was killed, whose training saves and ends
        resumed = job.run.has_state
        if not resumed and job.folder.exists():
            with explained(job.folder):
                shutil.rmtree(job.folder)  # ended before anything of worth was saved
        changes = ["--allow-changes"] if self.allow_changes and resumed else []
        where = ["--resume", str(job.folder)] if resumed else [str(job.config), "--run-dir", str(job.folder)]
        overrides = [] if resumed else ["--opts", *job.opts]
        code = self._call(job, place, "mdg.commands.train", *where, *changes, *overrides)
        for split in job.score:
            if code == 0 and not self._stopping and not job.has(split):
                best = ["--checkpoint", str(job.run.best), "--config", str(job.run.config), "--split", split]
                code = self._call(job, place, "mdg.commands.val", *best)
        return None if code == 0 or (code == EXIT_STOPPED and self._stopping) else _reason(job.log, code)

    def _call(self, job: Job, place: Place, module: str, *arguments: str) -> int:
        environment = {**os.environ, LAUNCHER: str(os.getpid())}  # where this process is killed, it saves and ends
        if place.device:
            environment["CUDA_VISIBLE_DEVICES"] = place.device
        with open(job.log, "ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,  # Ctrl-C reaches this process, which hands it on once
            )
            if place.cores and hasattr(os, "sched_setaffinity"):
                os.sched_setaffinity(process.pid, place.cores)  # from which it takes its number of threads
            self._processes[job.title] = process
            if self._stopping:
                process.send_signal(signal.SIGTERM)
            return process.wait()

    def _report(self, job: Job, problem: str | None, seconds: float) -> None:
        with self._lock:
            if problem is None:
                self.summary.done.append(job)
                took = {"row": job.row, "seconds": round(seconds, 1)}
                append_line(self.study.folder / TIMES, json.dumps(took))
                what = ", ".join(f"mIoU {_score(job.results(split)):.2f} on {split}" for split in job.score)
            else:
                self.summary.failed[job] = problem
                what = f"failed: {problem}"
            count = len(self.summary.done) + len(self.summary.failed)
            self.say(f"[{count}/{len(self.study.jobs)}] {job.title}: {what}{self._left()}")

    def _left(self) -> str:
        """ "; about 2 h 10 min left", by the mean time of finished jobs of a row, else of any row."""
        settled = {*self.summary.done, *self.summary.failed}
        open_jobs = [job for job in self.study.jobs if job not in settled]
        times = _times(self.study.folder / TIMES)
        if not open_jobs or not times:
            return ""
        every = [seconds for values in times.values() for seconds in values]
        total = sum(_mean(times.get(job.row, every)) for job in open_jobs) / len(self.devices)
        return f"; about {duration(total)} left"


def duration(seconds: float) -> str:
    """ "2 h 10 min", "7 min", "under a minute"."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return "under a minute"
    hours, minutes = divmod(minutes, 60)
    return " ".join(filter(None, [f"{hours} h" if hours else "", f"{minutes} min" if minutes or not hours else ""]))


def _make_folder(folder: Path) -> None:
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _times(file: Path) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {}
    if file.is_file():
        for line in file.read_text(encoding="utf-8").splitlines():
            try:
                record = json.loads(line)
                times.setdefault(str(record["row"]), []).append(float(record["seconds"]))
            except (ValueError, KeyError, TypeError):  # a line that a power cut left half
                continue
    return times


def _score(file: Path) -> float:
    return float(json.loads(file.read_text(encoding="utf-8"))["scores"]["mIoU"] or "nan")


def _reason(log: Path, code: int) -> str:
    """The last line of a log that speaks of an error, else the last one."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    told = next((line for line in reversed(lines) if "error" in line.lower()), lines[-1] if lines else "no output")
    killed = f"killed by {signal.Signals(-code).name}; " if code < 0 else ""
    return f"{killed}{told[:300]} (exit code {code}, {log})"


def require_devices(jobs: int | None) -> list[str]:
    """Where jobs run: one on each GPU, or one on the CPU; ``jobs`` at once where that is given.

    Raises:
        MachineError: More jobs than GPUs.
    """
    found = gpus()
    if jobs is None:
        return found or [""]
    if found and jobs > len(found):
        raise MachineError(f"--jobs {jobs}: there are {len(found)} GPUs, and a GPU runs one job at a time")
    return found[:jobs] if found else [""] * jobs
