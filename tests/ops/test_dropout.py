"""Dropout on a CPU: how much is dropped, what is left, and its gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mdg.models.layers import Dropout
from mdg.ops.dropout import dropout, linear_of_kept


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("shape", [(300, 211), (1, 63301), (63303,)])  # also not a multiple of four
def test_it_drops_its_share_and_keeps_the_mean(p, shape):
    torch.manual_seed(0)
    x = torch.full(shape, 2.0)
    y = dropout(x, p)
    assert y.shape == x.shape and y.dtype == x.dtype
    share = (y == 0).double().mean().item()
    assert abs(share - p) < 4 * (p * (1 - p) / x.numel()) ** 0.5 + 1e-5  # four standard deviations
    if p < 1:
        torch.testing.assert_close(y[y != 0], torch.full((int((y != 0).sum()),), 2 / (1 - p)), rtol=1e-4, atol=0)


def test_neighbours_are_dropped_independently():
    torch.manual_seed(1)
    kept = (dropout(torch.ones(4 * 50_000), 0.5) != 0).double().view(-1, 4)  # the four of a draw
    assert (torch.corrcoef(kept.t()) - torch.eye(4)).abs().max() < 0.02


def test_the_gradient_is_the_mask():
    torch.manual_seed(2)
    x = torch.randn(40, 50, requires_grad=True)
    y = dropout(x, 0.3)
    (gradient,) = torch.autograd.grad(y, x, torch.ones_like(y))
    torch.testing.assert_close(gradient * x, y)
    assert set((gradient == 0).unique().tolist()) == {True, False}


def test_a_seed_gives_the_same_mask():
    x = torch.ones(100)
    masks = [torch.manual_seed(seed) and dropout(x, 0.5) for seed in (7, 7, 8)]
    assert torch.equal(masks[0], masks[1]) and not torch.equal(masks[0], masks[2])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_dtypes_stay(dtype):
    assert dropout(torch.ones(10, dtype=dtype), 0.5).dtype == dtype


def test_the_layer_drops_in_training_only():
    x = torch.ones(1000)
    layer = Dropout(0.5)
    assert (layer(x) == 0).any()
    assert layer.eval()(x) is x
    assert Dropout(0.0)(x) is x


@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layer_of_kept_channels_is_one_of_the_dropped_map(bias):
    torch.manual_seed(3)
    x, weight = torch.randn(3, 7, 5, dtype=torch.float64), torch.randn(4, 5, dtype=torch.float64)
    kept = torch.tensor([[1.25, 0, 1.25, 1.25, 0], [1.25, 1.25, 1.25, 1.25, 1.25], [0, 0, 0, 0, 0]]).double()
    b = torch.randn(4, dtype=torch.float64) if bias else None
    inputs = [t.requires_grad_() for t in (x, weight, b) if t is not None]

    def ours(x, weight, b=None):
        return linear_of_kept(x, kept, weight, b)

    expected = F.linear(x * kept[:, None], weight, b)
    torch.testing.assert_close(ours(*inputs), expected)
    assert torch.autograd.gradcheck(ours, inputs)
    found = torch.autograd.grad(ours(*inputs).square().sum(), inputs)
    for got, wanted in zip(found, torch.autograd.grad(expected.square().sum(), inputs), strict=True):
        torch.testing.assert_close(got, wanted)


def test_under_autocast_the_map_gives_the_dtype():
    x, kept, weight = torch.randn(2, 3, 8).bfloat16().requires_grad_(), torch.ones(2, 8), torch.randn(4, 8)
    weight.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = linear_of_kept(x, kept.bfloat16(), weight, None)
    y.float().sum().backward()
    assert y.dtype == torch.bfloat16 and x.grad.dtype == torch.bfloat16 and weight.grad.dtype == torch.float32
