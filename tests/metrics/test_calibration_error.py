"""Reliability against numbers known otherwise."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mdg.metrics.reliability import Reliability


def counted(confidence, right, bins=10, ignored=None) -> Reliability:
    reliability = Reliability(bins)
    confidence = torch.as_tensor(confidence, dtype=torch.float32)
    prediction = torch.zeros(confidence.shape, dtype=torch.long)
    label = 1 - torch.as_tensor(right).long()
    ignored = torch.zeros(confidence.shape, dtype=torch.bool) if ignored is None else torch.as_tensor(ignored)
    reliability.update(confidence, prediction, label, ignored)
    return reliability


def test_by_hand():
    """Two bins: 0.55 and 0.59 with one of two right, 0.95 twice, both right, and one that is ignored."""
    got = counted([0.55, 0.59, 0.95, 0.95, 0.2], [1, 0, 1, 1, 0], ignored=[False] * 4 + [True])
    assert got.pixels == 4 and got.counts_B3[5, :2].tolist() == [2, 1] and got.counts_B3[9, :2].tolist() == [2, 2]
    assert got.accuracy()[[5, 9]] == pytest.approx([0.5, 1.0]) and np.isnan(got.accuracy()[0])
    assert got.confidence()[[5, 9]] == pytest.approx([0.57, 0.95], abs=1e-6)
    assert got.expected_error() == pytest.approx((2 * 0.07 + 2 * 0.05) / 4, abs=1e-6)
    assert got.overconfidence() == pytest.approx((2 * 0.07 - 2 * 0.05) / 4, abs=1e-6)


def test_against_a_loop():
    rng = np.random.default_rng(0)
    confidence = rng.random(1000).astype(np.float32)
    right = rng.random(1000) < confidence**2
    got, error = counted(confidence, right, bins=7), 0.0
    for low in range(7):
        inside = (confidence >= low / 7) & (confidence < (low + 1) / 7)
        error += abs(confidence[inside].mean() - right[inside].mean()) * inside.mean()
    assert got.expected_error() == pytest.approx(error, abs=1e-6)
    assert got.overconfidence() == pytest.approx(confidence.mean() - right.mean(), abs=1e-6)


def test_a_network_that_is_right_as_often_as_it_says_has_no_error():
    got = counted([0.75] * 4, [1, 1, 1, 0])
    assert got.expected_error() == pytest.approx(0, abs=1e-7)


def test_the_order_of_the_images_changes_no_bit():
    torch.manual_seed(0)
    confidence, right = torch.rand(9, 50), torch.rand(9, 50) < 0.5
    whole = counted(confidence, right)
    parts = [counted(confidence[i], right[i]).counts_B3 for i in (4, 8, 0, 2, 1, 7, 3, 6, 5)]
    assert np.array_equal(whole.counts_B3, sum(parts))


def test_the_ends_of_the_scale():
    got = counted([0.0, 1.0, 1.0 + 1e-6], [0, 1, 1])
    assert got.counts_B3[0, 0] == 1 and got.counts_B3[-1, 0] == 2 and got.expected_error() == 0.0


def test_nothing_counted():
    empty = Reliability()
    assert np.isnan(empty.expected_error()) and np.isnan(empty.overconfidence()) and empty.pixels == 0


def test_plain_values():
    content = counted([0.55, 0.95], [1, 1]).as_dict()
    assert content["expected_calibration_error"] == pytest.approx(25, abs=1e-4)
    assert content["bins"][5] == {"pixels": 1, "right": 1, "confidence": pytest.approx(0.55, abs=1e-6)}
