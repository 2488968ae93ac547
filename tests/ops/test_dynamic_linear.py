"""The ways through a dynamic linear layer; tests/models/test_decoders.py holds the layer against a loop over cells."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mdg.models.decoders.dynamic_linear import DynamicLinear
from mdg.ops import dynamic_linear as ops
from mdg.ops.dynamic_linear import _by_products, _generate_and_multiply


def weights(layer: DynamicLinear) -> tuple[Tensor, Tensor, int]:
    return layer.generator.weight[:, :, 0, 0], layer.generator.bias, layer.generator.groups


@pytest.mark.parametrize("patch", [1, 2, 3])
def test_both_ways_of_a_dynamic_linear_layer_agree(draw, shaken, patch):
    layer = shaken(DynamicLinear(12, 6, 10, groups=3).double())
    x = draw(2, 2 * patch, 3 * patch, 6, dtype=torch.float64).requires_grad_()
    condition = draw(2, 2, 3, 12, seed=1, dtype=torch.float64).requires_grad_()
    leaves, weight = [x, condition, *layer.parameters()], draw(2, 2 * patch, 3 * patch, 10, seed=2, dtype=torch.float64)
    results = [way(x, condition, *weights(layer)) for way in (_generate_and_multiply, _by_products)]
    torch.testing.assert_close(*results)
    for grads in zip(*(torch.autograd.grad(y, leaves, weight) for y in results), strict=True):
        torch.testing.assert_close(*grads)


def test_a_layer_without_matrices_runs_in_the_autocast_dtype(draw):
    layer, x, condition = DynamicLinear(8, 6, 21, groups=2), draw(1, 4, 2, 6), draw(1, 2, 1, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = _by_products(x, condition, *weights(layer))
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got.float(), _by_products(x, condition, *weights(layer)), rtol=0.05, atol=0.05)


def test_matrices_are_generated_where_cells_have_many_tokens(draw, monkeypatch):
    layer = DynamicLinear(8, 6, 21, groups=2)  # 1 + 4 inputs a token: four tokens have fewer than 21, five have more
    chosen = []
    monkeypatch.setattr(ops, "_by_matrices", lambda x, *_: chosen.append("matrices") or x)
    monkeypatch.setattr(ops, "_by_products", lambda x, *_: chosen.append("products") or x)
    for size in ((2, 2), (1, 5)):
        layer(draw(1, *size, 6), draw(1, 1, 1, 8))
    assert chosen == ["products", "matrices"]
    monkeypatch.undo()
    uneven = DynamicLinear(8, 2, 22, groups=4)  # groups that share an input
    assert uneven(draw(1, 2, 2, 2), draw(1, 1, 1, 8)).shape == (1, 2, 2, 22)


def test_dynamic_linear_keeps_no_generated_matrix(draw, monkeypatch):
    layer = DynamicLinear(8, 4, 16, groups=2)  # cells of 4 tokens and 4 conditions a group: 4 (1 + 4) > 16
    x, condition = draw(3, 6, 4, 4).requires_grad_(), draw(3, 3, 2, 8).requires_grad_()
    leaves = [x, condition, *layer.parameters()]
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.numel()) or t, lambda t: t):
        layer(x, condition)
    assert sum(saved) < 3 * 6 * 4 * 16
    grad = draw(3, 6, 4, 16)
    expected = torch.autograd.grad(_generate_and_multiply(x, condition, *weights(layer)), leaves, grad)
    for limit in (2**25, 1):  # all images at once, and one by one
        monkeypatch.setattr(ops, "MAX_WEIGHTS", limit)
        for found, true in zip(torch.autograd.grad(layer(x, condition), leaves, grad), expected, strict=True):
            torch.testing.assert_close(found, true, rtol=1e-4, atol=1e-5)
