"""Linear layers against ``torch.nn.functional.linear`` in float64."""

from __future__ import annotations

import platform

import pytest
import torch
import torch.nn.functional as F

from mdg.errors import UserError
from mdg.ops import linear
from mdg.ops.linear import OPERATOR, linear_gradients
from mdg.ops.linear.onednn import X86, convolve_rows
from mdg.ops.modes import exporting

SHAPES = [((2, 9, 7, 64), 256), ((300, 64), 9), ((1, 31, 128), 1), ((5, 1), 3), ((4, 3, 320), 320)]
BACKENDS = ["onednn", "torch"]


def make(shape: tuple[int, ...], out: int, bias: bool = True, dtype: torch.dtype = torch.float32):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator).to(dtype).requires_grad_()
    weight = (torch.randn(out, shape[-1], generator=generator) / shape[-1] ** 0.5).to(dtype).requires_grad_()
    return x, weight, torch.randn(out, generator=generator).to(dtype).requires_grad_() if bias else None


def exact(x, weight, bias):
    return F.linear(x.double(), weight.double(), None if bias is None else bias.double())


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("shape", "out"), SHAPES)
def test_output_and_gradients_equal_float64(shape, out, bias, backend):
    inputs = make(shape, out, bias)
    y = linear(*inputs, backend=backend)
    expected = exact(*inputs)
    assert y.shape == (*shape[:-1], out) and y.dtype == torch.float32
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        assert torch.equal(linear(*inputs, backend=backend), y)
    grad = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    leaves = [tensor for tensor in inputs if tensor is not None]
    for found, true in zip(
        torch.autograd.grad(y, leaves, grad), torch.autograd.grad(expected, leaves, grad.double()), strict=True
    ):
        assert found.shape == true.shape
        torch.testing.assert_close(found, true.float(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_strided_inputs_and_weights(backend):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 6, 64, generator=generator).transpose(0, 1)[..., 16:48].requires_grad_()
    weight = torch.randn(24, 96, generator=generator).chunk(3, dim=1)[1]
    y = linear(x, weight, backend=backend)
    torch.testing.assert_close(y.double(), exact(x, weight, None), rtol=1e-5, atol=1e-4)
    (grad,) = torch.autograd.grad(y, x, torch.ones_like(y).transpose(0, 1).contiguous().transpose(0, 1))
    torch.testing.assert_close(grad, weight.sum(0).expand_as(grad), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("frozen", [0, 1, 2])
def test_what_needs_no_gradient_gets_none(frozen):
    inputs = make((400, 64), 128)
    inputs[frozen].requires_grad_(False)
    linear(*inputs, backend="onednn").sum().backward()
    assert [tensor.grad is None for tensor in inputs] == [place == frozen for place in range(3)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_by_hand(dtype):
    x, weight, bias = make((3, 200, 64), 96)
    grad = torch.randn(3, 200, 96, generator=torch.Generator().manual_seed(1))
    found = linear_gradients(grad.to(dtype), x.detach().to(dtype), weight.detach(), (True, True, True))
    true = torch.autograd.grad(exact(x, weight, bias), (x, weight, bias), grad.double())
    tolerance = 1e-4 if dtype == torch.float32 else 5e-2
    for one, other in zip(found, true, strict=True):
        torch.testing.assert_close(
            one.float() / other.abs().max(), other.float() / other.abs().max(), rtol=0, atol=tolerance
        )
    assert linear_gradients(grad, x, weight, (False, True, False))[::2] == (None, None)


def test_autocast_is_left_to_pytorch():
    x, weight, bias = make((400, 64), 128)
    with torch.autocast("cpu", torch.bfloat16):
        y = linear(x, weight, bias)
        assert torch.equal(y, F.linear(x, weight, bias))
        with pytest.raises(UserError, match="float32"):
            linear(x, weight, bias, backend="onednn")
    assert y.dtype == torch.bfloat16


def test_small_products_stay_where_they_are():
    x, weight, bias = make((3, 64), 16)
    assert OPERATOR.choose(x, weight, bias).name == "torch"
    assert OPERATOR.report(x, weight, bias)["onednn"] == "the product is small"


def test_what_onednn_cannot_do_is_said():
    x, weight, bias = make((400, 64), 128, dtype=torch.float64)
    with pytest.raises(
        UserError, match="'onednn', asked for by the argument backend=, cannot run: it computes in float32"
    ):
        linear(x, weight, bias, backend="onednn")
    with torch.backends.mkldnn.flags(enabled=False):
        assert "without oneDNN" in OPERATOR.report(x.float(), weight.float(), bias.float())["onednn"]


def test_empty_input():
    x, weight, bias = make((0, 64), 128)
    assert linear(x, weight, bias).shape == (0, 128)


def test_compiles_to_one_graph():
    inputs = make((2, 300, 64), 128)

    def action(x, weight, bias):
        return linear(x, weight, bias, backend="onednn").sin()

    compiled = torch.compile(action, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(*inputs), action(*inputs), rtol=1e-5, atol=1e-5)
    found = torch.autograd.grad(compiled(*inputs).sum(), inputs)
    for one, other in zip(found, torch.autograd.grad(action(*inputs).sum(), inputs), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.fixture(params=[1, 2])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_grouped_rows_equal_float64_and_stay_one_call(threads):
    """PyTorch would run 16 products one after the other in one thread."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 50, 64, generator=generator).requires_grad_()
    kernel = torch.randn(128, 4, 1, 1, generator=generator).requires_grad_()
    with torch.profiler.profile(acc_events=True) as profile:
        y = convolve_rows(x, kernel, groups=16)
        found = torch.autograd.grad(y.square().sum(), (x, kernel))
    parts = x.double().unflatten(-1, (16, 4))
    exact = torch.einsum("...gs,gos->...go", parts, kernel.double().view(16, 8, 4)).flatten(-2)
    torch.testing.assert_close(y.double(), exact, rtol=1e-5, atol=1e-5)
    for one, other in zip(found, torch.autograd.grad(exact.square().sum(), (x, kernel)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    if platform.machine() in X86 and torch.backends.mkldnn.is_available():
        calls = {event.key: event.count for event in profile.key_averages()}
        assert calls.get("aten::mkldnn_convolution") == 1 and "aten::_slow_conv2d_forward" not in calls


def test_a_graph_for_other_runtimes_does_not_depend_on_threads(threads, monkeypatch):
    seen, real = [], F.conv2d
    monkeypatch.setattr(F, "conv2d", lambda *inputs, **options: seen.append(options) or real(*inputs, **options))
    with exporting():
        convolve_rows(torch.zeros(3, 64), torch.zeros(128, 4, 1, 1), groups=16)
    assert [options["dilation"] for options in seen] == [1]


def test_products_of_one_thread_are_pytorchs(threads):
    x, weight, bias = make((400, 64), 128)
    told = OPERATOR.report(x, weight, bias)["onednn"] or ""
    assert told.startswith("in one thread") == (threads == 1)
