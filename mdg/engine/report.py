"""The table of scores that an evaluation shows."""

from __future__ import annotations

import math

from rich.table import Table
from rich.text import Text

from mdg.engine.evaluation.scores import Evaluation
from mdg.metrics import Protocol, ScoringRule


def score_table(evaluation: Evaluation, protocol: Protocol) -> Table:
    """Scores in per cent: a row per class as the primary rule counts it, a row per rule, and the protocol below."""
    groups = list(evaluation.groups)
    rules = [f"{rule.name}: {rule.describe()}" for rule in evaluation.rules if len(evaluation.rules) > 1]
    table = Table(
        title=Text(headline(evaluation, protocol)),
        caption=Text("\n".join([protocol.summary(), *rules])),
        caption_justify="left",
        title_justify="left",
    )
    for name in ["class", "IoU", "Acc", "Prec", "F1", *[f"IoU {group}" for group in groups], "pixels"]:
        table.add_column(name, justify="left" if name == "class" else "right", no_wrap=True)
    _add_classes(table, evaluation)
    for rule in evaluation.rules:
        means = evaluation.means(rule)
        apart = [_cell(evaluation.means(rule, group)["mIoU"]) for group in groups]
        pixels = rule.restrict(evaluation.confusion, evaluation.classes).counts.sum()
        iou, accuracy, f1 = (_cell(means[name]) for name in ("mIoU", "mAcc", "mF1"))
        table.add_row(rule.name, iou, accuracy, "", f1, *apart, f"{pixels:,}")
    for name, accuracy in _pixel_accuracies(evaluation).items():
        table.add_row(name, "", _cell(accuracy), "", "", *[""] * len(groups), "")
    return table


def headline(evaluation: Evaluation, protocol: Protocol) -> str:
    """Data set, split and primary score, and in capitals what makes it no honest test."""
    score = f"mIoU {_cell(evaluation.means()['mIoU'])} ({evaluation.rules[0].name})"
    return "; ".join([f"{protocol.dataset}, {protocol.split}: {score}", *protocol.warnings()])


def _add_classes(table: Table, evaluation: Evaluation) -> None:
    matrix = evaluation.counted()
    scores = [matrix.iou(), matrix.accuracy(), matrix.precision(), matrix.f1()]
    scores += [evaluation.counted(group).iou() for group in evaluation.groups]
    labelled = evaluation.confusion.counts.sum(axis=1)
    for k, name in enumerate(evaluation.classes):
        last = k == len(evaluation.classes) - 1
        table.add_row(name, *[_cell(score[k]) for score in scores], f"{labelled[k]:,}", end_section=last)


def _pixel_accuracies(evaluation: Evaluation) -> dict[str, float]:
    # It differs between rules only where they ignore different classes.
    by_ignored: dict[tuple[str, ...], list[ScoringRule]] = {}
    for rule in evaluation.rules:
        by_ignored.setdefault(rule.ignored, []).append(rule)
    if len(by_ignored) == 1:
        return {"pixel accuracy": evaluation.means()["pixel_accuracy"]}
    return {
        f"pixel accuracy ({', '.join(rule.name for rule in rules)})": evaluation.means(rules[0])["pixel_accuracy"]
        for rules in by_ignored.values()
    }


def _cell(fraction: float) -> str:
    return "NaN" if math.isnan(fraction) else f"{100 * fraction:.2f}"
