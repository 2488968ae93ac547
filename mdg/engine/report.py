"""Tables for the terminal and the results of an evaluation on disk."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from rich.table import Table

from mdg.engine.evaluator import Evaluation
from mdg.metrics import Protocol
from mdg.utils.run_directory import plain


def score_table(evaluation: Evaluation, protocol: Protocol) -> Table:
    """Per-class scores in per cent, the means, day and night apart, and the protocol below."""
    table = Table(
        title=f"{protocol.dataset}, {protocol.split}: mIoU {_cell(evaluation.means()['mIoU'])}",
        caption=protocol.summary(),
        caption_justify="left",
        title_justify="left",
    )
    columns = ["IoU", "Acc", "Prec", "F1"]
    groups = list(evaluation.groups)
    for name in ["class", *columns, *[f"IoU {group}" for group in groups], "pixels"]:
        table.add_column(name, justify="left" if name == "class" else "right", no_wrap=True)
    matrix = evaluation.confusion
    scores = [
        matrix.iou(),
        matrix.accuracy(),
        matrix.precision(),
        matrix.f1(),
        *[evaluation.groups[group].iou() for group in groups],
    ]
    labelled = matrix.counts.sum(axis=1)
    for k, name in enumerate(protocol.classes):
        table.add_row(
            name, *[_cell(score[k]) for score in scores], f"{labelled[k]:,}", end_section=k == len(protocol.classes) - 1
        )
    means = matrix.means()
    table.add_row(
        "mean",
        _cell(means["mIoU"]),
        _cell(means["mAcc"]),
        "",
        _cell(means["mF1"]),
        *[_cell(evaluation.groups[group].means()["mIoU"]) for group in groups],
        f"{labelled.sum():,}",
    )
    table.add_row("pixel accuracy", "", _cell(means["pixel_accuracy"]), "", "", *[""] * len(groups), "")
    return table


def _cell(fraction: float) -> str:
    return "NaN" if math.isnan(fraction) else f"{100 * fraction:.2f}"


def write_json(file: Path, content: dict[str, Any]) -> None:
    """Writes JSON beside ``file`` and renames it there; NaN becomes null."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(file.name + ".partial")
    partial.write_text(json.dumps(plain(content), indent=2, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(partial, file)
