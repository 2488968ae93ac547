"""A run directory explains itself and is never overwritten.

::

    exp/<name>/<time>/
        config.yaml          resolved configuration; `tools/train.py --config config.yaml` repeats the run
        environment.json     versions, machine, commit, command
        backends.json        measured times by which backends are chosen, as they were when the run began
        train.log            what the terminal showed
        running.json         who works in this folder, while somebody does
        metrics.jsonl        one JSON object per logged step and per validation
        tensorboard/
        checkpoints/last.pt  everything needed to resume exactly
        checkpoints/previous.pt  the same, one save earlier
        checkpoints/best.pt  weights with the best selection score
        results/<split>/     what tools/val_mm.py wrote; a further evaluation of the split makes <split>-2/
            results.json     protocol, scores under every rule, confusion matrix, configuration of the run
            images.csv       scores of every image
            counts.csv       pixels of every image and class
            confusion.png    the matrix, rows in per cent
            pictures/        frames spread over the split
            worst/           the frames with the lowest mIoU
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from mdg.errors import ConfigError
from mdg.utils.files import append_line, explained, plain, remove_partials, write_json, write_text
from mdg.utils.launched import launch_id

LOCK, RUNNING = ".lock", "running.json"


class RunDirectory:
    """Paths and append-only files of one run."""

    def __init__(self, path: Path):
        self.path = path

    @property
    def last(self) -> Path:
        """The checkpoint to resume from."""
        return self.path / "checkpoints" / "last.pt"

    @property
    def previous(self) -> Path:
        """The checkpoint before ``last``, for the case that ``last`` is damaged."""
        return self.path / "checkpoints" / "previous.pt"

    @property
    def best(self) -> Path:
        """The checkpoint with the best selection score."""
        return self.path / "checkpoints" / "best.pt"

    @property
    def best_or_last(self) -> Path | None:
        """The checkpoint that stands for the run: the best, else the last; None while there is neither."""
        return next((file for file in (self.best, self.last) if file.is_file()), None)

    @property
    def best_of_epochs(self) -> Path:
        """What ``best`` was before a run that ended inside an epoch was scored there."""
        return self.path / "checkpoints" / "best-of-epochs.pt"

    def forget_unfinished_best(self) -> None:
        """Makes ``best`` the best whole epoch again: a run that is continued does not know of the score inside one."""
        if self.best_of_epochs.is_file():
            with explained(self.best):
                os.replace(self.best_of_epochs, self.best)

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.yaml"

    @property
    def backends(self) -> Path:
        """The measured times by which the backends of the operators are chosen."""
        return self.path / "backends.json"

    @property
    def metrics(self) -> Path:
        """The metrics stream."""
        return self.path / "metrics.jsonl"

    @classmethod
    def create(cls, exp_dir: Path, name: str, run_dir: Path | None = None) -> RunDirectory:
        """Makes the folder of a new run: ``run_dir``, or ``exp_dir/name/<time>``. Two runs never share one: of
        several that start in one second, each takes the next name.

        Raises:
            ConfigError: ``run_dir`` exists and is not empty. UserError: the folder cannot be made.
        """
        if run_dir is None:
            return cls(make_fresh_folder(exp_dir / name / datetime.now().strftime("%Y%m%d-%H%M%S")))
        with explained(run_dir):
            # A process that was killed while it built its model leaves these behind; who holds them is asked later.
            left = {LOCK, RUNNING}
            if run_dir.exists() and (not run_dir.is_dir() or any(path.name not in left for path in run_dir.iterdir())):
                raise ConfigError(
                    f"--run-dir {run_dir}: exists and is not empty; nothing is overwritten. Continue that run "
                    f"with --resume {run_dir}, or name another folder."
                )
            run_dir.mkdir(parents=True, exist_ok=True)
        return cls(run_dir)

    @classmethod
    def existing(cls, path: Path) -> RunDirectory:
        """A run to resume. Raises ConfigError where it has neither ``last.pt`` nor ``previous.pt``."""
        run = cls(path)
        if not run.has_state:
            raise ConfigError(f"--resume {path}: expected a run directory with checkpoints/last.pt")
        return run

    @property
    def has_state(self) -> bool:
        """Whether there is a state to continue from."""
        return self.last.is_file() or self.previous.is_file()

    @property
    def launch(self) -> str | None:
        """The launch that began the run, see :func:`mdg.utils.launched.launch_id`; None where it is not known."""
        for file in (self.path / "environment.json", self._running):  # the second while nothing is known of the first
            try:
                return json.loads(file.read_text(encoding="utf-8")).get("launch")
            except (OSError, ValueError, AttributeError):
                continue
        return None

    @contextmanager
    def held(self, command: str = "") -> Iterator[None]:
        """Keeps the folder for this process; the system gives it back when the process ends, however it does.

        Raises:
            ConfigError: Another process holds it; the message says which.
        """
        with explained(self.path):
            lock, locked = FileLock(self.path / LOCK, timeout=0), True
            try:
                lock.acquire()
            except Timeout:
                raise ConfigError(f"{self.path}: {self._holder()}; wait for it, or stop it first") from None
            except NotImplementedError:  # a file system without locks; docs/reliability.md says what that means
                locked = False
        try:
            remove_partials(self.path)
            remove_partials(self.path / "checkpoints")
            since = datetime.now().isoformat(sep=" ", timespec="seconds")
            holder = {"host": socket.gethostname(), "pid": os.getpid(), "since": since, "command": command}
            write_json(self._running, {**holder, "launch": launch_id()})
            yield
        finally:
            with suppress(OSError):
                self._running.unlink()
            if locked:
                lock.release()
                with suppress(OSError):
                    (self.path / LOCK).unlink()

    def wait_until_left(self, seconds: float) -> None:
        """Waits while another process, which is known to end, works in the folder.

        Raises:
            ConfigError: It still does after so many seconds.
        """
        if not (self.path / LOCK).exists():
            return
        with explained(self.path), suppress(NotImplementedError):
            try:
                FileLock(self.path / LOCK).acquire(timeout=seconds).lock.release()
            except Timeout:
                raise ConfigError(f"{self.path}: {self._holder()}; wait for it, or stop it first") from None

    @property
    def _running(self) -> Path:
        return self.path / RUNNING

    def _holder(self) -> str:
        try:
            holder = json.loads(self._running.read_text(encoding="utf-8"))
            return f"process {holder['pid']} on {holder['host']} works in this run since {holder['since']}"
        except (OSError, ValueError, KeyError, TypeError):
            return "another process works in this run"

    def leave_if_empty(self) -> None:
        """Removes the folder of a run that never began, and the folders above it that hold nothing else."""
        for folder in (self.path, *list(self.path.parents)[:2]):
            try:
                folder.rmdir()
            except OSError:  # something lies there
                return

    def log_metrics(self, record: dict[str, Any]) -> None:
        """Appends one record to ``metrics.jsonl``."""
        append_line(self.metrics, json.dumps(plain(record), allow_nan=False))

    def truncate_metrics(self, step: int, *, evaluated: bool = True) -> None:
        """Drops records later than ``step``, and what is no record: a resume writes them again.

        Args:
            step: Optimizer steps that the state holds.
            evaluated: Whether the evaluation behind that step is kept too.
        """
        if not self.metrics.is_file():
            return
        with explained(self.metrics):
            lines = self.metrics.read_bytes().decode("utf-8", "replace").splitlines()
        kept = [line for line in lines if _is_before(line, step, evaluated)]
        if kept != lines:
            write_text(self.metrics, "".join(line + "\n" for line in kept))


def _is_before(line: str, step: int, evaluated: bool) -> bool:
    try:
        record = json.loads(line)
        at = record["step"]
        return at < step or (at == step and (evaluated or record.get("kind") != "eval"))
    except (ValueError, KeyError, TypeError, RecursionError):
        return False  # half a line of a run that was killed while writing, or no record of ours


def fresh_path(path: Path) -> Path:
    """``path``, or the first of ``stem-2.suffix``, ``stem-3.suffix``, ... that does not exist. A device or a pipe is
    written to and holds nothing that could be overwritten."""
    candidate, number = path, 1
    while candidate.is_file() or candidate.is_dir():
        number += 1
        candidate = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return candidate


def make_fresh_folder(path: Path) -> Path:
    """Makes ``path`` or the first of ``path-2``, ``path-3``, ... that nobody else has made; UserError where it cannot.

    Making and choosing are one step: a name that is free now may be taken a moment later.
    """
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        for number in count(1):
            folder = path if number == 1 else path.with_name(f"{path.name}-{number}")
            try:
                folder.mkdir()
                return folder
            except FileExistsError:
                continue
    raise AssertionError("unreachable")


def newest_run(exp_dir: Path) -> RunDirectory:
    """The run under ``exp_dir`` whose best or last checkpoint is newest. Raises ConfigError where there is none."""
    checkpoints = [*exp_dir.glob("**/checkpoints/best.pt"), *exp_dir.glob("**/checkpoints/last.pt")]
    if not checkpoints:
        raise ConfigError(
            f"{exp_dir}: no run with a checkpoint here. Train one first (`make demo`, or bash "
            "tools/train_ddp.sh CONFIG), or name one with --checkpoint FILE"
        )
    newest = max(checkpoints, key=lambda file: file.stat().st_mtime)
    return RunDirectory(newest.parent.parent)
