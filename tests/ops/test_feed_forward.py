"""Feed-forward networks that keep their inputs only: the numbers of their parts, and less memory."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mdg.models.backbones.mit import MixFeedForward
from mdg.models.layers import conv_bhwc
from mdg.ops.feed_forward import gelu_linear


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(5, 6), (2, 3, 4, 6)], ids=str)
def test_gelu_linear_equals_its_parts(draw, shape, bias):
    linear, x = nn.Linear(6, 4, bias=bias).double(), draw(*shape, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, *_: gelu_linear(x, linear.weight, linear.bias), (x, *linear.parameters()))
    assert torch.equal(gelu_linear(x, linear.weight, linear.bias), linear(F.gelu(x)))


def test_gelu_linear_under_autocast(draw):
    linear, x = nn.Linear(32, 16), draw(8, 32).requires_grad_()
    weight = draw(8, 16, seed=1)
    results = []
    ways = (lambda x, linear: gelu_linear(x, linear.weight, linear.bias), lambda x, linear: linear(F.gelu(x)))
    for function in ways:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = function(x, linear)
        results.append((y, *torch.autograd.grad(y, [x, *linear.parameters()], weight.to(y.dtype))))
    for got, want in zip(*results, strict=True):
        assert got.dtype == want.dtype
        torch.testing.assert_close(got.float(), want.float(), rtol=2e-2, atol=2e-2)


def test_gelu_linear_keeps_one_map(draw):
    linear, x, saved = nn.Linear(64, 16), draw(100, 64).requires_grad_(), []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x.numel()) or x, lambda x: x):
        gelu_linear(x, linear.weight, linear.bias)
    assert sum(saved) == x.numel() + linear.weight.numel()


@pytest.mark.parametrize("frozen", [None, "fc1.weight", "dwconv.dwconv.weight", "fc2.bias"])
def test_mix_feed_forward_keeps_its_input_only(draw, frozen):
    layer = MixFeedForward(16).double()
    nn.init.normal_(layer.dwconv.dwconv.bias)
    if frozen is not None:
        layer.get_parameter(frozen).requires_grad_(False)
    x = draw(2, 5, 7, 16).double().requires_grad_()
    leaves = [x, *(p for p in layer.parameters() if p.requires_grad)]
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.shape) or t, lambda t: t):
        y = layer(x)
    assert (2, 5, 7, 64) not in saved and len(saved) == 7
    plain = layer.fc2(F.gelu(conv_bhwc(layer.dwconv.dwconv, layer.fc1(x))))
    torch.testing.assert_close(y, plain)
    grad = draw(2, 5, 7, 16).double()
    for found, true in zip(torch.autograd.grad(y, leaves, grad), torch.autograd.grad(plain, leaves, grad), strict=True):
        torch.testing.assert_close(found, true)
