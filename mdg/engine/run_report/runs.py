"""A run directory read back, as far as it is there: a run that has just begun has no results, an old one no log."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mdg.config.yaml_tree import parse_yaml
from mdg.data.base import ROLES
from mdg.engine.evaluation.result_files import Result, find_result, read_result
from mdg.errors import ConfigError, UserError
from mdg.utils.files import explained, file_sha256
from mdg.utils.limits import require_within
from mdg.utils.run_directory import RunDirectory

Record = dict[str, Any]
MARKS = ("config.yaml", "metrics.jsonl", "results")  # what tells a run directory from another folder
FIRST = ("test", "val", "train")  # the split that is shown where nobody names one
MOST_STEPS = 1 << 53  # beyond it floats leave out whole numbers


@dataclass
class Run:
    """What lies in a run directory.

    Attributes:
        folder: The directory.
        name: Name of the run in its configuration, else that of the folder.
        seed: Its seed, where the configuration says it.
        config: ``config.yaml`` as it is, None where there is none.
        environments: Content of ``environment.json`` and, where the run was continued elsewhere, of its later ones.
        train, evals: Records of ``metrics.jsonl``, in order of their steps.
        results: The newest results of every scored split, by role.
        problems: What could not be read, in words.
    """

    folder: Path
    name: str
    seed: int | None = None
    config: str | None = None
    environments: dict[str, Record] = field(default_factory=dict)
    train: list[Record] = field(default_factory=list)
    evals: list[Record] = field(default_factory=list)
    results: dict[str, Result] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def files(self) -> RunDirectory:
        """Its paths."""
        return RunDirectory(self.folder)

    def scoring_command(self, split: str) -> str | None:
        """The command that makes results of a split; None while there is no checkpoint."""
        checkpoint = self.files.best_or_last
        if checkpoint is None:
            return None
        return f"python tools/val_mm.py --checkpoint {shlex.quote(str(checkpoint))} --split {split}"

    def scored_checkpoint(self, result: Result) -> tuple[Path, bool]:
        """The checkpoint that was scored, and whether it is: where it is gone, the best (else the last) one.

        Raises:
            ConfigError: The run has no checkpoint.
        """
        run = self.files
        there = [file for file in (run.best, run.last, run.previous, run.best_of_epochs) if file.is_file()]
        if not there:
            raise ConfigError(f"{self.folder / 'checkpoints'}: no checkpoint to predict with")
        scored = next((file for file in there if file_sha256(file) == result.checkpoint), None)
        return scored or there[0], scored is not None


def read_run(folder: Path) -> Run:
    """Reads a run directory; a file that cannot be read is one of its ``problems``.

    Raises:
        ConfigError: It is no run directory.
    """
    if not folder.is_dir() or not any((folder / name).exists() for name in MARKS):
        raise ConfigError(
            f"{folder}: expected a run directory, which holds {', '.join(MARKS)}; name one that tools/train.py made"
        )
    run = Run(folder, folder.resolve().name)
    for read in (_read_config, _read_environments, _read_metrics, _read_results):
        try:
            read(run)
        except UserError as error:
            run.problems.append(str(error))
    return run


def _read_config(run: Run) -> None:
    if not run.files.config.is_file():
        return
    run.config = _text(run.files.config, "yaml_bytes")
    values = parse_yaml(run.config, str(run.files.config)).values
    run.name = str(values.get("name") or run.name)
    seed = values.get("seed")
    run.seed = seed if type(seed) is int else None


def _read_environments(run: Run) -> None:
    for file in sorted(run.folder.glob("environment*.json"), key=_step_of):
        try:
            content = json.loads(_text(file, "json_bytes"))
        except (ValueError, RecursionError) as error:
            if isinstance(error, UserError):
                raise
            raise ConfigError(f"{file}: not readable ({type(error).__name__})") from None
        if not isinstance(content, dict):
            raise ConfigError(f"{file}: expected a mapping")
        run.environments[file.name] = content


def _step_of(file: Path) -> int:
    """0 of ``environment.json``, 300 of ``environment-from-step-300.json``."""
    number = file.stem.rpartition("-")[2]
    return int(number[:18]) if number.isascii() and number.isdigit() else 0


def _read_metrics(run: Run) -> None:
    if not run.files.metrics.is_file():
        return
    lost = 0
    for line in _text(run.files.metrics, "json_bytes").splitlines():
        record = _record(line)
        if record is None:
            lost += bool(line.strip())
        elif record["kind"] in ("train", "eval"):
            (run.train if record["kind"] == "train" else run.evals).append(record)
    run.train.sort(key=_step)
    run.evals.sort(key=_step)
    if lost:
        run.problems.append(f"{run.files.metrics}: {lost} lines are no records and left out")


def _record(line: str) -> Record | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):  # half a line of a run that was killed while writing
        return None
    if not isinstance(record, dict) or not isinstance(record.get("kind"), str):
        return None
    step = record.get("step")
    return record if type(step) is int and 0 <= step < MOST_STEPS else None


def _step(record: Record) -> int:
    return record["step"]


def _read_results(run: Run) -> None:
    for role in ROLES:
        try:
            file = find_result(run.folder, role)
        except ConfigError:  # not scored
            continue
        try:
            run.results[role] = read_result(file)
        except UserError as error:
            run.problems.append(str(error))


def _text(file: Path, limit: str) -> str:
    with explained(file):
        require_within(limit, file.stat().st_size, file, ConfigError)
        return file.read_bytes().decode("utf-8", "replace")


def number(value: Any) -> float | None:
    """A finite number of a record; None for everything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # an integer beyond all floats
        return None


def labels(runs: Sequence[Run]) -> list[str]:
    """A name for every run that no other has: its name, with the seed, and with the folder where it takes that."""
    plain = [run.name for run in runs]
    seeded = [
        name if plain.count(name) == 1 else f"{name} (seed {run.seed})" for name, run in zip(plain, runs, strict=True)
    ]
    return [
        name if seeded.count(name) == 1 else f"{name}, {run.folder}" for name, run in zip(seeded, runs, strict=True)
    ]


def split_to_show(runs: Sequence[Run], wanted: str | None) -> str:
    """The split asked for; else test where a run has results of it, else the first of val and train."""
    return wanted or next((split for split in FIRST if any(split in run.results for run in runs)), FIRST[0])
