"""A run directory explains itself and is never overwritten.

::

    exp/<name>/<time>/
        config.yaml          resolved configuration; `tools/train.py --config config.yaml` repeats the run
        environment.json     versions, machine, commit, command
        train.log            what the terminal showed
        metrics.jsonl        one JSON object per logged step and per validation
        tensorboard/
        checkpoints/last.pt  everything needed to resume exactly
        checkpoints/best.pt  weights with the best selection score
        results/<split>/     what tools/val_mm.py wrote; a further evaluation of the split makes <split>-2/
            results.json     protocol, scores under every rule, confusion matrix, configuration of the run
            images.csv       scores of every image
            confusion.png    the matrix, rows in per cent
            pictures/        frames spread over the split
            worst/           the frames with the lowest mIoU
"""

from __future__ import annotations

import json
import math
from datetime import datetime
from pathlib import Path
from typing import Any

from mdg.errors import ConfigError


class RunDirectory:
    """Paths and append-only files of one run."""

    def __init__(self, path: Path):
        self.path = path

    @property
    def last(self) -> Path:
        """The checkpoint to resume from."""
        return self.path / "checkpoints" / "last.pt"

    @property
    def best(self) -> Path:
        """The checkpoint with the best selection score."""
        return self.path / "checkpoints" / "best.pt"

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.yaml"

    @property
    def metrics(self) -> Path:
        """The metrics stream."""
        return self.path / "metrics.jsonl"

    @classmethod
    def create(cls, exp_dir: Path, name: str, run_dir: Path | None = None) -> RunDirectory:
        """The place of a new run: ``run_dir``, or ``exp_dir/name/<time>``. Starting it makes the folder, so a
        run that cannot start leaves nothing behind.

        Raises:
            ConfigError: ``run_dir`` exists and is not empty.
        """
        if run_dir is None:
            run_dir = fresh_path(exp_dir / name / datetime.now().strftime("%Y%m%d-%H%M%S"))
        elif run_dir.exists() and (not run_dir.is_dir() or any(run_dir.iterdir())):
            raise ConfigError(
                f"--run-dir {run_dir}: exists and is not empty; nothing is overwritten. Continue that run "
                f"with --resume {run_dir}, or name another folder."
            )
        return cls(run_dir)

    @classmethod
    def existing(cls, path: Path) -> RunDirectory:
        """A run to resume. Raises ConfigError where it has no ``last.pt``."""
        run = cls(path)
        if not run.last.is_file() or not run.config.is_file():
            raise ConfigError(f"--resume {path}: expected a run directory with config.yaml and checkpoints/last.pt")
        return run

    def log_metrics(self, record: dict[str, Any]) -> None:
        """Appends one record to ``metrics.jsonl``."""
        with open(self.metrics, "a", encoding="utf-8") as stream:
            stream.write(json.dumps(plain(record), allow_nan=False) + "\n")

    def truncate_metrics(self, step: int) -> None:
        """Drops records later than ``step``: a resume writes them again."""
        if not self.metrics.is_file():
            return
        lines = self.metrics.read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if _step_of(line) <= step]
        self.metrics.write_text("".join(line + "\n" for line in kept), encoding="utf-8")


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError):
        return math.inf  # half a line of a run that was killed while writing


def fresh_path(path: Path) -> Path:
    """``path``, or the first of ``stem-2.suffix``, ``stem-3.suffix``, ... that does not exist."""
    candidate, number = path, 1
    while candidate.exists():
        number += 1
        candidate = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return candidate


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


def plain(value: Any) -> Any:
    """The value with NaN and infinities as None, as JSON wants it."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
