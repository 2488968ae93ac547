"""Scores of single images against pixel-by-pixel counting."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mdg.metrics import ConfusionMatrix, ScoringRule
from mdg.metrics.scoring import all_classes, image_scores, score_image

CLASSES = ("unlabeled", "car", "person", "bike", "cone")


def brute_force(label: np.ndarray, prediction: np.ndarray, averaged: list[int], ignored: set[int]) -> list[float]:
    """IoU per class, their mean and the pixel accuracy, by sets of pixels."""
    counted = {p for p, value in enumerate(label) if value != 255 and value not in ignored}
    iou = []
    for k in range(len(CLASSES)):
        labelled = {p for p in counted if label[p] == k}
        predicted = {p for p in counted if prediction[p] == k}
        union = labelled | predicted
        iou.append(len(labelled & predicted) / len(union) if union and k not in ignored else math.nan)
    present = [iou[k] for k in averaged if not math.isnan(iou[k])]
    right = sum(label[p] == prediction[p] for p in counted)
    return [*iou, np.mean(present) if present else math.nan, right / len(counted) if counted else math.nan]


def counts_of(label: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    return ConfusionMatrix(len(CLASSES)).update(torch.as_tensor(prediction), torch.as_tensor(label))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(
    "rule",
    [all_classes(CLASSES), ScoringRule("r", CLASSES[1:], ("unlabeled",), 0.0), ScoringRule("two", ("car", "cone"))],
    ids=lambda rule: rule.name,
)
def test_equals_counting_pixels(seed, rule):
    rng = np.random.default_rng(seed)
    kinds = rng.permutation(5)[: rng.integers(1, 4)]  # most images show few classes
    label, prediction = rng.choice(kinds, 60), rng.choice(rng.permutation(5)[:3], 60)
    label[rng.random(60) < 0.2] = 255
    ids, ignored = [CLASSES.index(name) for name in rule.averaged], {CLASSES.index(name) for name in rule.ignored}
    expected = brute_force(label, prediction, ids, ignored)
    np.testing.assert_allclose(score_image(counts_of(label, prediction), rule, CLASSES), expected, rtol=1e-14)


def test_a_class_that_is_only_predicted_scores_zero():
    row = score_image(counts_of(np.array([0, 0]), np.array([0, 1])), all_classes(CLASSES), CLASSES)
    assert row[:2].tolist() == [0.5, 0.0] and np.isnan(row[2:5]).all()
    assert row[5:].tolist() == [0.25, 0.5]


def test_an_image_without_a_counted_pixel_has_no_score():
    row = score_image(np.zeros((5, 5), np.int64), all_classes(CLASSES), CLASSES)
    assert np.isnan(row).all()


def test_the_worst_come_first_and_those_without_a_score_never():
    rows = np.full((5, 7), np.nan)
    rows[:, 5] = [0.5, np.nan, 0.1, 0.5, 0.9]
    scores = image_scores(rows)
    assert scores.iou_NK.shape == (5, 5)
    assert scores.worst(3) == [2, 0, 3]  # equal ones in the order of the data set
    assert scores.worst(99) == [2, 0, 3, 4] and scores.worst(0) == []
