from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from sklearn import metrics

from mdg.metrics import ConfusionMatrix

IGNORE = 255


def draw(classes: int, pixels: int = 500, skew: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Predictions and labels with rare classes; about half of the pixels are right."""
    rng = np.random.default_rng(seed)
    share = np.arange(1, classes + 1.0) ** -skew
    label = rng.choice(classes, pixels, p=share / share.sum())
    wrong = rng.integers(classes, size=pixels)
    return np.where(rng.random(pixels) < 0.5, label, wrong), label


def matrix(prediction, label, classes: int, ignore: int = IGNORE) -> ConfusionMatrix:
    confusion = ConfusionMatrix(classes)
    confusion.update(torch.as_tensor(prediction), torch.as_tensor(label), ignore)
    return confusion


def check(prediction: np.ndarray, label: np.ndarray, classes: int, ignore: int = IGNORE) -> ConfusionMatrix:
    """Every score against scikit-learn on the pixels that are not ignored."""
    confusion = matrix(prediction, label, classes, ignore)
    valid = label != ignore
    prediction, label = prediction[valid], label[valid]
    ids = np.arange(classes)
    present = np.isin(ids, label)
    assert np.array_equal(confusion.counts, metrics.confusion_matrix(label, prediction, labels=ids))
    for got, function in [
        (confusion.iou(), metrics.jaccard_score),
        (confusion.accuracy(), metrics.recall_score),
        (confusion.precision(), metrics.precision_score),
        (confusion.f1(), metrics.f1_score),
    ]:
        expected = function(label, prediction, labels=ids, average=None, zero_division=0)
        np.testing.assert_allclose(got[present], expected[present], rtol=1e-12)
        assert np.isnan(got[~present]).all()
    assert confusion.pixel_accuracy() == pytest.approx(metrics.accuracy_score(label, prediction))
    return confusion


@pytest.mark.parametrize("classes", [2, 9, 300])
@pytest.mark.parametrize("seed", [0, 1])
def test_equals_scikit_learn(classes, seed):
    check(*draw(classes, seed=seed), classes, ignore=1000)


def test_ignored_pixels_count_nowhere():
    prediction, label = draw(5)
    label[::3] = IGNORE
    prediction[::6] = 77  # whatever stands there
    confusion = check(prediction, label, 5)
    assert confusion.counts.sum() == (label != IGNORE).sum()


def test_a_class_that_is_predicted_and_never_labelled():
    confusion = check(np.array([0, 1, 2, 2]), np.array([0, 1, 1, 0]), 3)
    assert np.isnan(confusion.iou()[2])
    assert confusion.means()["mIoU"] == pytest.approx((1 / 2 + 1 / 2) / 2)


def test_a_class_that_is_labelled_and_never_predicted():
    confusion = check(np.array([0, 0, 0]), np.array([0, 1, 1]), 2)
    for score in (confusion.iou(), confusion.accuracy(), confusion.precision(), confusion.f1()):
        assert score[1] == 0


@pytest.mark.parametrize(("prediction", "label"), [(0, 0), (1, 0)])
def test_one_pixel(prediction, label):
    check(np.array([prediction]), np.array([label]), 2)


def test_perfect_and_hopeless():
    _, label = draw(4)
    assert set(check(label, label, 4).means().values()) == {1.0}
    assert set(check((label + 1) % 4, label, 4).means().values()) == {0.0}


def test_all_ignored():
    confusion = matrix([0, 1], [IGNORE, IGNORE], 2)
    assert not confusion.counts.any() and np.isnan(confusion.iou()).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        means = confusion.means()
    assert set(means) == {"mIoU", "mAcc", "mF1", "pixel_accuracy"} and all(map(math.isnan, means.values()))


def test_means_leave_absent_classes_out_or_count_them():
    prediction, label = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1])
    confusion = matrix(prediction, label, 4)
    iou, recall, f1 = [1 / 2, 2 / 3], [1, 2 / 3], [2 / 3, 4 / 5]
    for absent, count in ((None, 2), (0.0, 4)):
        means = confusion.means(absent)
        assert means["mIoU"] == pytest.approx(sum(iou) / count)
        assert means["mAcc"] == pytest.approx(sum(recall) / count)
        assert means["mF1"] == pytest.approx(sum(f1) / count)
        assert means["pixel_accuracy"] == pytest.approx(3 / 4)
    assert confusion.means(absent=1.0)["mIoU"] == pytest.approx((sum(iou) + 2) / 4)


def test_counts_of_a_million_millions_are_exact():
    big = 10**12
    counts = np.array([[big, 1], [3, big + 1]])
    confusion = ConfusionMatrix(2, counts) + ConfusionMatrix(2, counts)
    assert confusion.counts.tolist() == [[2 * big, 2], [6, 2 * big + 2]]
    assert confusion.iou()[0] == pytest.approx(big / (big + 4), rel=1e-15)
    assert confusion.means()["pixel_accuracy"] == pytest.approx(1 - 4 / (2 * big + 5), rel=1e-15)
    assert confusion.iou()[0] < 1


def test_updates_and_sums_add_up():
    (one, two), whole = (draw(5, seed=s) for s in (0, 1)), ConfusionMatrix(5)
    for part in (one, two):
        counts = whole.update(*map(torch.as_tensor, part))
        assert counts.sum() == len(part[0]) and np.array_equal(counts, matrix(*part, 5).counts)
    added = matrix(*one, 5) + matrix(*two, 5)
    joined = matrix(*(np.concatenate(pair) for pair in zip(one, two, strict=True)), 5)
    assert np.array_equal(whole.counts, joined.counts) and np.array_equal(added.counts, joined.counts)


def test_the_sum_is_a_copy():
    one, two = matrix([0], [0], 2), matrix([1], [1], 2)
    total = one + two
    one.update(torch.tensor([0]), torch.tensor([1]))
    assert total.counts.tolist() == [[1, 0], [0, 1]]


def test_counts_given_are_copied():
    counts = np.zeros((2, 2), np.int64)
    ConfusionMatrix(2, counts).update(torch.tensor([0]), torch.tensor([0]))
    assert not counts.any()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_small_integer_types_do_not_overflow(dtype):
    prediction, label = (torch.as_tensor(x).to(dtype) for x in draw(100))
    assert matrix(prediction, label, 100).counts.sum() == 500
    check(prediction.long().numpy(), label.long().numpy(), 100)


def test_maps_of_any_shape():
    prediction, label = (x.reshape(2, 10, 25) for x in draw(4))
    assert np.array_equal(matrix(prediction, label, 4).counts, matrix(prediction.ravel(), label.ravel(), 4).counts)


@pytest.mark.parametrize(
    ("prediction", "label"),
    [([0, 3], [0, 1]), ([0, 1], [0, 3]), ([-1, 0], [0, 0]), ([0, 0], [-1, 0]), ([1, 1], [254, 0])],
)
def test_out_of_range_is_an_error_and_counts_nothing(prediction, label):
    confusion = ConfusionMatrix(3)
    with pytest.raises(ValueError, match=r"0\.\.2"):
        confusion.update(torch.tensor(prediction), torch.tensor(label))
    assert not confusion.counts.any()


def test_shapes_that_differ():
    with pytest.raises(ValueError, match="resize the logits"):
        ConfusionMatrix(2).update(torch.zeros(2, 3).long(), torch.zeros(3, 2).long())
