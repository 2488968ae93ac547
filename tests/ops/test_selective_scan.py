"""Selective scan against a loop in float64 that autograd differentiates.

Legend: B sequences, L steps, D channels, N states per channel.
"""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mdg.errors import UserError
from mdg.ops import selective_scan
from mdg.ops.selective_scan import mamba as selective_scan_mamba
from mdg.ops.selective_scan import plain

NAMES = ("u", "delta", "A", "B", "C", "D", "delta_bias")
SHAPES = [(3, 5, 4, 2), (1, 7, 3, 1), (4, 1, 2, 3), (2, 16, 32, 12)]  # (B, L, D, N)
gpu = pytest.mark.gpu
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def _inputs(B: int, L: int, D: int, N: int, dtype=torch.float64, device="cpu", seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(B, L, D), (B, L, D), (D, N), (B, L, N), (B, L, N), (D,), (D,)]
    inputs = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    inputs[2] = -inputs[2].exp()
    return [x.to(device, dtype).requires_grad_() for x in inputs]


def brute_force(
    u_BLD, delta_BLD, A_DN, B_BLN, C_BLN, D_D, delta_bias_D, delta_softplus: bool = True, reverse: bool = False
) -> Tensor:
    dt_BLD = delta_BLD + delta_bias_D
    if delta_softplus:
        dt_BLD = F.softplus(dt_BLD)
    steps = range(u_BLD.shape[1])
    h_BDN, y_BD = torch.zeros_like(A_DN), {}
    for step in reversed(steps) if reverse else steps:
        dt_BD1, u_BD1 = dt_BLD[:, step, :, None], u_BLD[:, step, :, None]
        h_BDN = torch.exp(dt_BD1 * A_DN) * h_BDN + dt_BD1 * u_BD1 * B_BLN[:, step, None]
        y_BD[step] = (h_BDN * C_BLN[:, step, None]).sum(-1) + D_D * u_BLD[:, step]
    return torch.stack([y_BD[step] for step in steps], 1)


def _scan(inputs: list[Tensor], **options) -> Tensor:
    *tensors, delta_bias_D = inputs
    return selective_scan(*tensors, delta_bias_D=delta_bias_D, **options)


def _assert_same_with_gradients(got: Tensor, expected: Tensor, inputs: list[Tensor], atol: float) -> None:
    torch.testing.assert_close(got, expected, rtol=0, atol=atol)
    weight = torch.randn(got.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(got)
    grads = torch.autograd.grad(got, inputs, weight, allow_unused=True)
    expected_grads = torch.autograd.grad(expected, inputs, weight, allow_unused=True)
    for name, grad, expected_grad in zip(NAMES, grads, expected_grads, strict=True):
        torch.testing.assert_close(grad, expected_grad, rtol=atol, atol=atol, msg=lambda m, n=name: f"{n}: {m}")


# --- on generated shapes -------------------------------------------------------------------------------------------


@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 40), st.integers(1, 5), st.integers(1, 4)),
    softplus=st.booleans(),
    reverse=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(max_examples=40)
def test_any_shape_equals_the_loop(shape, softplus, reverse, seed):
    inputs = _inputs(*shape, seed=seed)
    if not softplus:  # step sizes are then as given, and such of both signs let states grow
        for place in (1, 6):
            inputs[place] = (0.1 * inputs[place].detach().abs()).requires_grad_()
    options = {"delta_softplus": softplus, "reverse": reverse}
    _assert_same_with_gradients(_scan(inputs, **options), brute_force(*inputs, **options), inputs, 1e-9)


@given(st.integers(2, 30), st.integers(1, 29), st.integers(0, 99))
@settings(max_examples=30)
def test_a_step_depends_on_what_lies_before_it_alone(L, step, seed):
    step = min(step, L - 1)
    inputs = [x.detach() for x in _inputs(2, L, 3, 2, seed=seed)]
    changed = [x.clone() for x in inputs]
    for place in (0, 1, 3, 4):
        changed[place][:, step] += 1
    before, after = _scan(inputs), _scan(changed)
    torch.testing.assert_close(after[:, :step], before[:, :step], rtol=0, atol=1e-12)
    assert not torch.allclose(after[:, step], before[:, step])


