"""Channel scan: every backend against a loop in float64 that autograd differentiates.

Legend: B sequences, L steps, D features, N states, R rank of the step size, S directions.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mdg.errors import UserError
from mdg.ops import channel_scan
from mdg.ops.channel_scan import OPERATOR
from mdg.ops.channel_scan import numba as channel_scan_numba

NAMES = ("u", "projected", "dt_weight", "dt_bias", "A", "D")
SHAPES = [  # (B, L, D, N, R, S)
    (3, 16, 32, 12, 2, 2),
    (2, 7, 20, 5, 3, 2),
    (4, 1, 3, 1, 1, 1),
    (5, 40, 32, 12, 2, 1),
]
FUSED = pytest.mark.parametrize("backend", ["numba", "torch"])


def make_inputs(B: int, L: int, D: int, N: int, R: int, S: int, seed: int = 0, device: str = "cpu") -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(B, L, D), (B, L, S * (R + 2 * N)), (S, D, R), (S, D), (S, D, N), (S, D)]
    inputs = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    inputs[3] -= 2  # step sizes as small as those of the model
    inputs[4] = -inputs[4].exp()
    return [x.to(device, torch.float32).requires_grad_() for x in inputs]


def brute_force(u_BLD, projected_BLP, dt_weight_SDR, dt_bias_SD, A_SDN, D_SD) -> Tensor:
    S, _, R = dt_weight_SDR.shape
    N, L = A_SDN.shape[-1], u_BLD.shape[1]
    y = [torch.zeros_like(u_BLD[:, 0]) for _ in range(L)]
    for s, projected in enumerate(projected_BLP.chunk(S, dim=-1)):
        low, B_BLN, C_BLN = projected.split([R, N, N], dim=-1)
        h_BDN = 0
        for step in range(L) if s == 0 else reversed(range(L)):
            dt_BD = F.softplus(low[:, step] @ dt_weight_SDR[s].T + dt_bias_SD[s])
            h_BDN = torch.exp(dt_BD[..., None] * A_SDN[s]) * h_BDN
            h_BDN = h_BDN + (dt_BD * u_BLD[:, step])[..., None] * B_BLN[:, step, None]
            y[step] = y[step] + (h_BDN * C_BLN[:, step, None]).sum(-1) + D_SD[s] * u_BLD[:, step]
    return torch.stack(y, 1)


def with_gradients(function, inputs: list[Tensor]) -> list[Tensor]:
    y = function(*inputs)
    weight = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(y)
    return [y.detach(), *torch.autograd.grad(y, inputs, weight)]


# --- on generated shapes -------------------------------------------------------------------------------------------


@given(
    sequences=st.integers(1, 5),
    steps=st.integers(1, 24),
    features=st.sampled_from([(3, 1, 1), (20, 5, 3)]),  # each D, N, R is a kernel of its own
    directions=st.integers(1, 2),
    backend=st.sampled_from(["numba", "torch"]),
    seed=st.integers(0, 99),
)
@settings(max_examples=15)
def test_any_shape_equals_the_loop(sequences, steps, features, directions, backend, seed):
    if backend == "numba":
        pytest.importorskip("numba")
    inputs = make_inputs(sequences, steps, *features, directions, seed)
    got = with_gradients(lambda *x: channel_scan(*x, backend=backend), inputs)
    exact = [x.detach().double().requires_grad_() for x in inputs]
    for name, value, expected in zip(("y", *NAMES), got, with_gradients(brute_force, exact), strict=True):
        scale = 1 + expected.abs().max().item()
        assert (value.double() - expected).abs().max().item() < 2e-5 * scale, name


@given(st.integers(1, 6), st.integers(2, 24), st.integers(0, 99), st.sampled_from(["numba", "torch"]))
@settings(max_examples=20)
def test_two_directions_meet(sequences, steps, seed, backend):
    """The second direction is the first one over the flipped sequence, with parameters of its own."""
    if backend == "numba":
        pytest.importorskip("numba")
    u, projected, *parameters = (x.detach() for x in make_inputs(sequences, steps, 3, 1, 1, 2, seed))
    both = channel_scan(u, projected, *parameters, backend=backend)
    first, second = projected.chunk(2, dim=-1)
    there = channel_scan(u, first.contiguous(), *(x[:1] for x in parameters), backend=backend)
    back = channel_scan(u.flip(1), second.flip(1).contiguous(), *(x[1:] for x in parameters), backend=backend).flip(1)
    torch.testing.assert_close(both, there + back, rtol=1e-4, atol=1e-4)


def check(function, inputs: list[Tensor], tolerance: float = 1e-5) -> None:
    """Output and gradients, relative to the largest number of each."""
    doubles = [x.detach().double().requires_grad_() for x in inputs]
    expected = with_gradients(brute_force, doubles)
    for name, got, want in zip(("y", *NAMES), with_gradients(function, inputs), expected, strict=True):
        scale = want.abs().max().item() or 1.0
        torch.testing.assert_close(
            got.double() / scale, want / scale, rtol=0, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("backend", ["numba", "torch", "reference"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_brute_force_forward_and_backward(shape, backend):
    check(lambda *x: channel_scan(*x, backend=backend), make_inputs(*shape))


def test_the_reference_is_for_comparing():
    inputs = make_inputs(*SHAPES[0])
    assert "to compare with" in OPERATOR.report(*inputs)["reference"]
    with pytest.raises(UserError, match="at least one step"):
        channel_scan(*make_inputs(3, 0, 32, 12, 2, 2), backend="reference")


def test_float64_goes_to_the_plain_backend():
    inputs = [x.detach().double().requires_grad_() for x in make_inputs(*SHAPES[1])]
    assert OPERATOR.report(*inputs)["numba"] and OPERATOR.choose(*inputs).name == "torch"
    check(channel_scan, inputs, tolerance=1e-12)


@FUSED
def test_strong_and_weak_decay(backend):
    """Step sizes over 40 powers of two and decays that underflow: nothing overflows and nothing is NaN."""
    inputs = make_inputs(2, 24, 32, 12, 2, 2)
    with torch.no_grad():
        inputs[3].copy_(torch.linspace(-18, 18, 64).view(2, 32))
        inputs[4].copy_(-torch.logspace(-4, 3, 768).view(2, 32, 12))
    check(lambda *x: channel_scan(*x, backend=backend), inputs)


@pytest.mark.parametrize("steps", [1, 7, 1000])
def test_result_does_not_depend_on_chunks(monkeypatch, steps):
    inputs = make_inputs(9, 5, 32, 12, 2, 2)
    expected = with_gradients(lambda *x: channel_scan(*x, backend="numba"), inputs)
    monkeypatch.setattr(channel_scan_numba, "STEPS_PER_CHUNK", steps)
    for got, want in zip(with_gradients(lambda *x: channel_scan(*x, backend="numba"), inputs), expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


def test_threads_change_no_bit(monkeypatch):
    monkeypatch.setattr(channel_scan_numba, "STEPS_PER_CHUNK", 8)
    inputs = make_inputs(9, 5, 32, 12, 2, 2)
    results, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(with_gradients(lambda *x: channel_scan(*x, backend="numba"), inputs))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@FUSED
@pytest.mark.parametrize(("B", "L"), [(0, 5), (3, 0)])
def test_empty_inputs(B, L, backend):
    inputs = make_inputs(B, L, 32, 12, 2, 2)
    y, *grads = with_gradients(lambda *x: channel_scan(*x, backend=backend), inputs)
    assert y.shape == (B, L, 32)
    assert all(grad.shape == x.shape and not grad.any() for grad, x in zip(grads, inputs, strict=True))


@FUSED
def test_nan_comes_out(backend):
    for place in range(6):
        inputs = [x.detach().clone() for x in make_inputs(2, 5, 32, 12, 2, 2)]
        inputs[place].view(-1)[0] = float("nan")
        assert channel_scan(*inputs, backend=backend).isnan().any(), NAMES[place]


@FUSED
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_output_has_the_dtype_of_u_and_arithmetic_is_float32(dtype, backend):
    inputs = [x.detach() for x in make_inputs(*SHAPES[0])]
    inputs[0] = inputs[0].to(dtype)
    got = channel_scan(*inputs, backend=backend)
    assert got.dtype == dtype
    torch.testing.assert_close(got, brute_force(*(x.double() for x in inputs)).to(dtype), rtol=1e-2, atol=1e-2)


def test_strided_inputs_and_gradients():
    inputs = make_inputs(*SHAPES[0])
    strided = [x.detach().mT.contiguous().mT.requires_grad_() for x in inputs]
    assert not strided[0].is_contiguous()
    check(lambda *x: channel_scan(*x, backend="numba").mT.contiguous().mT, strided)


def test_operators_are_registered_correctly():
    inputs = [x.detach() for x in make_inputs(2, 4, 8, 3, 2, 2)]
    arguments = [*inputs[:2], inputs[2].mT, inputs[3], inputs[4].mT, inputs[5]]
    with_grad = [x.clone().requires_grad_() for x in arguments]
    torch.library.opcheck(torch.ops.mdg.channel_scan.default, with_grad)
    torch.library.opcheck(torch.ops.mdg.channel_scan_backward.default, [torch.ones_like(inputs[0]), *arguments])


def test_compiles_to_one_graph():
    inputs = make_inputs(*SHAPES[0])
    compiled = torch.compile(lambda *x: channel_scan(*x) * 2, fullgraph=True, backend="aot_eager")
    got, want = with_gradients(compiled, inputs), with_gradients(lambda *x: channel_scan(*x) * 2, inputs)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b)


def test_no_state_is_saved_for_the_backward():
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x.numel()) or x, lambda x: x):
        inputs = make_inputs(64, 16, 32, 12, 2, 2)
        channel_scan(*inputs, backend="numba")
    assert sum(saved) <= 1.1 * sum(x.numel() for x in inputs)


def test_shape_errors_name_the_tensor():
    inputs = [x.detach() for x in make_inputs(*SHAPES[0])]
    for place, name in enumerate(NAMES[1:4], start=1):
        wrong = list(inputs)
        wrong[place] = wrong[place][..., :-1]
        with pytest.raises(UserError, match=rf"got (projected|{name})|got u"):
            channel_scan(*wrong)
    with pytest.raises(UserError, match="one or two directions"):
        channel_scan(inputs[0], inputs[1], *(x.repeat(2, *[1] * (x.dim() - 1)) for x in inputs[2:]))
    with pytest.raises(UserError, match="floating point"):
        channel_scan(inputs[0].int(), *inputs[1:])


def test_without_numba_the_plain_backend_serves(monkeypatch):
    monkeypatch.setattr("mdg.ops.cpu_kernels.is_installed", lambda package: False)
    inputs = make_inputs(*SHAPES[0])
    assert OPERATOR.choose(*inputs).name == "torch"
    with pytest.raises(UserError, match="numba is not installed"):
        channel_scan(*inputs, backend="numba")


def test_the_plain_backend_calls_the_reference(monkeypatch):
    calls = []
    implementations = importlib.import_module("mdg.ops.selective_scan").IMPLEMENTATIONS
    monkeypatch.setitem(implementations, "torch", lambda *x: calls.append(x[-1]) or torch.zeros_like(x[0]))
    channel_scan(*make_inputs(*SHAPES[0]), backend="torch")
    assert calls == [False, True], "one scan from the first step on, one from the last"


INTERPRETED = """
import json, sys
sys.path.insert(0, sys.argv[1])
from test_channel_scan import check, make_inputs
from mdg.ops import channel_scan
for shape in json.loads(sys.argv[2]):
    check(lambda *x: channel_scan(*x, backend="triton"), make_inputs(*shape))
print("checked", len(json.loads(sys.argv[2])))
"""


def test_triton_kernels_in_the_interpreter():
    """The interpreter must be chosen before Triton is imported, hence a process of its own."""
    pytest.importorskip("triton")
    shapes = [(2, 7, 20, 3, 3, 2), (3, 4, 32, 2, 1, 1), (1, 1, 4, 1, 1, 2)]
    got = subprocess.run(
        [sys.executable, "-c", INTERPRETED, os.path.dirname(__file__), json.dumps(shapes)],
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert got.returncode == 0, got.stderr[-2000:]
    assert got.stdout.strip() == f"checked {len(shapes)}"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("backend", ["triton", "mamba_ssm", "torch"])
@pytest.mark.parametrize("shape", [(300, 16, 32, 12, 2, 2), (64, 40, 32, 12, 2, 2), (5000, 64, 32, 12, 2, 2)], ids=str)
def test_cuda_equals_brute_force(shape, backend):
    inputs = make_inputs(*shape, device="cuda")
    reason = OPERATOR.report(*inputs)[backend]
    if reason is not None:
        pytest.skip(reason)
    check(lambda *x: channel_scan(*x, backend=backend), inputs, tolerance=1e-4)
