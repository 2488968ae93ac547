"""What came of a study: a table of its rows, with the differences to the first one, as Markdown and as a picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mdg.engine.compare.bootstrap import DRAWS, Difference, paired_difference
from mdg.engine.evaluation.image_counts import ImageCounts
from mdg.engine.evaluation.result_files import Result, read_result
from mdg.engine.study.plan import Study
from mdg.errors import ConfigError, nearest
from mdg.utils.files import write_text
from mdg.utils.score_chart import Bar, score_picture


@dataclass(frozen=True)
class RowScore:
    """A row on one scored split.

    Attributes:
        name: Of the row.
        values: mIoU of its runs in per cent, by split and seed.
        difference: To the baseline, over the runs that both have; None for the baseline itself.
    """

    name: str
    values: tuple[float, ...]
    difference: Difference | None

    @property
    def mean(self) -> float:
        """Mean over the runs, NaN where there is none."""
        return float(np.mean(self.values)) if self.values else math.nan

    @property
    def std(self) -> float:
        """Standard deviation over the runs (n - 1), NaN for fewer than two."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else math.nan


def row_scores(study: Study, score: str, baseline: str | None = None) -> list[RowScore]:
    """The rows of a study on a scored split, as far as its runs are done.

    Args:
        study: The study.
        score: The split.
        baseline: Row to which differences are taken; default: the first one.

    Raises:
        ConfigError: A baseline that is no row; results that cannot be read, or that are of different images on one
            split.
    """
    baseline = baseline_row(study, baseline)
    found = {
        row: {(job.split, job.seed): read_result(job.results(score)) for job in study.of(row) if job.has(score)}
        for row in study.rows
    }
    rows = []
    for name, results in found.items():
        values = tuple(_miou(result) for result in results.values())
        rows.append(RowScore(name, values, None if name == baseline else _difference(found[baseline], results)))
    return rows


def baseline_row(study: Study, name: str | None) -> str:
    """The row to which differences are taken: the first one where none is named.

    Raises:
        ConfigError: No such row.
    """
    if name is None:
        return study.rows[0]
    if name not in study.rows:
        known = ", ".join(study.rows)
        raise ConfigError(f"{study.name} has no row '{name}'; expected one of: {known}.{nearest(name, study.rows)}")
    return name


def _miou(result: Result) -> float:
    """In per cent, under the primary rule."""
    return next(iter(result.scores.values()))


def _difference(base: dict[tuple[str, int], Result], other: dict[tuple[str, int], Result]) -> Difference | None:
    """Over the runs whose split and seed both rows have."""
    groups: dict[str, tuple[list[ImageCounts], list[ImageCounts]]] = {}
    for key in base.keys() & other.keys():
        pair = base[key].pixels, other[key].pixels
        if pair[0] is not None and pair[1] is not None:
            group = groups.setdefault(key[0], ([], []))
            group[0].append(pair[0])
            group[1].append(pair[1])
    return paired_difference([groups[split] for split in sorted(groups)]) if groups else None


def as_markdown(study: Study, baseline: str | None = None) -> str:
    """A table per scored split, with what it says and what it does not; ``baseline`` as in :func:`row_scores`."""
    baseline = baseline_row(study, baseline)
    return _markdown(study, baseline, {score: row_scores(study, score, baseline) for score in study.score})


def _markdown(study: Study, baseline: str, found: Mapping[str, Sequence[RowScore]]) -> str:
    parts = [f"## {study.name}"]
    for score, rows in found.items():
        lines = [
            f"| {score} | runs | mIoU | difference to {baseline} [95 %] | single runs |",
            "|---|---:|---:|---:|---|",
        ]
        for row in rows:
            mean = "" if math.isnan(row.mean) else f"{row.mean:.2f}"
            spread = "" if math.isnan(row.std) else f" ± {row.std:.2f}"
            single = ", ".join(f"{value:.2f}" for value in row.values)
            lines.append(f"| {row.name} | {len(row.values)} | {mean}{spread} | {row.difference or ''} | {single} |")
        parts.append("\n".join(lines))
    parts.append(
        "mIoU in per cent, mean ± standard deviation (n - 1) over the runs (splits x seeds). Differences over the runs "
        f"that both rows have; intervals by a paired bootstrap over the images, {DRAWS} draws: they say nothing of "
        "other seeds."
    )
    return "\n\n".join(parts) + "\n"


def write_report(study: Study, baseline: str | None = None) -> list[Path]:
    """Writes ``table.md`` and a picture per scored split into the study's folder; returns the files. ``baseline`` as in
    :func:`row_scores`."""
    baseline = baseline_row(study, baseline)
    found = {score: row_scores(study, score, baseline) for score in study.score}
    table = study.folder / "table.md"
    write_text(table, _markdown(study, baseline, found))
    files = [table]
    for score, rows in found.items():
        bars = [Bar(row.name, row.values, _interval(row.difference)) for row in rows if row.values]
        if bars:
            files.append(study.folder / f"{score}.png")
            score_picture(files[-1], bars, f"{study.name}: mIoU on {score}, per cent")
    return files


def _interval(difference: Difference | None) -> tuple[float, float, float] | None:
    return None if difference is None else (difference.mean, difference.low, difference.high)
