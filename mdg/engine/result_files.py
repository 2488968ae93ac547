"""Results of evaluations, read back: where the file of a run lies, and what a comparison needs of it."""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mdg.errors import ConfigError, DataError
from mdg.metrics import Protocol
from mdg.utils.trees import flatten

FILE = "results.json"
FORMAT = 2  # 1 had no such key, no rules and no configuration
# Keys of a configuration that name, place or speed up a run and cannot change a score.
NEUTRAL = re.compile(
    r"^(seed|name|exp_dir|device|threads|log\..*|checkpoint\..*|eval\.(pictures|batch_size)"
    r"|pipeline\.(workers|prefetch)|(data|pipeline)\.(\w+\.)*\w*cache\w*(\..*)?)$"
)


@dataclass(frozen=True)
class Result:
    """The content of one ``results.json``; scores in per cent, NaN where nothing counts."""

    file: Path
    content: dict[str, Any]
    protocol: Protocol

    @property
    def config(self) -> dict[str, Any]:
        """The resolved configuration of the run."""
        return self.content["config"]

    @property
    def seed(self) -> int:
        """Seed of the run."""
        return self.content["seed"]

    @property
    def checkpoint(self) -> str:
        """Hash of the checkpoint."""
        return self.content["checkpoint_sha256"]

    @property
    def rules(self) -> dict[str, dict[str, Any]]:
        """Scoring rules by name; the primary one first."""
        return self.content["rules"]

    @cached_property
    def scores(self) -> dict[str, float]:
        """mIoU under every rule; then mean accuracy, pixel accuracy and the mIoU of groups under the primary one."""
        rules = {f"mIoU ({name})": rule["scores"]["mIoU"] for name, rule in self.rules.items()}
        primary = self.content["scores"]
        groups = {f"mIoU {name}": group["scores"]["mIoU"] for name, group in self.content["groups"].items()}
        scores = {**rules, "mAcc": primary["mAcc"], "pixel accuracy": primary["pixel_accuracy"], **groups}
        return {name: _number(value) for name, value in scores.items()}

    @cached_property
    def class_scores(self) -> dict[str, float]:
        """ "IoU car" and so on."""
        return {f"IoU {row['class']}": _number(row["iou"]) for row in self.content["per_class"]}

    @cached_property
    def rule_definitions(self) -> list[tuple[str, Any]]:
        """The rules without their scores, comparable."""
        return [
            (name, {key: value for key, value in rule.items() if key != "scores"}) for name, rule in self.rules.items()
        ]

    @cached_property
    def setting_key(self) -> str:
        """Equal for results that may share a column: of one protocol, with the same rules and groups."""
        return _hash([self.protocol.key(), self.rule_definitions, list(self.scores)])

    @cached_property
    def compared_config(self) -> dict[str, Any]:
        """The configuration by dotted path, without what cannot change a score."""
        flat = {path: value for path, value in flatten(self.config).items() if not NEUTRAL.match(path)}
        return {**flat, "(training processes)": self.content["training_processes"]}

    @cached_property
    def row_key(self) -> str:
        """Equal for runs that differ in the seed only."""
        return _hash(sorted(self.compared_config.items()))


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)  # JSON has no NaN


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def find_result(run: Path, split: str) -> Path:
    """The results file of a run directory (the newest of ``split``), of a results folder, or the file itself.

    Raises:
        ConfigError: None there; the message says what is.
    """
    if run.is_file():
        return run
    if (run / FILE).is_file():
        return run / FILE
    folders = [folder for folder in run.glob("results/*") if (folder / FILE).is_file()]
    wanted = {folder: _number_of(folder.name, split) for folder in folders}
    found = [folder for folder, number in wanted.items() if number is not None]
    if not found:
        here = ", ".join(sorted(f"results/{folder.name}" for folder in folders)) or "no results"
        raise ConfigError(
            f"{run}: expected results.json, or results/{split}/results.json of a run directory, found {here}; make "
            f"them with tools/val_mm.py --checkpoint {run / 'checkpoints' / 'best.pt'} --split {split}"
        )
    return max(found, key=lambda folder: ((folder / FILE).stat().st_mtime_ns, wanted[folder])) / FILE


def _number_of(name: str, split: str) -> int | None:
    """1 for ``test``, 2 for ``test-2``: the folders that evaluations of a split make; None for another."""
    match = re.fullmatch(re.escape(split) + r"(?:-(\d+))?", name)
    return int(match[1] or 1) if match else None


def read_result(file: Path) -> Result:
    """Reads ``results.json``.

    Raises:
        ConfigError: Unreadable, or not such a file. DataError: written by another version.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file}: not a readable results.json ({error})") from None
    if not isinstance(content, dict) or "protocol" not in content or "confusion_matrix" not in content:
        raise ConfigError(f"{file}: not the results.json of tools/val_mm.py (it has no protocol and confusion matrix)")
    if content.get("format") != FORMAT:
        raise DataError(
            f"{file}: results of format {content.get('format', 1)} (mdg {content.get('mdg_version', 'unknown')}), this "
            f"version compares {FORMAT}; evaluate its checkpoint again: tools/val_mm.py --checkpoint "
            f"{content.get('checkpoint', 'FILE')}"
        )
    return Result(file, content, Protocol.from_dict(content["protocol"], str(file)))