@pytest.mark.parametrize("delta_softplus", [True, False])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_torch_equals_brute_force_forward_and_backward(shape, reverse, delta_softplus):
    inputs = _inputs(*shape)
    if not delta_softplus:  # a negative step would make the state grow without bound
        inputs[1], inputs[6] = (x.detach().abs().requires_grad_() for x in (inputs[1], inputs[6]))
    options = {"delta_softplus": delta_softplus, "reverse": reverse}
    got = _scan(inputs, **options, backend="torch")
    assert got.shape == inputs[0].shape and got.dtype == torch.float64
    _assert_same_with_gradients(got, brute_force(*inputs, **options), inputs, 1e-10)


@pytest.mark.parametrize("chunk", [1, 2, 3])
def test_result_does_not_depend_on_the_chunk(monkeypatch, chunk):
    inputs = _inputs(5, 6, 4, 2)
    monkeypatch.setattr(plain, "CPU_STATE_NUMEL", chunk * 4 * 2)
    untouched = [x.detach().clone() for x in inputs]
    _assert_same_with_gradients(_scan(inputs), brute_force(*inputs), inputs, 1e-10)
    assert all(torch.equal(x, before) for x, before in zip(inputs, untouched, strict=True))


def test_reverse_equals_flip_scan_flip():
    u, delta, A, B, C, D, bias = _inputs(3, 9, 4, 2)
    flipped = selective_scan(u.flip(1), delta.flip(1), A, B.flip(1), C.flip(1), D, delta_bias_D=bias).flip(1)
    torch.testing.assert_close(_scan([u, delta, A, B, C, D, bias], reverse=True), flipped, rtol=0, atol=1e-12)


def test_bias_defaults_to_zero():
    inputs = _inputs(2, 4, 3, 2)
    assert torch.equal(selective_scan(*inputs[:6]), _scan([*inputs[:6], torch.zeros(3, dtype=torch.float64)]))


@pytest.mark.parametrize("reverse", [False, True])
def test_gradcheck(reverse):
    assert torch.autograd.gradcheck(lambda *x: _scan(list(x), reverse=reverse), _inputs(2, 3, 2, 2))


@pytest.mark.parametrize(("B", "L"), [(0, 5), (3, 0), (0, 0)])
def test_empty_inputs(B, L):
    inputs = _inputs(B, L, 4, 2)
    y = _scan(inputs)
    grads = torch.autograd.grad(y.sum(), inputs)
    assert y.shape == (B, L, 4)
    assert [g.shape for g in grads] == [x.shape for x in inputs]
    assert not any(g.any() for g in grads)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_arithmetic_is_float32_and_output_has_the_dtype_of_u(dtype):
    inputs = _inputs(3, 8, 4, 3, dtype=dtype)
    got = _scan(inputs)
    expected = brute_force(*(x.double() for x in inputs))
    assert got.dtype == dtype
    # The only rounding to the lower precision is that of the output.
    torch.testing.assert_close(got.double(), expected, rtol=torch.finfo(dtype).eps, atol=1e-5)
    got.float().sum().backward()
    assert all(x.grad.dtype == dtype and torch.isfinite(x.grad).all() for x in inputs)


def test_autocast_changes_nothing():
    inputs = _inputs(3, 8, 4, 3, dtype=torch.float32)
    expected = _scan(inputs)
    expected_grads = torch.autograd.grad(expected.sum(), inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = _scan(inputs)
        grads = torch.autograd.grad(got.sum(), inputs)
    assert torch.equal(got, expected)
    assert all(torch.equal(g, e) for g, e in zip(grads, expected_grads, strict=True))


def test_meta_tensors_give_the_shape():
    inputs = _inputs(3, 8, 4, 3, dtype=torch.float32, device="meta")
    y = _scan(inputs)
    assert [g.shape for g in torch.autograd.grad(y.sum(), inputs)] == [x.shape for x in inputs]
    assert y.shape == (3, 8, 4)


def test_strided_inputs_and_gradients():
    u, delta, A, B, C, D, bias = _inputs(5, 3, 4, 2)
    inputs = [u.transpose(0, 1), delta.transpose(0, 1), A, B.transpose(0, 1), C.transpose(0, 1), D, bias]
    _assert_same_with_gradients(_scan(inputs), brute_force(*inputs), inputs, 1e-10)


def test_inference_mode_then_training():
    inputs = _inputs(2, 4, 3, 2)
    with torch.inference_mode():
        before = _scan(inputs)
    after = _scan(inputs)
    after.sum().backward()
    assert torch.equal(before, after)


@pytest.mark.parametrize("reverse", [False, True])
def test_operators_are_registered_correctly(reverse):
    inputs = _inputs(3, 4, 3, 2, dtype=torch.float32)
    torch.library.opcheck(plain.scan_forward, (*inputs, True, reverse))
    detached = [x.detach() for x in inputs]
    torch.library.opcheck(plain.scan_backward, (torch.ones_like(detached[0]), *detached, True, reverse))


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_to_one_graph(dynamic):
    def both_directions(*inputs: Tensor) -> Tensor:
        return _scan(list(inputs)) + _scan(list(inputs), reverse=True)

    torch.compiler.reset()
    compiled = torch.compile(both_directions, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for B in (3, 5):
        inputs = _inputs(B, 4, 3, 2)
        _assert_same_with_gradients(compiled(*inputs), both_directions(*inputs), inputs, 1e-12)


def test_no_state_is_saved_for_the_backward():
    inputs = _inputs(50, 8, 6, 12, dtype=torch.float32)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x.numel()) or x, lambda x: x):
        _scan(inputs)
    assert sum(saved) == sum(x.numel() for x in inputs) < 50 * 8 * 6 * 12


