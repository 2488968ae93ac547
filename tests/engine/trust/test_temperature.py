"""The temperature against a grid, and against networks whose right temperature is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mdg.engine.trust.temperature import RANGE, fit_temperature, reliability_at, some_pixels


def drawn(temperature: float, pixels: int = 20000, classes: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits, and labels drawn from their softmax at this temperature."""
    torch.manual_seed(0)
    logits_NK = 4 * torch.randn(pixels, classes)
    return logits_NK, torch.multinomial((logits_NK / temperature).softmax(1), 1)[:, 0]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_of_the_labels_is_found(temperature):
    logits_NK, label_N = drawn(temperature)
    assert fit_temperature(logits_NK, label_N) == pytest.approx(temperature, rel=0.03)


def test_no_other_temperature_has_less_cross_entropy():
    logits_NK, label_N = drawn(1.7, pixels=500)
    best = fit_temperature(logits_NK, label_N)
    loss = [float(F.cross_entropy(logits_NK.double() / t, label_N)) for t in (best, *np.geomspace(0.1, 10, 200))]
    assert loss[0] == pytest.approx(min(loss), abs=1e-9)


def test_the_error_falls_and_no_mask_changes():
    logits_NK, label_N = drawn(3.0)
    before, after = (reliability_at(logits_NK, label_N, t) for t in (1.0, fit_temperature(logits_NK, label_N)))
    assert before.expected_error() > 0.1 and before.overconfidence() > 0.1
    assert after.expected_error() < 0.02 and abs(after.overconfidence()) < 0.01
    assert before.counts_B3[:, 1].sum() == after.counts_B3[:, 1].sum()


def test_a_network_that_is_always_right_meets_the_bound():
    assert fit_temperature(torch.tensor([[9.0, 0.0], [0.0, 9.0]]), torch.tensor([0, 1])) == pytest.approx(RANGE[0])


def test_one_that_is_always_wrong_meets_the_other():
    assert fit_temperature(torch.tensor([[9.0, 0.0], [0.0, 9.0]]), torch.tensor([1, 0])) == pytest.approx(RANGE[1])


def test_without_pixels():
    with pytest.raises(ValueError, match="no labelled pixels"):
        fit_temperature(torch.empty(0, 3), torch.empty(0))


def test_pixels_are_spread_over_those_that_count():
    logits_KHW = torch.arange(24.0).reshape(2, 3, 4)
    ignored_HW = torch.zeros(3, 4, dtype=torch.bool)
    ignored_HW[0] = True
    label_HW = torch.arange(12).reshape(3, 4)
    some_NK, label_N = some_pixels(logits_KHW, label_HW, ignored_HW, 3)
    assert label_N.tolist() == [4, 7, 11] and some_NK.tolist() == [[4.0, 16.0], [7.0, 19.0], [11.0, 23.0]]
    assert len(some_pixels(logits_KHW, label_HW, ignored_HW, 100)[1]) == 8
