"""Results of evaluations, read back: where the file of a run lies, and what a comparison needs of it."""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from mdg.config.load import flatten
from mdg.engine.evaluation.image_counts import COUNTS, ImageCounts, read_counts
from mdg.errors import ConfigError, DataError
from mdg.metrics import Protocol
from mdg.metrics.visibility import SHOWN_IN
from mdg.utils.files import explained
from mdg.utils.limits import require_within
from mdg.utils.typed import Content, Count, Text, require

FILE = "results.json"
DEEPEST = 50  # levels of a configuration
FORMAT = 2  # 1 had no such key, no rules and no configuration
# Keys of a configuration that name, place or speed up a run and cannot change a score.
NEUTRAL = re.compile(
    r"^(seed|name|exp_dir|device|threads|log\..*|checkpoint\..*|eval\.(pictures|batch_size|objects)"
    r"|pipeline\.(workers|prefetch)|(data|pipeline)\.(\w+\.)*\w*cache\w*(\..*)?)$"
)


Scores = dict[Text, float | None]  # per cent; null where nothing counts


class _Scored(Content):
    scores: Scores

    @field_validator("scores")
    @classmethod
    def _has_a_mean(cls, scores: Scores) -> Scores:
        return _require_scores(scores, "mIoU")


class _Rule(_Scored):
    description: Text


class _ClassRow(Content):
    name: Text = Field(alias="class")
    iou: float | None


class _ConfidenceBin(Content):
    pixels: Count
    right: Count
    confidence: float  # summed over the pixels


class _Calibration(Content):
    expected_calibration_error: float | None
    bins: list[_ConfidenceBin]


class ResultContent(Content):
    """What a comparison needs of ``results.json``; :class:`~mdg.metrics.Protocol` looks at ``protocol`` itself."""

    format: int
    protocol: dict[Text, Any]
    scores: Scores
    rules: dict[Text, _Rule] = Field(min_length=1)
    groups: dict[Text, _Scored]
    per_class: list[_ClassRow] = Field(min_length=1)
    confusion_matrix: list[list[Count]]
    calibration: _Calibration | None = None
    checkpoint_sha256: Text
    seed: Annotated[int, Field(ge=0, lt=1 << 64)]
    training_processes: Count | None
    config: dict[Text, Any]

    @field_validator("scores")
    @classmethod
    def _has_its_means(cls, scores: Scores) -> Scores:
        return _require_scores(scores, "mIoU", "mAcc", "pixel_accuracy")

    @field_validator("config")
    @classmethod
    def _is_a_configuration(cls, config: dict[str, Any]) -> dict[str, Any]:
        level, depth = [config], 0
        while level := [item for value in level for item in (value.values() if isinstance(value, dict) else value)]:
            level, depth = [item for item in level if isinstance(item, (dict, list))], depth + 1
            if depth > DEEPEST:
                raise ValueError(f"nested more than {DEEPEST} levels deep")
        return config

    @model_validator(mode="after")
    def _agrees_on_the_classes(self) -> ResultContent:
        names, classes = [row.name for row in self.per_class], self.protocol.get("classes")
        if names != classes:
            raise ValueError(f"per_class lists {_some(names)}, protocol.classes says {_some(classes)}")
        return self


def _require_scores(scores: Scores, *names: str) -> Scores:
    missing = [name for name in names if name not in scores]
    if missing:
        raise ValueError(f"without {', '.join(missing)}")
    return scores


def _some(names: Any) -> str:
    return ", ".join(str(name)[:40] for name in names[:5]) if isinstance(names, list) else "no list"


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
    def pixels(self) -> ImageCounts | None:
        """The pixels of every image, where they lie beside the results; raises ConfigError for a broken file."""
        rule = next(iter(self.rules.values()))
        return read_counts(self.file.with_name(COUNTS), rule["averaged"], rule["absent"])

    @cached_property
    def rule_definitions(self) -> list[tuple[str, Any]]:
        """The rules without their scores, comparable."""
        return [
            (name, {key: value for key, value in rule.items() if key != "scores"}) for name, rule in self.rules.items()
        ]

    @cached_property
    def setting_key(self) -> str:
        """Equal for results that may share a column: of one protocol, with the same rules and conditions."""
        always = [name for name in self.scores if name.removeprefix("mIoU ") not in SHOWN_IN]
        return _hash([self.protocol.key(), self.rule_definitions, always])

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
        ConfigError: Unreadable, not such a file, or with a field of the wrong kind. DataError: written by another
            version.
    """
    content = _read_json(file)
    if not isinstance(content, dict) or "protocol" not in content or "confusion_matrix" not in content:
        raise ConfigError(f"{file}: not the results.json of tools/val_mm.py (it has no protocol and confusion matrix)")
    version = content.get("format", 1)
    if version != FORMAT and isinstance(version, int):
        wrote, checkpoint = content.get("mdg_version", "unknown"), content.get("checkpoint", "FILE")
        raise DataError(
            f"{file}: results of format {version} (mdg {str(wrote)[:40]}), this version compares {FORMAT}; evaluate "
            f"its checkpoint again: tools/val_mm.py --checkpoint {str(checkpoint)[:1000]}"
        )
    # First, as it says which version of mdg wrote less.
    protocol = Protocol.from_dict(content["protocol"], str(file)) if isinstance(content["protocol"], dict) else None
    require(ResultContent, content, file, "make it again with tools/val_mm.py", ConfigError)
    assert protocol is not None
    return Result(file, content, protocol)


def _read_json(file: Path) -> Any:
    with explained(file):
        require_within("json_bytes", file.stat().st_size, file, ConfigError)
        try:
            return json.loads(file.read_bytes(), parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)[:200]
            raise ConfigError(f"{file}: not a readable results.json ({reason})") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")
