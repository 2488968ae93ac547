"""The numba backend of neighborhood attention: what is particular to it, against the tiled backend in float64.

Legend: B batch, H height, W width, h heads, d head dim.
"""

from __future__ import annotations

import pytest
import torch
from refused import refused_inputs
from torch import Tensor

from mdg.errors import UserError
from mdg.ops import neighborhood_attention
from mdg.ops.neighborhood_attention import OPERATOR
from mdg.ops.neighborhood_attention import numba as neighborhood_attention_numba

pytest.importorskip("numba")

# (B, H, W, h, d, kernel)
CASES = [
    (1, 60, 10, 1, 8, 3),  # two bands
    (1, 79, 7, 2, 4, 5),  # three bands, of uneven height
    (1, 98, 6, 1, 4, 31),  # bands as high as a window; more columns than 16 but for the width
    (1, 26, 23, 1, 16, 13),  # a width that groups of four do not divide
    (2, 6, 40, 2, 19, 17),  # more than 16 columns; a head dim that vectors of 16 do not divide
    (1, 5, 48, 1, 40, 29),  # 32 columns, all of them used
    (1, 3, 35, 1, 33, 15),  # 15 and the three further columns of a group are more than 16
    (3, 2, 2, 1, 1, 5),
    (1, 6, 5, 3, 48, 1),
]


def make_inputs(B: int, H: int, W: int, h: int, d: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(B, H, W, h, d, generator=generator).requires_grad_() for _ in range(3)]


def attend(*inputs: Tensor, kernel_size: int, scale: float = 0.3, backend: str = "numba") -> Tensor:
    return neighborhood_attention(*inputs, kernel_size=kernel_size, scale=scale, backend=backend)


def with_gradients(inputs: list[Tensor], **options) -> list[Tensor]:
    out = attend(*inputs, **options)
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out)
    return [out.detach(), *torch.autograd.grad(out, inputs, weight)]


def check(inputs: list[Tensor], tolerance: float = 5e-6, **options) -> None:
    doubles = [x.detach().double().requires_grad_() for x in inputs]
    expected = with_gradients(doubles, backend="tiled", **options)
    for name, got, want in zip(("out", "dq", "dk", "dv"), with_gradients(inputs, **options), expected, strict=True):
        scale = max(want.abs().max().item(), 1.0)
        error = (got.double() - want).abs().max().item() / scale
        assert error < tolerance, f"{name}: {error}"


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_tiled_forward_and_backward(case):
    *shape, kernel_size = case
    check(make_inputs(*shape), kernel_size=kernel_size)


@pytest.mark.parametrize("scale", [-0.5, 0.0])
def test_any_scale(scale):
    check(make_inputs(1, 9, 11, 2, 8), kernel_size=5, scale=scale)


def test_it_is_the_automatic_choice_for_float32_on_a_cpu():
    q, k, v = make_inputs(1, 5, 6, 1, 4)
    assert OPERATOR.choose(q, k, v, 3, 0.5).name == "numba"
    assert OPERATOR.choose(q.double(), k.double(), v.double(), 3, 0.5).name == "tiled"


@refused_inputs
def test_why_not(cast, reason):
    with pytest.raises(UserError, match=reason):
        attend(*map(cast, make_inputs(1, 5, 6, 1, 4)), kernel_size=3)


def test_without_numba_the_tiled_backend_serves(monkeypatch):
    monkeypatch.setattr("mdg.ops.cpu_kernels.is_installed", lambda package: False)
    inputs = make_inputs(1, 5, 6, 1, 4)
    assert OPERATOR.choose(*inputs, 3, 0.5).name == "tiled"
    with pytest.raises(UserError, match="numba is not installed"):
        attend(*inputs, kernel_size=3)


def test_inputs_are_read_where_they_lie():
    """Chunks of larger tensors, axes swapped, an axis of stride 0, and a last axis that is not contiguous."""
    base = torch.randn(2, 9, 14, 4 * 24, generator=torch.Generator().manual_seed(0))
    q, k, v, _ = (x.unflatten(-1, (3, 8)) for x in base.chunk(4, dim=-1))
    every_other = torch.randn(2, 14, 9, 3, 16, generator=torch.Generator().manual_seed(1))[..., ::2].transpose(1, 2)
    for inputs in ((q, k, v), (q, every_other, v), (q, k, v[:, :, :1].expand_as(v)), (q.flip(1), k, v)):
        assert not all(x.is_contiguous() for x in inputs)
        check([x.detach().requires_grad_() for x in inputs], kernel_size=5)


def test_gradient_of_a_sum_has_strides_of_zero():
    inputs = make_inputs(1, 6, 7, 2, 4)
    grads = torch.autograd.grad(attend(*inputs, kernel_size=3).sum(), inputs)
    dense = torch.autograd.grad(attend(*inputs, kernel_size=3), inputs, torch.ones(1, 6, 7, 2, 4))
    assert all(map(torch.equal, grads, dense))


