"""Attention of the encoders against the formula in float64."""

from __future__ import annotations

import pytest
import torch
from refused import refused_inputs
from torch import Tensor

from mdg.errors import UserError
from mdg.ops import attention
from mdg.ops.attention import OPERATOR
from mdg.ops.attention import numba as attention_numba

BACKENDS = ["numba", "torch"]
# (B, N, M, C, heads)
SHAPES = [
    (1, 300, 300, 64, 1),
    (2, 77, 13, 128, 2),
    (2, 5, 2, 320, 5),
    (1, 1, 9, 24, 3),  # a head dim that vectors of 16 do not divide
    (1, 50, 385, 36, 1),  # one key more than a chunk
    (1, 47, 1000, 64, 2),
    (2, 2000, 20, 32, 2),  # several segments of queries, of uneven length
]


def make(B: int, N: int, M: int, C: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    key_value = torch.randn(B, M, 2 * C, generator=generator).to(dtype)  # as the model has them: halves of one tensor
    inputs = [torch.randn(B, N, C, generator=generator).to(dtype), *key_value.chunk(2, dim=-1)]
    return [x.requires_grad_() for x in inputs]


def exact(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    q, k, v = (x.double().unflatten(-1, (heads, -1)) for x in (q, k, v))
    weights = (torch.einsum("bnhd,bmhd->bhnm", q, k) / q.shape[-1] ** 0.5).softmax(-1)
    return torch.einsum("bhnm,bmhd->bnhd", weights, v).flatten(2)


def gradients(out: Tensor, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    return torch.autograd.grad(out, inputs, weight.to(out))


def numba_with_gradients(inputs: list[Tensor], heads: int) -> list[Tensor]:
    out = attention(*inputs, heads=heads, backend="numba")
    return [out.detach(), *gradients(out, inputs)]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_the_formula_forward_and_backward(shape, backend):
    *sizes, heads = shape
    inputs = make(*sizes)
    out, expected = attention(*inputs, heads=heads, backend=backend), exact(*inputs, heads)
    assert out.shape == inputs[0].shape and out.dtype == torch.float32
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-5)
    for name, got, want in zip("qkv", gradients(out, inputs), gradients(expected, inputs), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=2e-5, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("backend", BACKENDS)
def test_large_scores_do_not_overflow(backend):
    q, k, v = make(1, 80, 500, 64)
    out = attention(1000 * q, k, v, heads=1, backend=backend)
    torch.testing.assert_close(out.double(), exact(1000 * q, k, v, 1), rtol=1e-3, atol=1e-3)
    grads = gradients(attention(1e15 * q, 1e15 * k, v, heads=1, backend=backend), [q, k, v])
    assert all(grad.isfinite().all() for grad in grads)


def test_a_maximum_in_a_later_chunk_of_keys_takes_over():
    q, k, v = make(1, 60, 900, 32)
    with torch.no_grad():
        q.fill_(1.0)
        k.fill_(0.0)
        k[0, 850] = 30.0  # exp(30 * sqrt(32)) times the weight of all others
    out = attention(q, k, v, heads=1, backend="numba")
    torch.testing.assert_close(out, v[:, 850:851].expand_as(out), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_nan_comes_out(place):
    inputs = make(1, 100, 30, 32)
    with torch.no_grad():
        inputs[place][0, 10, 3] = float("nan")
    out, *grads = numba_with_gradients(inputs, heads=1)
    reached = out.isnan().any(-1)[0]
    assert reached[10] and (reached.all() if place else reached.sum() == 1)
    assert grads[0].isnan().any() and grads[1].isnan().any()


def test_threads_change_no_bit():
    inputs, before = make(2, 2000, 50, 64), torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(numba_with_gradients(inputs, heads=2))
    finally:
        torch.set_num_threads(before)
    assert all(map(torch.equal, results[0], results[1])) and all(map(torch.equal, results[0], results[2]))


@pytest.mark.parametrize("N", [1, 47, 300, 961, 1200, 19200, 19201, 307200])
def test_segments_are_whole_blocks_and_not_too_many(N):
    segment = attention_numba._segment(N)
    assert segment % attention_numba.BLOCK == 0
    assert 1 <= -(-N // segment) <= attention_numba.MAX_SEGMENTS


def test_blocks_are_those_of_the_kernel():
    from mdg.ops.attention import numba_kernels as kernels

    assert attention_numba.BLOCK == kernels.QUERIES
    assert kernels.KEYS % kernels.ROWS == 0 and kernels.KEYS % kernels.LANES == 0


def test_inputs_are_read_where_they_lie():
    base = torch.randn(2, 3 * 64, 90, generator=torch.Generator().manual_seed(0))
    q, k, v = (x.transpose(1, 2) for x in base.chunk(3, dim=1))  # channels before tokens
    for inputs in ([q, k, v], [q.flip(1), k[:, ::2], v[:, ::2]], [q, k[:, :1].expand_as(k), v]):
        inputs = [x.detach().requires_grad_() for x in inputs]
        out, *grads = numba_with_gradients(inputs, heads=2)
        expected = exact(*inputs, 2)
        torch.testing.assert_close(out.double(), expected.detach(), rtol=1e-5, atol=1e-5)
        for got, want in zip(grads, gradients(expected, inputs), strict=True):
            torch.testing.assert_close(got, want, rtol=1e-4, atol=2e-5)


def test_gradient_of_a_sum_has_strides_of_zero():
    inputs = make(1, 70, 20, 32)
    grads = torch.autograd.grad(attention(*inputs, heads=1, backend="numba").sum(), inputs)
    dense = torch.autograd.grad(attention(*inputs, heads=1, backend="numba"), inputs, torch.ones(1, 70, 32))
    assert all(map(torch.equal, grads, dense))


def test_empty_batch():
    out, *grads = numba_with_gradients(make(0, 70, 20, 32), heads=2)
    assert out.shape == (0, 70, 32) and [grad.shape for grad in grads] == [(0, 70, 32), (0, 20, 32), (0, 20, 32)]


def test_the_automatic_choice(monkeypatch):
    q, k, v = make(1, 400, 100, 64)
    assert OPERATOR.report(q, k, v, 1)["numba"] in (
        None,
        "PyTorch's own matrix product is the better one on this processor",
    )
    assert OPERATOR.report(q[:, :9], k, v, 1)["numba"] == "the product is small"
    assert OPERATOR.choose(*(x.double() for x in (q, k, v)), 1).name == "torch"
    monkeypatch.setattr("mdg.ops.cpu_kernels.is_installed", lambda package: False)
    assert OPERATOR.choose(q, k, v, 1).name == "torch"
    with pytest.raises(UserError, match="numba is not installed"):
        attention(q, k, v, heads=1, backend="numba")


@refused_inputs
def test_why_not(cast, reason):
    with pytest.raises(UserError, match=reason):
        attention(*map(cast, make(1, 5, 6, 32)), heads=1, backend="numba")


def test_operators_are_registered_correctly():
    q, k, v = (x.unflatten(-1, (2, -1)).detach().requires_grad_() for x in make(1, 30, 20, 32))
    torch.library.opcheck(torch.ops.mdg.attention.default, [q, k, v])
    q, k, v = (x.detach() for x in (q, k, v))
    out, lse = torch.ops.mdg.attention(q, k, v)
    torch.library.opcheck(torch.ops.mdg.attention_backward.default, [torch.ones_like(out), q, k, v, out, lse])


def test_compiles_to_one_graph():
    inputs = make(2, 300, 200, 64)
    compiled = torch.compile(
        lambda *x: attention(*x, heads=2, backend="numba") * 2, fullgraph=True, backend="aot_eager"
    )
    out, expected = compiled(*inputs), attention(*inputs, heads=2, backend="numba") * 2
    assert torch.equal(out, expected)
    assert all(map(torch.equal, gradients(out, inputs), gradients(expected, inputs)))
