"""Laws of the confusion matrix and of the rules, on labels that nobody chose."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn import metrics

from mdg.metrics import ConfusionMatrix
from mdg.metrics.scoring import ScoringRule, all_classes, score_image

IGNORE = 255


@st.composite
def scored(draw, max_classes: int = 8) -> tuple[int, np.ndarray, np.ndarray]:
    """K, predictions and labels [N]; some labels are ignored, some classes never occur."""
    K = draw(st.integers(1, max_classes))
    N = draw(st.integers(0, 60))
    prediction = draw(arrays.arrays(np.uint8, N, elements=st.integers(0, K - 1)))
    label = draw(arrays.arrays(np.uint8, N, elements=st.integers(0, K - 1) | st.just(IGNORE)))
    return K, prediction, label


def matrix(K: int, prediction: np.ndarray, label: np.ndarray) -> ConfusionMatrix:
    confusion = ConfusionMatrix(K)
    confusion.update(torch.from_numpy(prediction.copy()), torch.from_numpy(label.copy()), IGNORE)
    return confusion


counts = st.integers(1, 6).flatmap(
    lambda K: arrays.arrays(np.int64, (K, K), elements=st.integers(0, 5) | st.integers(0, 2**50))
)


@given(scored())
def test_counts_are_those_of_counting(case):
    K, prediction, label = case
    pairs = Counter((int(true), int(said)) for true, said in zip(label, prediction, strict=True) if true != IGNORE)
    assert matrix(*case).counts.tolist() == [[pairs[i, j] for j in range(K)] for i in range(K)]


@given(scored())
def test_scores_are_those_of_scikit_learn(case):
    K, prediction, label = case
    confusion, valid = matrix(*case), label != IGNORE
    prediction, label = prediction[valid], label[valid]
    present = np.isin(np.arange(K), label)
    for got, function in [
        (confusion.iou(), metrics.jaccard_score),
        (confusion.accuracy(), metrics.recall_score),
        (confusion.precision(), metrics.precision_score),
        (confusion.f1(), metrics.f1_score),
    ]:
        assert np.isnan(got[~present]).all()
        if label.size:
            expected = function(label, prediction, labels=np.arange(K), average=None, zero_division=0)
            np.testing.assert_allclose(got[present], expected[present], rtol=1e-12)


@given(scored(), st.integers(0, 60))
def test_a_split_image_counts_as_the_whole_one(case, at):
    K, prediction, label = case
    parts = matrix(K, prediction[:at], label[:at]) + matrix(K, prediction[at:], label[at:])
    assert np.array_equal(parts.counts, matrix(*case).counts)
    again = ConfusionMatrix(K)
    returned = [again.update(torch.from_numpy(prediction[s].copy()), torch.from_numpy(label[s].copy())) for s in
                (slice(at), slice(at, None))]  # fmt: skip
    assert np.array_equal(sum(returned), again.counts) and np.array_equal(again.counts, parts.counts)


@given(counts, st.randoms(use_true_random=False))
def test_other_numbers_for_the_classes_give_the_same_scores(counts_KK, random):
    K = len(counts_KK)
    order = random.sample(range(K), K)
    plain, renamed = ConfusionMatrix(K, counts_KK), ConfusionMatrix(K, counts_KK[np.ix_(order, order)])
    for name in ("iou", "accuracy", "precision", "f1"):
        np.testing.assert_array_equal(getattr(renamed, name)(), getattr(plain, name)()[order])
    assert renamed.means() == pytest.approx(plain.means(), nan_ok=True, rel=1e-12)


@given(counts)
def test_bounds_and_the_order_of_scores(counts_KK):
    confusion = ConfusionMatrix(len(counts_KK), counts_KK)
    iou, f1, recall, precision = (getattr(confusion, name)() for name in ("iou", "f1", "accuracy", "precision"))
    for score in (iou, f1, recall, precision):
        known = score[np.isfinite(score)]
        assert ((known >= 0) & (known <= 1)).all()
    known = np.isfinite(iou)
    assert (iou[known] <= f1[known]).all() and (iou[known] <= np.minimum(recall, precision)[known] + 1e-15).all()
    np.testing.assert_allclose(iou[known], f1[known] / (2 - f1[known]), rtol=1e-9)
    assert np.isnan(iou).tolist() == (counts_KK.sum(1) == 0).tolist()


@given(counts)
def test_all_right_is_one_and_all_wrong_is_zero(counts_KK):
    K = len(counts_KK)
    right, wrong = np.diag(np.diag(counts_KK)), counts_KK - np.diag(np.diag(counts_KK))
    for matrix_KK, value in ((right, 1.0), (wrong, 0.0)):
        means = ConfusionMatrix(K, matrix_KK).means()
        assert all(math.isnan(score) or score == value for score in means.values())


@st.composite
def ruled(draw) -> tuple[np.ndarray, tuple[str, ...], ScoringRule]:
    """A matrix, the names of its classes and a rule over some of them."""
    counts_KK = draw(counts)
    classes = tuple("abcdef"[: len(counts_KK)])
    averaged = tuple(draw(st.lists(st.sampled_from(classes), min_size=1, unique=True)))
    ignored = tuple(draw(st.lists(st.sampled_from(classes), unique=True)))
    absent = draw(st.none() | st.sampled_from([0.0, 1.0]))
    return counts_KK, classes, ScoringRule("rule", averaged, ignored, absent)


@given(ruled())
def test_a_rule_is_its_formula(case):
    counts_KK, classes, rule = case
    kept = counts_KK.astype(object)
    for name in rule.ignored:
        kept[classes.index(name)] = 0
    values = []
    for name in rule.averaged:
        k = classes.index(name)
        union = sum(kept[k]) + sum(kept[:, k]) - kept[k, k]
        if sum(kept[k]):
            values.append(kept[k, k] / union)
        elif rule.absent is not None:
            values.append(rule.absent)
    got = rule.means(ConfusionMatrix(len(classes), counts_KK), classes)
    expected = sum(values) / len(values) if values else math.nan
    assert got["mIoU"] == pytest.approx(expected, rel=1e-12, nan_ok=True)
    total, right = kept.sum(), sum(kept[k, k] for k in range(len(classes)))
    assert got["pixel_accuracy"] == pytest.approx(right / total if total else math.nan, rel=1e-12, nan_ok=True)


@given(ruled())
def test_ignored_pixels_change_nothing(case):
    """Wherever the pixels of an ignored class went, the scores stay."""
    counts_KK, classes, rule = case
    other = counts_KK.copy()
    for name in rule.ignored:
        other[classes.index(name)] = np.roll(other[classes.index(name)], 1) + 3
    means = [rule.means(ConfusionMatrix(len(classes), c), classes) for c in (counts_KK, other)]
    assert means[0] == pytest.approx(means[1], nan_ok=True, rel=0, abs=0)


@given(counts)
def test_an_image_scores_as_a_split_of_one_image_where_all_classes_are_in_the_label(counts_KK):
    counts_KK = counts_KK + np.eye(len(counts_KK), dtype=np.int64)
    classes = tuple("abcdef"[: len(counts_KK)])
    row = score_image(counts_KK, all_classes(classes), classes)
    confusion = ConfusionMatrix(len(classes), counts_KK)
    np.testing.assert_allclose(row[:-2], confusion.iou(), rtol=1e-12)
    assert row[-2] == pytest.approx(confusion.means()["mIoU"], rel=1e-12)
    assert row[-1] == confusion.pixel_accuracy()