def test_empty_batch():
    out, *grads = with_gradients(make_inputs(0, 9, 10, 2, 4), kernel_size=3)
    assert all(x.shape == (0, 9, 10, 2, 4) for x in (out, *grads))


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_change_no_bit(monkeypatch, threads):
    monkeypatch.setattr(neighborhood_attention_numba, "PRODUCTS_PER_CHUNK", 1)
    inputs, before = make_inputs(2, 130, 9, 2, 4), torch.get_num_threads()
    results = []
    try:
        for number in (1, threads):
            torch.set_num_threads(number)
            results.append(with_gradients(inputs, kernel_size=5))
    finally:
        torch.set_num_threads(before)
    assert all(map(torch.equal, *results))


@pytest.mark.parametrize("kernel_size", [1, 3, 13])
@pytest.mark.parametrize("height", [1, 12, 13, 25, 26, 27, 40, 61])
def test_bands_of_one_parity_share_no_row(monkeypatch, height, kernel_size):
    """Every row is in reach of a band, so that all gradients are written."""
    from mdg.ops.neighborhood_attention import numba_kernels as kernels

    monkeypatch.setattr(neighborhood_attention_numba, "BAND_ROWS", 1)
    rows, bands = min(kernel_size, height), neighborhood_attention_numba._bands((1, height, 1, 1, 1), kernel_size)
    reach = []
    for parity in range(min(bands, 2)):
        for item in range(len(range(parity, bands, 2))):
            *_, y0, y1, r0, r1 = kernels._locate(item, parity, 2, bands, height, 1, rows)
            assert y1 - y0 >= rows and r0 <= y0 < y1 <= r1
            reach.append((y0, set(range(r0, r1))))
    reach = [rows_read for _, rows_read in sorted(reach, key=lambda band: band[0])]  # from the top down
    assert set.union(*reach) == set(range(height))
    for one in range(len(reach)):
        for other in range(one + 2, len(reach)):
            assert not reach[one] & reach[other]


def test_many_thin_bands(monkeypatch):
    monkeypatch.setattr(neighborhood_attention_numba, "BAND_ROWS", 1)
    check(make_inputs(2, 23, 6, 1, 4), kernel_size=3)
    check(make_inputs(1, 11, 6, 1, 4), kernel_size=1)


def test_large_scores_do_not_overflow():
    q, k, v = make_inputs(1, 8, 9, 2, 8)
    check([(3e3 * q).detach().requires_grad_(), k, v], kernel_size=5, tolerance=1e-4)
    assert attend(1e15 * q, 1e15 * k, v, kernel_size=5).isfinite().all()


@pytest.mark.parametrize("place", [0, 1, 2])
def test_nan_comes_out(place):
    inputs = make_inputs(1, 20, 20, 1, 4)
    with torch.no_grad():
        inputs[place][0, 10, 10, 0, 0] = float("nan")
    out, *grads = with_gradients(inputs, kernel_size=5)
    reached = out.isnan().any(-1)[0, :, :, 0]
    assert reached[10, 10] and not reached[:8].any() and not reached[13:].any() and not reached[:, :5].any()
    if place:
        assert reached[8:13, 8:13].all()
    assert all(grad.isnan().any() for grad in grads[: 2 if place == 2 else 3])


def test_inference_mode_before_training():
    inputs = make_inputs(1, 9, 10, 1, 4)
    with torch.inference_mode():
        before = attend(*inputs, kernel_size=3)
    assert torch.equal(before, with_gradients(inputs, kernel_size=3)[0])


def test_only_inputs_are_saved():
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x.numel()) or x, lambda x: x):
        inputs = make_inputs(1, 30, 40, 1, 8)
        attend(*inputs, kernel_size=7)
    assert sum(saved) == sum(x.numel() for x in inputs)


def test_operators_are_registered_correctly():
    inputs = make_inputs(1, 5, 6, 2, 4)
    torch.library.opcheck(torch.ops.mdg.neighborhood_attention.default, [*inputs, 3, 0.5])
    backward = [torch.ones_like(inputs[0]), *(x.detach() for x in inputs), 3, 0.5]
    torch.library.opcheck(torch.ops.mdg.neighborhood_attention_backward.default, backward)


def test_compiles_to_one_graph():
    inputs = make_inputs(2, 12, 18, 2, 4)
    compiled = torch.compile(
        lambda *x: neighborhood_attention(*x, kernel_size=5) * 2, fullgraph=True, backend="aot_eager"
    )
    got, want = compiled(*inputs), neighborhood_attention(*inputs, kernel_size=5, backend="numba") * 2
    assert torch.equal(got, want)
    grads, expected = (torch.autograd.grad(y.square().sum(), inputs) for y in (got, want))
    assert all(map(torch.equal, grads, expected))
