"""Attention of the encoders against the formula in float64."""

from __future__ import annotations

import pytest
import torch

from mdg.errors import UserError
from mdg.ops import attention
from mdg.ops.attention import OPERATOR

SHAPES = [(1, 300, 300, 64, 1), (2, 77, 13, 128, 2), (2, 5, 1, 320, 5), (1, 1, 9, 24, 3)]


def make(B: int, N: int, M: int, C: int, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    key_value = torch.randn(B, M, 2 * C, generator=generator).to(dtype)  # as the model has them: halves of one tensor
    return [torch.randn(B, N, C, generator=generator).to(dtype), *key_value.chunk(2, dim=-1)]


def exact(q, k, v, heads):
    q, k, v = (x.double().unflatten(-1, (heads, -1)) for x in (q, k, v))
    weights = (torch.einsum("bnhd,bmhd->bhnm", q, k) / q.shape[-1] ** 0.5).softmax(-1)
    return torch.einsum("bhnm,bmhd->bnhd", weights, v).flatten(2)


@pytest.mark.parametrize("backend", ["onednn", "torch"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_the_formula(shape, backend):
    *sizes, heads = shape
    inputs = make(*sizes)
    out = attention(*inputs, heads=heads, backend=backend)
    assert out.shape == inputs[0].shape and out.dtype == torch.float32
    torch.testing.assert_close(out.double(), exact(*inputs, heads), rtol=1e-5, atol=1e-5)


def test_chunks_change_nothing(monkeypatch):
    inputs = make(1, 300, 40, 64)
    whole = attention(*inputs, heads=2, backend="onednn")
    monkeypatch.setitem(OPERATOR._backends[0].function.__globals__, "CHUNK", 1)  # at least 64 queries at once
    torch.testing.assert_close(attention(*inputs, heads=2, backend="onednn"), whole, rtol=1e-5, atol=1e-6)


def test_large_scores_do_not_overflow():
    q, k, v = make(1, 80, 50, 64)
    out = attention(1000 * q, k, v, heads=1, backend="onednn")
    torch.testing.assert_close(out.double(), exact(1000 * q, k, v, 1), rtol=1e-3, atol=1e-3)


def test_training_and_small_products_are_left_to_pytorch():
    q, k, v = make(1, 400, 100, 64)
    assert OPERATOR.report(q, k, v, 1)["onednn"] in (
        None,
        "PyTorch's own matrix product is the better one on this processor",
    )
    assert OPERATOR.report(q[:, :9], k, v, 1)["onednn"] == "the product is small"
    q.requires_grad_()
    assert OPERATOR.choose(q, k, v, 1).name == "torch"
    with pytest.raises(UserError, match="no backward pass"):
        attention(q, k, v, heads=1, backend="onednn")
    with torch.no_grad():
        attention(q, k, v, heads=1, backend="onednn")


def test_other_dtypes_are_left_to_pytorch():
    inputs = make(1, 400, 100, 64, torch.float64)
    assert "float32" in OPERATOR.report(*inputs, 1)["onednn"]
    torch.testing.assert_close(attention(*inputs, heads=1), exact(*inputs, 1))
