"""What an evaluation counted, every score that follows from it, and the table that shows them.

Legend: N images, K classes, S = K + 2 scores of an image, 3: pixels right, labelled, predicted, H W size of a label.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from rich.table import Table
from rich.text import Text
from torch import Tensor

from mdg.data import RGBTDataset
from mdg.engine.distributed import World
from mdg.metrics import ConfusionMatrix, ImageScores, Protocol, ScoringRule
from mdg.metrics.reliability import Reliability
from mdg.metrics.scoring import image_pixels, image_scores, score_image
from mdg.metrics.visibility import NO_OBJECT, SHOWN_IN


@dataclass
class Evaluation:
    """Counts of one split, and the rules that turn them into scores.

    Attributes:
        classes: Names of the classes.
        rules: Scoring rules; the first is the primary one.
        confusion: Matrix over all classes, before any rule.
        groups: A matrix per condition (day, night) where the data set tells them apart, and per kind of object
            (:data:`mdg.metrics.visibility.SHOWN_IN`) where they were scored apart: everything but the other kinds.
        per_image: Scores of every image under the primary rule.
        pixels_NK3: int64, the pixels of every image that are right, labelled and predicted under it.
        images: Number of images counted.
        seconds: Time it took this process.
        reliability: Whether it is right as often as it says, over the pixels that the primary rule counts; None where
            that was not measured.
    """

    classes: tuple[str, ...]
    rules: tuple[ScoringRule, ...]
    confusion: ConfusionMatrix
    groups: dict[str, ConfusionMatrix]
    per_image: ImageScores
    pixels_NK3: np.ndarray
    images: int
    seconds: float = 0.0
    reliability: Reliability | None = None

    def means(self, rule: ScoringRule | None = None, group: str | None = None) -> dict[str, float]:
        """mIoU, mAcc, mF1 and pixel accuracy as fractions, under the primary rule and over all images by default."""
        confusion = self.confusion if group is None else self.groups[group]
        return (rule or self.rules[0]).means(confusion, self.classes)

    def counted(self, group: str | None = None) -> ConfusionMatrix:
        """The matrix as the primary rule counts it: without the labelled pixels of the classes it ignores."""
        return self.rules[0].restrict(self.confusion if group is None else self.groups[group], self.classes)

    def as_dict(self, protocol: Protocol) -> dict[str, Any]:
        """Everything but the single images, as plain values for ``results.json``; scores in per cent."""
        return {
            "protocol": protocol.as_dict(),
            "scores": percent(self.means()),
            "rules": {rule.name: {**rule.as_dict(), "scores": percent(self.means(rule))} for rule in self.rules},
            "per_class": per_class(self.counted(), self.classes),
            "groups": {group: self._group(group) for group in self.groups},
            "images": self.images,
            "confusion_matrix": self.confusion.counts.tolist(),
            **({} if self.reliability is None else {"calibration": self.reliability.as_dict()}),
        }

    def _group(self, group: str) -> dict[str, Any]:
        return {
            "scores": percent(self.means(group=group)),
            "rules": {rule.name: {"scores": percent(self.means(rule, group))} for rule in self.rules},
            "per_class": per_class(self.counted(group), self.classes),
            "confusion_matrix": self.groups[group].counts.tolist(),
        }


def percent(scores: dict[str, float]) -> dict[str, float]:
    """Fractions as per cent, unrounded."""
    return {name: 100 * value for name, value in scores.items()}


def per_class(confusion: ConfusionMatrix, names: Sequence[str]) -> list[dict[str, Any]]:
    """IoU, accuracy, precision and F1 in per cent and the labelled pixels, one record per class."""
    columns = {
        "iou": confusion.iou(),
        "accuracy": confusion.accuracy(),
        "precision": confusion.precision(),
        "f1": confusion.f1(),
    }
    labelled = confusion.counts.sum(axis=1)
    return [
        {"class": name, **{key: 100 * float(value[k]) for key, value in columns.items()}, "pixels": int(labelled[k])}
        for k, name in enumerate(names)
    ]


class Tally:
    """Counts images of a split in this process; :meth:`gather` adds up all processes."""

    def __init__(self, dataset: RGBTDataset, objects: bool = False, reliability: Reliability | None = None):
        self.dataset, self.classes, self.rules = dataset, tuple(dataset.classes), dataset.scoring_rules()
        conditions = sorted({c for c in map(dataset.condition, range(len(dataset))) if c})
        kinds = SHOWN_IN if objects else ()
        self._matrices = {name: ConfusionMatrix(len(self.classes)) for name in ["", *conditions, *kinds]}
        # Every image belongs to one process and is zero in all others, so that a sum brings them together.
        self._rows_NS = np.zeros((len(dataset), len(self.classes) + 2))
        self._pixels_NK3 = np.zeros((len(dataset), len(self.classes), 3), np.int64)
        self._seen_N = np.zeros(len(dataset), np.int64)
        self._reliability = reliability

    @property
    def images(self) -> int:
        """Images counted so far by this process."""
        return int(self._seen_N.sum())

    def add(
        self,
        index: int,
        prediction_HW: Tensor,
        label_HW: Tensor,
        shown_HW: Tensor | None = None,
        confidence_HW: Tensor | None = None,
    ) -> None:
        """Counts image ``index`` of the data set; class ids on one device. ``shown_HW`` says which modality shows the
        object of a pixel (:func:`mdg.metrics.visibility.visibility`), to score the kinds of objects apart;
        ``confidence_HW`` is the probability of what was predicted, where reliability is measured."""
        counts_KK = self._matrices[""].update(prediction_HW, label_HW, self.dataset.ignore_index)
        if condition := self.dataset.condition(index):
            self._matrices[condition].counts += counts_KK
        if shown_HW is not None:
            for kind, name in enumerate(SHOWN_IN):
                others_HW = (shown_HW != kind) & (shown_HW != NO_OBJECT)
                label_of_kind_HW = label_HW.masked_fill(others_HW, self.dataset.ignore_index)
                self._matrices[name].update(prediction_HW, label_of_kind_HW, self.dataset.ignore_index)
        if self._reliability is not None:
            assert confidence_HW is not None
            ignored_HW = self.rules[0].leaves_out(label_HW, self.classes, self.dataset.ignore_index)
            self._reliability.update(confidence_HW, prediction_HW, label_HW, ignored_HW)
        self._rows_NS[index] = score_image(counts_KK, self.rules[0], self.classes)
        self._pixels_NK3[index] = image_pixels(counts_KK, self.rules[0], self.classes)
        self._seen_N[index] += 1

    def gather(self, world: World, seconds: float) -> Evaluation:
        """The evaluation of all processes together, the same in each of them."""
        stacked = np.stack([matrix.counts for matrix in self._matrices.values()])
        parts = (stacked, self._rows_NS, self._pixels_NK3, self._seen_N)
        counts_GKK, rows_NS, pixels_NK3, seen_N = (_sum(world, part) for part in parts)
        rows_NS[seen_N == 0] = np.nan
        matrices = {
            name: ConfusionMatrix(len(self.classes), counts_KK)
            for name, counts_KK in zip(self._matrices, counts_GKK, strict=True)
        }
        whole = matrices.pop("")
        scores, images = image_scores(rows_NS), int(seen_N.sum())
        reliability = self._reliability
        if reliability is not None:
            counts_B3 = _sum(world, reliability.counts_B3)
            reliability = Reliability(temperature=reliability.temperature, counts=counts_B3)
        return Evaluation(self.classes, self.rules, whole, matrices, scores, pixels_NK3, images, seconds, reliability)


def _sum(world: World, array: np.ndarray) -> np.ndarray:
    return world.sum(torch.from_numpy(array.copy()).to(world.device)).cpu().numpy()


def score_table(evaluation: Evaluation, protocol: Protocol) -> Table:
    """Scores in per cent: a row per class as the primary rule counts it, a row per rule, and the protocol below."""
    groups = [group for group in evaluation.groups if group not in SHOWN_IN]
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
    for kind in filter(evaluation.groups.__contains__, SHOWN_IN):
        iou, accuracy, f1 = (_cell(evaluation.means(group=kind)[name]) for name in ("mIoU", "mAcc", "mF1"))
        pixels = evaluation.groups[kind].counts.sum()
        table.add_row(kind, iou, accuracy, "", f1, *[""] * len(groups), f"{pixels:,}")
    for name, share in _pixel_accuracies(evaluation).items():
        table.add_row(name, "", _cell(share), "", "", *[""] * len(groups), "")
    return table


def calibration_text(reliability: Reliability) -> str:
    """Whether the network is right as often as it says, in words."""
    over, temperature = reliability.overconfidence(), reliability.temperature
    how = "surer" if over > 0 else "less sure"
    scaled = f" at temperature {temperature:.3g}" if temperature != 1 else ""
    return (
        f"calibration{scaled}: expected error {_cell(reliability.expected_error())} %, on average {_cell(abs(over))} % "
        f"{how} than right"
    )


def headline(evaluation: Evaluation, protocol: Protocol) -> str:
    """Data set, split and primary score, and in capitals what makes it no honest test."""
    score = f"mIoU {_cell(evaluation.means()['mIoU'])} ({evaluation.rules[0].name})"
    return "; ".join([f"{protocol.dataset}, {protocol.split}: {score}", *protocol.warnings()])


def _add_classes(table: Table, evaluation: Evaluation) -> None:
    matrix = evaluation.counted()
    scores = [matrix.iou(), matrix.accuracy(), matrix.precision(), matrix.f1()]
    scores += [evaluation.counted(group).iou() for group in evaluation.groups if group not in SHOWN_IN]
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
