"""Scores of a run as what the page lays out: key numbers, bars per class, the confusion matrix, what sets runs apart.

Legend: K classes; rows of a confusion matrix are labels, columns predictions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from mdg.engine.compare.comparison import Comparison, Setting
from mdg.engine.compare.tables import cell_text, row_name
from mdg.engine.evaluation.result_files import Result
from mdg.engine.run_report.runs import number
from mdg.metrics.visibility import SHOWN_IN

MOST_CONFUSED = 5  # pairs of classes that are named
WORTH_NAMING = 1.0  # per cent of the labelled pixels of a class
LEGIBLE = 70  # per cent; darker cells carry white text


@dataclass(frozen=True)
class ClassRow:
    """A class: name, what is to be said of it, and its IoU in per cent over all frames and per group (None: absent)."""

    name: str
    note: str
    values: list[float | None]


@dataclass(frozen=True)
class Cell:
    """A cell of the confusion matrix: per cent of the row, as text, and whether the text is white."""

    share: float
    text: str
    white: bool


@dataclass(frozen=True)
class ConfusionTable:
    """The matrix as it is shown.

    Attributes:
        classes: Names of the columns.
        rows: Name, labelled pixels and cells of every row; no cells for a class without labelled pixels.
        confused: The largest confusions in words.
    """

    classes: list[str]
    rows: list[tuple[str, int, list[Cell]]]
    confused: list[str]


def key_numbers(result: Result) -> dict[str, Any]:
    """What stands on top of a split: scores, protocol, and what makes it no honest test."""
    scores = result.content["scores"]
    return {
        "split": result.protocol.role,
        "dataset": result.protocol.dataset,
        "numbers": [
            (name, percent(number(scores.get(key))))
            for name, key in (("mIoU", "mIoU"), ("mAcc", "mAcc"), ("pixel accuracy", "pixel_accuracy"))
        ],
        "rule": result.protocol.rule,
        "others": [(name, percent(number(rule["scores"]["mIoU"]))) for name, rule in list(result.rules.items())[1:]],
        "groups": [
            (name, percent(number(group["scores"]["mIoU"]))) for name, group in result.content["groups"].items()
        ],
        "warnings": result.protocol.warnings(),
        "protocol": result.protocol.summary(),
        "folder": str(result.file.parent),
    }


def percent(value: float | None) -> str:
    """ "71.57", and a dash for what does not exist."""
    return "–" if value is None or math.isnan(value) else f"{value:.2f}"


def groups_of(result: Result) -> list[str]:
    """Names of its conditions (day, night)."""
    return [name for name in result.content["groups"] if name not in SHOWN_IN]


def class_rows(result: Result) -> list[ClassRow]:
    """A row per class under the primary rule."""
    groups = [_group_iou(result.content["groups"][name]) for name in groups_of(result)]
    rows = []
    for row in result.content["per_class"]:
        name = row["class"]
        ignored = "ignored" if name in result.protocol.ignored_classes else ""
        note = ignored or ("" if name in result.protocol.averaged_classes else "not averaged")
        rows.append(ClassRow(name, note, [number(row["iou"]), *[group.get(name) for group in groups]]))
    return rows


def _group_iou(group: dict[str, Any]) -> dict[str, float | None]:
    """IoU by class; nothing where the file says it otherwise."""
    rows = group.get("per_class")
    rows = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    return {str(row.get("class")): number(row.get("iou")) for row in rows}


def confusion_table(result: Result) -> ConfusionTable | None:
    """The matrix with rows in per cent; None where it does not have a row and a column for every class."""
    classes = list(result.protocol.classes)
    matrix = result.content["confusion_matrix"]
    if [len(row) for row in matrix] != [len(classes)] * len(classes):
        return None
    counts_KK = np.array(matrix, np.float64)
    labelled_K = counts_KK.sum(axis=1)
    share_KK = 100 * counts_KK / np.maximum(labelled_K, 1)[:, None]
    rows = [
        (name, int(labelled_K[k]), [_cell(float(share)) for share in share_KK[k]] if labelled_K[k] else [])
        for k, name in enumerate(classes)
    ]
    return ConfusionTable(classes, rows, _confused(share_KK, classes))


def _cell(share: float) -> Cell:
    text = "" if share < 0.05 else f"{share:.0f}" if share >= 99.95 else f"{share:.1f}"
    return Cell(share, text, share > LEGIBLE)


def _confused(share_KK: np.ndarray, classes: list[str]) -> list[str]:
    wrong_KK = share_KK - np.diag(np.diag(share_KK))
    order = np.argsort(-wrong_KK, axis=None, kind="stable")[:MOST_CONFUSED]
    places = [divmod(int(place), len(classes)) for place in order]
    return [
        f"{wrong_KK[label, guess]:.1f} % of the pixels of {classes[label]} are taken for {classes[guess]}"
        for label, guess in places
        if wrong_KK[label, guess] >= WORTH_NAMING
    ]


def interval_rows(comparison: Comparison, setting: Setting) -> list[dict[str, Any]]:
    """mIoU of every row, and its difference to the first one as text and as places on an axis, in per cent of its width
    with zero in the middle; a row that has no results in the setting is left out."""
    found = [(row, comparison.difference(row, setting)) for row in comparison.rows if row.of(setting)]
    ends = [abs(end) for _, difference in found if difference for end in (difference.low, difference.high)]
    reach = max([*ends, 1e-9])
    rows = []
    for row, difference in found:
        places = None
        if difference is not None:
            low, middle, high = (50 + 48 * x / reach for x in (difference.low, difference.mean, difference.high))
            places = {"low": round(low, 2), "width": round(high - low, 2), "middle": round(middle, 2)}
        rows.append(
            {
                "name": row_name(row),
                "score": cell_text(row.cell(setting, setting.metrics()[0])),
                "difference": str(difference or ""),
                "places": places,
                "sure": difference is not None and (difference.low > 0 or difference.high < 0),
            }
        )
    return rows
