"""Scoring rules against hand-made counts and scikit-learn on the pixels that a rule counts."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from sklearn import metrics

from mdg.metrics import ConfusionMatrix, ScoringRule
from mdg.metrics.scoring import all_classes

FMB_LIKE = ("unlabeled", "road", "person", "bicycle")
A = ScoringRule("A", FMB_LIKE[1:], ignored=("unlabeled",), absent=0.0)
B = ScoringRule("B", FMB_LIKE[1:], ignored=("unlabeled",))
C = all_classes(FMB_LIKE, "C")
# Rows are labels. Nothing is labelled bicycle, one pixel of a person is predicted as one.
COUNTS = np.array([[4, 2, 0, 0], [1, 6, 1, 0], [0, 1, 3, 1], [0, 0, 0, 0]])


def names(count: int) -> tuple[str, ...]:
    return tuple(f"c{k}" for k in range(count))


def test_three_published_rules_from_one_matrix_by_hand():
    matrix = ConfusionMatrix(4, COUNTS)
    # A, B: the row of unlabeled is gone, so road is predicted 7 times, person 4 times.
    road, person = 6 / (8 + 7 - 6), 3 / (5 + 4 - 3)
    assert A.means(matrix, FMB_LIKE)["mIoU"] == pytest.approx((road + person + 0) / 3, rel=1e-15)
    assert B.means(matrix, FMB_LIKE)["mIoU"] == pytest.approx((road + person) / 2, rel=1e-15)
    unlabeled, road_c = 4 / (6 + 5 - 4), 6 / (8 + 9 - 6)
    assert C.means(matrix, FMB_LIKE)["mIoU"] == pytest.approx((unlabeled + road_c + person) / 3, rel=1e-15)
    assert A.means(matrix, FMB_LIKE)["mAcc"] == pytest.approx((6 / 8 + 3 / 5) / 3)
    assert B.means(matrix, FMB_LIKE)["mAcc"] == pytest.approx((6 / 8 + 3 / 5) / 2)
    assert B.means(matrix, FMB_LIKE)["mF1"] == pytest.approx((12 / 15 + 6 / 9) / 2)
    for rule, accuracy in ((A, 9 / 13), (B, 9 / 13), (C, 13 / 19)):
        assert rule.means(matrix, FMB_LIKE)["pixel_accuracy"] == pytest.approx(accuracy)


def test_the_matrix_itself_is_left_alone():
    matrix = ConfusionMatrix(4, COUNTS)
    A.means(matrix, FMB_LIKE)
    assert np.array_equal(matrix.counts, COUNTS)


def test_not_averaged_still_counts_and_ignored_does_not():
    """Predicting on unlabeled costs the class that is predicted, unless the rule ignores unlabeled."""
    matrix = ConfusionMatrix(4, COUNTS)
    left_out = ScoringRule("left out", FMB_LIKE[1:])
    assert left_out.means(matrix, FMB_LIKE)["mIoU"] == pytest.approx((6 / 11 + 3 / 6) / 2)
    assert left_out.means(matrix, FMB_LIKE)["mIoU"] < B.means(matrix, FMB_LIKE)["mIoU"]


@pytest.mark.parametrize("classes", [2, 9, 300])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("absent", [None, 0.0, 1.0])
def test_equals_scikit_learn(classes, seed, absent):
    """Random maps with absent classes, an ignored one, and a random choice of averaged ones."""
    rng = np.random.default_rng(seed)
    known = rng.permutation(classes)[: max(2, classes // 2)]  # the others occur in predictions at most
    label = rng.choice(known, 800)
    prediction = np.where(rng.random(800) < 0.5, label, rng.integers(classes, size=800))
    ignored = int(rng.choice(known))
    averaged = [k for k in range(classes) if k != ignored and rng.random() < 0.8] or [int(k) for k in known[:1]]
    rule = ScoringRule("r", tuple(f"c{k}" for k in averaged), (f"c{ignored}",), absent)
    matrix = ConfusionMatrix(classes)
    matrix.update(torch.as_tensor(prediction), torch.as_tensor(label), ignore_index=1000)
    got = rule.means(matrix, names(classes))
    counted = label != ignored
    label, prediction = label[counted], prediction[counted]
    for name, score in (("mIoU", metrics.jaccard_score), ("mAcc", metrics.recall_score), ("mF1", metrics.f1_score)):
        values = score(label, prediction, labels=averaged, average=None, zero_division=0)
        present = np.isin(averaged, label)
        values = values[present] if absent is None else np.where(present, values, absent)
        assert got[name] == pytest.approx(values.mean(), rel=1e-12) if len(values) else math.isnan(got[name])
    assert got["pixel_accuracy"] == pytest.approx(metrics.accuracy_score(label, prediction))


@pytest.mark.parametrize("rule", [A, B, C])
def test_nothing_counted_is_nan_without_a_warning(rule):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        means = rule.means(ConfusionMatrix(4), FMB_LIKE)
    assert math.isnan(means["pixel_accuracy"])
    assert means["mIoU"] == 0 if rule.absent == 0 else math.isnan(means["mIoU"])


def test_only_ignored_pixels_equal_no_pixels():
    matrix = ConfusionMatrix(4, np.array([[5, 2, 1, 0], *[[0] * 4] * 3]))
    assert math.isnan(B.means(matrix, FMB_LIKE)["mIoU"]) and math.isnan(B.means(matrix, FMB_LIKE)["pixel_accuracy"])
    assert C.means(matrix, FMB_LIKE)["mIoU"] == 5 / 8


@pytest.mark.parametrize(("predicted", "score"), [(1, 1.0), (2, 0.0)])
def test_one_pixel(predicted, score):
    counts = np.zeros((4, 4), np.int64)
    counts[1, predicted] = 1
    assert B.means(ConfusionMatrix(4, counts), FMB_LIKE)["mIoU"] == score
    assert A.means(ConfusionMatrix(4, counts), FMB_LIKE)["mIoU"] == score / 3


def test_a_million_millions_stay_exact_under_a_rule():
    big = 10**12
    counts = np.array([[7 * big, big, 0], [0, big, 1], [0, 3, big]])
    rule = ScoringRule("r", ("c1", "c2"), ("c0",))
    kept = rule.restrict(ConfusionMatrix(3, counts), names(3)).counts
    assert kept.tolist() == [[0, 0, 0], [0, big, 1], [0, 3, big]]
    assert rule.means(ConfusionMatrix(3, counts), names(3))["mIoU"] == pytest.approx(big / (big + 4), rel=1e-15)


def test_a_rule_says_what_it_does():
    assert A.describe() == "mean over 3 classes, unlabeled ignored, an absent class counts 0"
    assert C.describe() == "mean over 4 classes, absent classes (no labelled pixel) left out"
    assert A.as_dict() == {
        "description": A.describe(),
        "averaged": ["road", "person", "bicycle"],
        "ignored": ["unlabeled"],
        "absent": 0.0,
    }


def test_mfnet_is_scored_with_and_without_unlabeled():
    from mdg.data.datasets.mfnet import CLASSES, MFNet

    nine, eight = MFNet.scoring_rules(None)
    assert nine.averaged == CLASSES and eight.averaged == CLASSES[1:]
    assert nine.ignored == eight.ignored == () and nine.absent is eight.absent is None
