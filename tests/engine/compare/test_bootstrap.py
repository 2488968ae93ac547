"""The paired bootstrap against numbers known otherwise."""

from __future__ import annotations

import numpy as np
import pytest

from mdg.engine.compare.bootstrap import paired_difference
from mdg.engine.evaluation.image_counts import ImageCounts, read_counts
from mdg.errors import ConfigError


def counts(right_N, size: int = 100, names=None, absent=None) -> ImageCounts:
    """Images of one class whose labelled and predicted pixels number ``size``: IoU = right / (2 size - right)."""
    right_N = np.asarray(right_N)
    stacked = np.stack([right_N, np.full_like(right_N, size), np.full_like(right_N, size)], -1)[:, None]
    return ImageCounts(tuple(names or map(str, range(len(right_N)))), stacked, absent)


def test_miou_of_a_draw_is_that_of_the_images_drawn():
    rng = np.random.default_rng(0)
    K, N = 4, 7
    labels, predictions = rng.integers(0, K, (2, N, 50))
    stacked = np.array(
        [
            [[((p == k) & (y == k)).sum(), (y == k).sum(), (p == k).sum()] for k in range(K)]
            for y, p in zip(labels, predictions, strict=True)
        ]
    )
    weight_SN = rng.integers(0, 3, (5, N))
    got_S = ImageCounts(tuple("abcdefg"), stacked, None).miou(weight_SN)
    for weight_N, got in zip(weight_SN, got_S, strict=True):
        y = np.concatenate([np.tile(labels[n], weight_N[n]) for n in range(N)])
        p = np.concatenate([np.tile(predictions[n], weight_N[n]) for n in range(N)])
        iou = [((y == k) & (p == k)).sum() / ((y == k) | (p == k)).sum() for k in range(K) if (y == k).any()]
        assert got == pytest.approx(np.mean(iou))


def test_an_absent_class_counts_what_the_rule_says():
    stacked = np.array([[[50, 50, 50], [0, 0, 0]]])
    for absent, expected in ((None, 1.0), (0.0, 0.5)):
        assert ImageCounts(("a",), stacked, absent).miou(np.ones((1, 1), int)) == pytest.approx(expected)


def test_equal_results_differ_by_nothing():
    one = counts([10, 50, 90])
    assert str(paired_difference([([one], [one])])) == "+0.00 [+0.00, +0.00]"


def test_the_interval_is_that_of_the_mean_of_paired_differences():
    """Where every image weighs alike and the score is nearly linear, the bootstrap agrees with the normal interval."""
    rng = np.random.default_rng(1)
    base = rng.integers(4000, 6000, 400)
    gain = rng.normal(40, 30, 400).astype(int)
    found = paired_difference([([counts(base, 10_000)], [counts(base + gain, 10_000)])])

    def iou(right):
        return right / (20_000 - right)

    slope = (iou(base.mean() + 1) - iou(base.mean() - 1)) / 2
    expected, half = 100 * slope * gain.mean(), 100 * slope * 1.96 * gain.std() / np.sqrt(400)
    assert found.mean == pytest.approx(expected, rel=0.02)
    assert found.high - found.low == pytest.approx(2 * half, rel=0.1)


def test_pairing_removes_what_images_have_in_common():
    rng = np.random.default_rng(2)
    base = rng.integers(0, 9000, 100)  # easy and hard images
    found = paired_difference([([counts(base, 10_000)], [counts(base + 50, 10_000)])])
    assert 0 < found.low < found.mean < found.high and found.high - found.low < 0.3 * found.mean


def test_seeds_are_averaged_and_splits_count_alike():
    low, high = counts([10, 10]), counts([90, 90])
    one = paired_difference([([low], [low, high])]).mean
    assert one == pytest.approx(100 * (90 / 110 - 10 / 190) / 2)
    both = paired_difference([([low], [low, high]), ([low], [low])])
    assert both.mean == pytest.approx(one / 2)


def test_the_draws_are_the_same_every_time():
    first, other = np.random.default_rng(0).integers(0, 100, (2, 20))
    pair = [([counts(first)], [counts(other)])]
    assert paired_difference(pair) == paired_difference(pair) != paired_difference(pair, seed=1)


def test_other_images_are_refused():
    with pytest.raises(ConfigError, match="different images"):
        paired_difference([([counts([1, 2])], [counts([1, 2], names=["0", "9"])])])


def test_a_file_that_is_absent_or_broken(tmp_path):
    assert read_counts(tmp_path / "counts.csv", ["car"], None) is None
    for text in ("", "name,car right\na,1\n", "name,car right,car labelled,car predicted\na,1,x,2\n"):
        (tmp_path / "counts.csv").write_text(text)
        with pytest.raises(ConfigError, match=r"counts.csv: not what an evaluation writes"):
            read_counts(tmp_path / "counts.csv", ["car"], None)
    (tmp_path / "counts.csv").write_text("name,car right,car labelled,car predicted\na,1,3,2\n")
    read = read_counts(tmp_path / "counts.csv", ["car"], None)
    assert read.names == ("a",) and read.miou(np.ones((1, 1), int)) == pytest.approx(0.25)
