"""Runs side by side: mean and standard deviation over seeds, and never two protocols in one column.

Results whose configurations are equal but for the seed (and for what cannot change a score) form a *row*. Results of
equal protocols and scoring rules share a *setting*, whose columns hold the scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mdg.config.load import differences
from mdg.engine.compare.bootstrap import Difference, paired_difference
from mdg.engine.evaluation.result_files import Result, find_result, read_result
from mdg.errors import ConfigError
from mdg.metrics import Protocol


@dataclass(frozen=True)
class Cell:
    """Mean over ``count`` seeds and their standard deviation (n - 1; None for one seed); NaN stays NaN."""

    mean: float
    std: float | None
    count: int


@dataclass
class Setting:
    """A protocol with its scoring rules, under a number; ``differs`` names what sets it apart from the first one."""

    number: int
    example: Result
    differs: list[str] = field(default_factory=list)

    @property
    def protocol(self) -> Protocol:
        """The protocol; its epoch is that of one of the runs."""
        return self.example.protocol

    def metrics(self, per_class: bool = False) -> list[str]:
        """Names of its scores."""
        return [*self.example.scores, *(self.example.class_scores if per_class else [])]

    def lines(self) -> list[str]:
        """The protocol in words, the rules, and what sets it apart, with both values, from the first setting."""
        rules = [f"{name}: {rule['description']}" for name, rule in self.example.rules.items()]
        return [self.protocol.text(), *rules[1:], *self.differs]


@dataclass
class Row:
    """Results that differ in the seed only; ``differs`` says in which settings they do not equal the first row."""

    letter: str
    results: list[Result]
    differs: dict[str, tuple[Any, Any]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of the run in its configuration."""
        return str(self.results[0].config.get("name", "run"))

    @property
    def seeds(self) -> list[int]:
        """Its seeds, sorted."""
        return sorted({result.seed for result in self.results})

    def of(self, setting: Setting) -> list[Result]:
        """Its results in a setting, one per seed."""
        return [result for result in self.results if result.setting_key == setting.example.setting_key]

    def cell(self, setting: Setting, metric: str) -> Cell | None:
        """Its score in a column; None where it has no result in that setting."""
        scores = [{**result.scores, **result.class_scores} for result in self.of(setting)]
        values = [score[metric] for score in scores if metric in score]  # objects are scored apart where asked for
        if not values:
            return None
        std = float(np.std(values, ddof=1)) if len(values) > 1 else None
        return Cell(float(np.mean(values)), std, len(values))


@dataclass(frozen=True)
class Comparison:
    """Rows and settings, in the order in which they were given."""

    rows: list[Row]
    settings: list[Setting]
    _found: dict[tuple[str, int], Difference | None] = field(default_factory=dict, repr=False, compare=False)

    def difference(self, row: Row, setting: Setting) -> Difference | None:
        """Primary mIoU of a row minus that of the first row, with its interval over the images; None for the first row,
        and where results of one of them are missing or come from a version that kept no pixels of images."""
        key = row.letter, setting.number
        if key not in self._found:  # thousands of draws, for the table, the notes and every file
            self._found[key] = self._draw_difference(row, setting)
        return self._found[key]

    def _draw_difference(self, row: Row, setting: Setting) -> Difference | None:
        pairs = [[result.pixels for result in one.of(setting)] for one in (self.rows[0], row)]
        first, other = ([counts for counts in results if counts is not None] for results in pairs)
        if row is self.rows[0] or not first or [len(first), len(other)] != [len(results) for results in pairs]:
            return None
        return paired_difference([(first, other)]) if other else None

    def columns(self, per_class: bool = False) -> list[tuple[Setting, str]]:
        """Every score of every setting."""
        return [(setting, metric) for setting in self.settings for metric in setting.metrics(per_class)]


def compare(runs: Sequence[str | Path], split: str = "test") -> Comparison:
    """Compares results.

    Args:
        runs: Run directories (the newest results of ``split`` count), results folders or ``results.json`` files.
        split: Role of the split to take from run directories.

    Raises:
        ConfigError: No or unreadable results, the same result twice, or seeds of one row under different protocols.
        DataError: Results of an older version.
    """
    if not runs:
        raise ConfigError("nothing to compare: name run directories, results folders or results.json files")
    results = [read_result(find_result(Path(run), split)) for run in runs]
    _refuse_duplicates(results)
    settings = _settings(results)
    rows = _rows(results)
    for row in rows:
        _refuse_mixed_seeds(row, settings)
    return Comparison(rows, settings)


def _refuse_duplicates(results: Sequence[Result]) -> None:
    for what, key in (
        ("the same file", lambda result: result.file.resolve()),
        ("the same checkpoint", lambda result: (result.checkpoint, result.setting_key)),
        ("the same configuration and seed", lambda result: (result.row_key, result.seed, result.setting_key)),
    ):
        seen: dict[Any, Result] = {}
        for result in results:
            other = seen.setdefault(key(result), result)
            if other is not result:
                raise ConfigError(
                    f"{result.file}: {what} (seed {result.seed}) as {other.file}; counted twice it would make the "
                    "deviation too small: leave one of them out"
                )


def _settings(results: Sequence[Result]) -> list[Setting]:
    settings: dict[str, Setting] = {}
    for result in results:
        setting = settings.setdefault(result.setting_key, Setting(len(settings) + 1, result))
        if len(result.scores) > len(setting.example.scores):
            setting.example = result  # it names every column
    first = next(iter(settings.values()))
    for setting in settings.values():
        setting.differs = _differing(setting.example, first.example, f"[{first.number}]")
    return list(settings.values())


def _differing(one: Result, other: Result, name: str) -> list[str]:
    lines = [
        f"{key}: {_short(getattr(one.protocol, key))}; {name}: {_short(getattr(other.protocol, key))}"
        for key in one.protocol.comparable_with(other.protocol)
    ]
    if one.rule_definitions != other.rule_definitions:
        lines.append(f"rules: {_rules_text(one)}; {name}: {_rules_text(other)}")
    return [f"differs from {name} in {line}" for line in lines]


def _rules_text(result: Result) -> str:
    return " | ".join(f"{name}: {rule['description']}" for name, rule in result.rules.items())


def _short(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _rows(results: Sequence[Result]) -> list[Row]:
    members: dict[str, list[Result]] = {}
    for result in results:
        members.setdefault(result.row_key, []).append(result)
    rows = [Row(letter(place), found) for place, found in enumerate(members.values())]
    for row in rows:
        row.results.sort(key=lambda result: result.seed)
        row.differs = differences(rows[0].results[0].compared_config, row.results[0].compared_config)
    return rows


def letter(place: int) -> str:
    """a, b, ... z, aa, ab, ..."""
    head, tail = divmod(place, 26)
    return (letter(head - 1) if head else "") + chr(ord("a") + tail)


def _refuse_mixed_seeds(row: Row, settings: Sequence[Setting]) -> None:
    present = [setting for setting in settings if row.of(setting)]
    seeds = {setting.number: {result.seed for result in row.of(setting)} for setting in present}
    if len({frozenset(found) for found in seeds.values()}) <= 1:
        return
    one, other = present[0], next(s for s in present if seeds[s.number] != seeds[present[0].number])
    fields = _differing(other.example, one.example, str(one.example.file))
    listed = "; ".join(f"{s.example.file} has seeds {sorted(seeds[s.number])}" for s in (one, other))
    raise ConfigError(
        f"the seeds of '{row.name}' were not scored alike, so they have no common mean ({listed}). "
        f"{other.example.file} {'; '.join(fields)}. Evaluate all seeds in the same way, or leave some out"
    )
