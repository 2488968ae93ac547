"""The first tensor that is not finite, and steps that are kept and done again."""

from __future__ import annotations

import pytest
import torch

from mdg.data import Batch
from mdg.engine.diagnosis import find_non_finite, repeat_step
from mdg.errors import NonFiniteError, WeightsError


class Scale(torch.nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = torch.nn.Parameter(torch.tensor(factor))

    def forward(self, x):
        return x * self.factor


def batch(name="00001D"):
    images = torch.ones(1, 3, 4, 4), torch.ones(1, 1, 4, 4), torch.zeros(1, 4, 4)
    return Batch(*images, [name], [0])


@pytest.mark.parametrize(
    ("factors", "expected"),
    [
        ((2.0, 3.0), None),
        ((2.0, float("nan")), "weight 1.factor"),
        ((1e30, 1e30), "output of module 1, for 00001D"),
        ((1e38, 0.5), "loss, for 00001D"),  # the square of 5e37
    ],
)
def test_the_first_tensor_that_is_not_finite(factors, expected):
    model = torch.nn.Sequential(*map(Scale, factors))
    assert find_non_finite(model, lambda _, b: model(b.rgb_B3HW).square().mean(), [batch()]) == expected
    assert all(p.grad is None for p in model.parameters())


def test_gradients_are_looked_at_in_the_order_they_are_computed():
    model = torch.nn.Sequential(Scale(1.0), Scale(0.0))
    found = find_non_finite(model, lambda _, b: model(b.rgb_B3HW).sqrt().sum(), [batch("a"), batch("b")])
    assert found == "gradient of 1.factor, for a"


def test_a_kept_step_can_be_done_again(tiny_run, tmp_path):
    opts = ("optimizer.lr=1e38", "schedule={type: Constant, warmup_epochs: 0}", "train.max_skipped_steps=2")
    with pytest.raises(NonFiniteError) as caught:
        tiny_run("run", *opts)
    (file,) = (tmp_path / "run").glob("non-finite-step-*.pt")
    found = repeat_step(file, "cpu")
    assert found is not None and found in str(caught.value)


def test_other_files_are_refused(tmp_path):
    torch.save({"model": {}}, tmp_path / "x.pt")
    with pytest.raises(WeightsError, match="not a step that training kept"):
        repeat_step(tmp_path / "x.pt")