def test_shape_and_dtype_errors_name_the_tensor():
    u, delta, A, B, C, D, bias = _inputs(3, 5, 4, 2)
    with pytest.raises(UserError, match=r"got C \[3, 5, 1\]; expected \[3, 5, 2\]"):
        selective_scan(u, delta, A, B, C[..., :1], D)
    with pytest.raises(UserError, match=r"got delta_bias \[3\]; expected \[4\]"):
        selective_scan(u, delta, A, B, C, D, delta_bias_D=bias[:3])
    with pytest.raises(UserError, match=r"expected \[B, L, D\]"):
        selective_scan(u[0], delta, A, B, C, D)
    with pytest.raises(UserError, match="floating point"):
        selective_scan(u.detach().int(), delta, A, B, C, D)


def test_mamba_is_refused_on_cpu():
    with pytest.raises(UserError, match="mamba_ssm runs on CUDA tensors only, got cpu"):
        _scan(_inputs(2, 4, 3, 2), backend="mamba_ssm")


def _scan_in_mamba_layout(*, u, delta, A, B, C, D, delta_bias, delta_softplus) -> Tensor:
    u_BLD, delta_BLD, B_BLN, C_BLN = (x.transpose(1, 2) for x in (u, delta, B, C))
    return brute_force(u_BLD, delta_BLD, A, B_BLN, C_BLN, D, delta_bias, delta_softplus).transpose(1, 2)


@pytest.mark.parametrize("reverse", [False, True])
def test_mamba_adapter_layout_with_a_stand_in(monkeypatch, reverse):
    stand_in = SimpleNamespace(selective_scan_fn=_scan_in_mamba_layout)
    for name in ("mamba_ssm", "mamba_ssm.ops"):
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(__path__=[]))
    monkeypatch.setitem(sys.modules, "mamba_ssm.ops.selective_scan_interface", stand_in)
    inputs = _inputs(2, 5, 3, 2)
    got = selective_scan_mamba.mamba_selective_scan(*inputs, True, reverse)
    _assert_same_with_gradients(got, brute_force(*inputs, reverse=reverse), inputs, 1e-10)


def test_mamba_without_its_extension_is_a_reason(monkeypatch):
    selective_scan_mamba._try_import.cache_clear()
    monkeypatch.setitem(sys.modules, "mamba_ssm", SimpleNamespace(__path__=[]))
    monkeypatch.setitem(sys.modules, "selective_scan_cuda", None)
    assert "selective_scan_cuda" in selective_scan_mamba._try_import()
    selective_scan_mamba._try_import.cache_clear()


@gpu
@needs_cuda
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("backend", ["torch", "mamba_ssm"])
def test_cuda_equals_brute_force(backend, reverse):
    inputs = _inputs(64, 16, 32, 12, dtype=torch.float32, device="cuda")
    objection = selective_scan_mamba.why_not(inputs[0], inputs[2]) if backend == "mamba_ssm" else None
    if objection is not None:
        pytest.skip(objection)
    expected = brute_force(*(x.double() for x in inputs), reverse=reverse).float()
    _assert_same_with_gradients(_scan(inputs, reverse=reverse, backend=backend), expected, inputs, 1e-3)
