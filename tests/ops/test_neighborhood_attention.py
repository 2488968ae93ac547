"""Neighborhood attention against a loop over positions in float64, and against NATTEN itself.

Legend: B batch, H height, W width, h heads, d head dim.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mdg.errors import UserError
from mdg.ops import neighborhood_attention
from mdg.ops.neighborhood_attention import natten as natten_backend
from mdg.ops.neighborhood_attention import tiled

pytestmark = pytest.mark.no_cover  # a hundred shapes of one function

# (B, H, W, h, d, kernel)
CASES = [
    (1, 7, 9, 2, 4, 3),
    (2, 13, 5, 1, 8, 7),  # width below the kernel
    (2, 15, 20, 3, 4, 5),  # the deepest stage of a 480x640 image
    (1, 4, 6, 2, 4, 13),  # both sides below the kernel
    (1, 1, 11, 1, 4, 5),  # a single row
    (1, 17, 25, 2, 4, 13),  # one position more than whole tiles
    (1, 8, 16, 1, 4, 9),  # whole tiles
    (2, 5, 3, 2, 4, 1),  # every position sees itself only
    (1, 1, 1, 1, 4, 3),
]
gpu = pytest.mark.gpu
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def _inputs(B: int, H: int, W: int, h: int, d: int, dtype=torch.float64, device="cpu", seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (B, H, W, h, d)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(device, dtype) for _ in range(3)]


def _window(position: int, side: int, kernel_size: int) -> slice:
    kernel = min(kernel_size, side)
    start = min(max(position - kernel // 2, 0), side - kernel)
    return slice(start, start + kernel)


def brute_force(q_BHWhd: Tensor, k_BHWhd: Tensor, v_BHWhd: Tensor, kernel_size: int, scale: float) -> Tensor:
    _, H, W, _, _ = q_BHWhd.shape
    outputs = []
    for y, x in itertools.product(range(H), range(W)):
        window = (slice(None), _window(y, H, kernel_size), _window(x, W, kernel_size))
        k_BKhd, v_BKhd = k_BHWhd[window].flatten(1, 2), v_BHWhd[window].flatten(1, 2)
        weight_BKh = (scale * (q_BHWhd[:, None, y, x] * k_BKhd).sum(-1)).softmax(1)
        outputs.append((weight_BKh.unsqueeze(-1) * v_BKhd).sum(1))
    return torch.stack(outputs, 1).view_as(q_BHWhd)


def _max_error(got: Tensor, expected: Tensor) -> float:
    return (got.double() - expected.double()).abs().max().item()


# --- on generated shapes -------------------------------------------------------------------------------------------


@given(
    size=st.tuples(
        st.integers(1, 2), st.integers(1, 20), st.integers(1, 20), st.integers(1, 3), st.sampled_from([1, 4, 7])
    ),
    kernel_size=st.integers(0, 7).map(lambda half: 2 * half + 1),
    scale=st.sampled_from([1.0, 0.25, -1.0, 0.0]),
    backend=st.sampled_from(["tiled", "numba"]),
    order=st.permutations(range(4)),
    seed=st.integers(0, 99),
)
@settings(max_examples=40)
def test_any_shape_and_layout_equals_the_loop(size, kernel_size, scale, backend, order, seed):
    """Values and gradients; heads, rows and columns may lie in memory in any order."""
    if backend == "numba":
        pytest.importorskip("numba")
    dtype, atol = (torch.float64, 1e-10) if backend == "tiled" else (torch.float32, 2e-5)
    inverse = [*sorted(range(4), key=order.__getitem__), 4]
    plain = [x.permute(*order, 4).contiguous().permute(inverse) for x in _inputs(*size, dtype=dtype, seed=seed)]
    inputs = [x.detach().requires_grad_() for x in plain]
    exact = [x.detach().double().requires_grad_() for x in plain]
    got = neighborhood_attention(*inputs, kernel_size=kernel_size, scale=scale, backend=backend)
    expected = brute_force(*exact, kernel_size, scale)
    assert _max_error(got, expected) < atol
    grads = torch.autograd.grad(got.square().sum(), inputs)
    expected_grads = torch.autograd.grad(expected.square().sum(), exact)
    for grad, expected_grad in zip(grads, expected_grads, strict=True):
        assert _max_error(grad, expected_grad) < 50 * atol


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 4), st.integers(0, 99))
@settings(max_examples=20)
def test_an_output_is_a_mean_of_what_it_sees(H, W, half, seed):
    """Keys that are all alike give the mean of the window; a value that no window holds changes nothing."""
    kernel_size = 2 * half + 1
    q, _, v = _inputs(1, H, W, 1, 3, seed=seed)
    mean = neighborhood_attention(q, torch.zeros_like(q), v, kernel_size=kernel_size, backend="tiled")
    for y, x in itertools.product(range(H), range(W)):
        seen = v[:, _window(y, H, kernel_size), _window(x, W, kernel_size)].mean((1, 2))
        torch.testing.assert_close(mean[:, y, x], seen)
    changed = v.clone()
    changed[:, 0, 0] += 100
    other = neighborhood_attention(q, torch.zeros_like(q), changed, kernel_size=kernel_size, backend="tiled")
    for y, x in itertools.product(range(H), range(W)):
        sees = _window(y, H, kernel_size).start == 0 and _window(x, W, kernel_size).start == 0
        assert torch.equal(other[:, y, x], mean[:, y, x]) != sees


@pytest.mark.parametrize(
    ("backend", "dtype", "atol"), [("tiled", torch.float64, 1e-12), ("numba", torch.float32, 5e-6)]
)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_brute_force_forward_and_backward(case, backend, dtype, atol):
    check(case, backend, dtype, atol)


def check(case: tuple[int, ...], backend: str, dtype: torch.dtype, atol: float) -> None:
    *shape, kernel_size = case
    q, k, v = (x.requires_grad_() for x in _inputs(*shape, dtype=dtype))
    expected = brute_force(q.double(), k.double(), v.double(), kernel_size, 0.3)
    got = neighborhood_attention(q, k, v, kernel_size=kernel_size, scale=0.3, backend=backend)
    assert got.shape == q.shape and got.dtype == q.dtype
    assert _max_error(got, expected) < atol
    weight = torch.randn(got.shape, generator=torch.Generator().manual_seed(1), dtype=dtype)
    grads = torch.autograd.grad(got, (q, k, v), weight)
    expected_grads = torch.autograd.grad(expected, (q, k, v), weight.double())
    assert max(map(_max_error, grads, expected_grads)) < atol


def test_result_does_not_depend_on_the_tile(monkeypatch):
    q, k, v = _inputs(1, 13, 19, 2, 4)
    expected = brute_force(q, k, v, 7, 0.5)
    for tile in (1, 3, 5, 32):
        monkeypatch.setattr(tiled, "TILE", tile)
        tiled._cached_tables.cache_clear()
        assert _max_error(neighborhood_attention(q, k, v, kernel_size=7, scale=0.5, backend="tiled"), expected) < 1e-12
    tiled._cached_tables.cache_clear()


def test_default_scale_and_automatic_choice_on_cpu():
    q, k, v = _inputs(1, 6, 7, 2, 16)
    assert _max_error(neighborhood_attention(q, k, v, kernel_size=3), brute_force(q, k, v, 3, 0.25)) < 1e-12


def test_strided_inputs_and_empty_batch():
    q, k, v = (x.transpose(1, 2) for x in _inputs(1, 9, 6, 2, 4))
    assert _max_error(neighborhood_attention(q, k, v, kernel_size=3, scale=1), brute_force(q, k, v, 3, 1)) < 1e-12
    empty = torch.zeros(0, 9, 10, 2, 4, requires_grad=True)
    out = neighborhood_attention(empty, empty, empty, kernel_size=3)
    out.sum().backward()
    assert out.shape == empty.grad.shape == (0, 9, 10, 2, 4)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("case", [c for c in CASES if min(c[1:3]) > 1 and c[-1] > 1], ids=str)
def test_tiled_equals_natten(case):
    pytest.importorskip("natten", reason="the library natten is not installed")
    B, H, W, h, _, kernel_size = case
    q, k, v = _inputs(B, H, W, h, 8, dtype=torch.float32)  # NATTEN takes head_dim 8 and more
    objection = natten_backend.why_not(q, k, v, kernel_size, 0.5)
    if objection is not None:
        pytest.skip(objection)
    oracle = neighborhood_attention(q, k, v, kernel_size=kernel_size, scale=0.5, backend="natten")
    got = neighborhood_attention(q, k, v, kernel_size=kernel_size, scale=0.5, backend="tiled")
    torch.testing.assert_close(got, oracle, rtol=1e-5, atol=1e-5)


def test_gradcheck():
    inputs = tuple(x.requires_grad_() for x in _inputs(1, 3, 4, 1, 2))
    assert torch.autograd.gradcheck(lambda q, k, v: neighborhood_attention(q, k, v, kernel_size=3), inputs)


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-5), (torch.float16, 5e-3), (torch.bfloat16, 4e-2)])
def test_lower_precision(dtype, atol):
    q, k, v = (x.requires_grad_() for x in _inputs(1, 9, 10, 2, 8, dtype=dtype))
    got = neighborhood_attention(q, k, v, kernel_size=5, scale=0.35)
    got.float().sum().backward()
    assert got.dtype == q.grad.dtype == dtype
    assert torch.isfinite(q.grad).all()
    assert _max_error(got, brute_force(q.double(), k.double(), v.double(), 5, 0.35)) < atol


def test_autocast_unifies_mixed_dtypes():
    q, k, v = _inputs(1, 9, 10, 2, 8, dtype=torch.float32)
    q.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = neighborhood_attention(q, k.bfloat16(), v, kernel_size=3)
    out.float().sum().backward()
    assert out.dtype == torch.bfloat16 and q.grad.dtype == torch.float32
    assert neighborhood_attention(q, k.bfloat16(), v, kernel_size=3).dtype == torch.float32


def test_inference_mode_first_does_not_poison_training():
    tiled._cached_tables.cache_clear()
    q, k, v = _inputs(1, 9, 10, 1, 4)
    with torch.inference_mode():
        before = neighborhood_attention(q, k, v, kernel_size=3)
    after = neighborhood_attention(q.requires_grad_(), k, v, kernel_size=3)
    after.sum().backward()
    assert torch.equal(before, after) and q.grad is not None


def test_fake_tensors_do_not_enter_the_cache():
    fake_tensor = pytest.importorskip("torch._subclasses.fake_tensor")
    inputs = _inputs(1, 9, 10, 1, 4)
    tiled._cached_tables.cache_clear()
    for _ in range(2):  # with an empty cache, then with a full one
        with fake_tensor.FakeTensorMode():
            x = torch.empty(1, 9, 10, 1, 4, dtype=torch.float64)
            assert neighborhood_attention(x, x, x, kernel_size=3).shape == x.shape
        assert type(neighborhood_attention(*inputs, kernel_size=3)) is Tensor


def _check_compiled(shapes: list[tuple[int, int, int]], **options) -> None:
    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return neighborhood_attention(q, k, v, kernel_size=5, scale=0.5)

    torch.compiler.reset()
    compiled = torch.compile(attend, fullgraph=True, backend="aot_eager", **options)
    for B, H, W in shapes:
        inputs = [x.requires_grad_() for x in _inputs(B, H, W, 2, 4)]
        got, expected = compiled(*inputs), attend(*inputs)
        torch.testing.assert_close(got, expected)
        grads, expected_grads = (torch.autograd.grad(y.square().sum(), inputs) for y in (got, expected))
        torch.testing.assert_close(grads, expected_grads)


def test_compiles_to_one_graph_for_any_batch():
    _check_compiled([(1, 12, 18), (2, 12, 18), (3, 12, 18)])


@pytest.mark.slow  # symbolic map sizes take the tracer half a minute
def test_compiles_to_one_graph_for_any_size():
    _check_compiled([(1, 12, 18), (1, 30, 41), (1, 10, 9)], dynamic=True)


def test_meta_tensors_give_the_shape():
    x = torch.empty(2, 9, 10, 2, 8, device="meta")
    assert neighborhood_attention(x, x, x, kernel_size=3).shape == x.shape


class _LargestTensor(TorchDispatchMode):
    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        sizes = [x.numel() for x in torch.utils._pytree.tree_leaves(out) if isinstance(x, Tensor)]
        self.numel = max(self.numel, *sizes, 0)
        return out


def _memory(side: int) -> tuple[int, int]:
    """Largest intermediate, in numbers, and bytes saved for the backward."""
    inputs = [x.requires_grad_() for x in _inputs(1, side, side, 1, 4, dtype=torch.float32)]
    saved = 0

    def pack(x: Tensor) -> Tensor:
        nonlocal saved
        saved += x.numel() * x.element_size()
        return x

    tiled._cached_tables.cache_clear()
    with _LargestTensor() as largest, torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        neighborhood_attention(*inputs, kernel_size=5, backend="tiled").sum().backward()
    return largest.numel, saved


def test_memory_is_linear_in_positions():
    (numel_small, saved_small), (numel_large, saved_large) = _memory(32), _memory(64)
    assert numel_large <= 4.2 * numel_small  # all pairs would be 16 times as many
    assert saved_large <= 4.2 * saved_small


@pytest.mark.parametrize("kernel_size", [4, 0, -3, 3.0, None])
def test_kernel_size_must_be_odd(kernel_size):
    with pytest.raises(UserError, match="expected an odd integer"):
        neighborhood_attention(*_inputs(1, 6, 6, 1, 4), kernel_size=kernel_size)


def test_shape_and_dtype_errors():
    q, k, v = _inputs(1, 6, 6, 1, 4)
    with pytest.raises(UserError, match="expected three equal shapes"):
        neighborhood_attention(q, k[:, :5], v, kernel_size=3)
    with pytest.raises(UserError, match="expected three equal shapes"):
        neighborhood_attention(q[0], k[0], v[0], kernel_size=3)
    with pytest.raises(UserError, match="at least 1"):
        neighborhood_attention(q[:, :0], k[:, :0], v[:, :0], kernel_size=3)
    with pytest.raises(UserError, match="floating point"):
        neighborhood_attention(q.int(), k.int(), v.int(), kernel_size=3)


def test_natten_is_refused_for_training_on_cpu():
    q, k, v = _inputs(1, 6, 6, 1, 4, dtype=torch.float32)
    with pytest.raises(UserError, match="no backward pass on CPU"):
        neighborhood_attention(q.requires_grad_(), k, v, kernel_size=3, backend="natten")


@gpu
@needs_cuda
@pytest.mark.parametrize("backend", ["tiled", "natten", "triton"])
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 5e-3), (torch.bfloat16, 5e-2)])
def test_cuda_equals_brute_force(backend, dtype, atol):
    q, k, v = (x.requires_grad_() for x in _inputs(2, 15, 20, 2, 32, dtype=dtype, device="cuda"))
    objection = natten_backend.why_not(q, k, v, 5, 0.2) if backend == "natten" else None
    if objection is not None:
        pytest.skip(objection)
    got = neighborhood_attention(q, k, v, kernel_size=5, scale=0.2, backend=backend)
    expected = brute_force(q.double(), k.double(), v.double(), 5, 0.2)
    assert _max_error(got, expected) < atol
    weight = torch.randn_like(got)
    grads = torch.autograd.grad(got, (q, k, v), weight)
    expected_grads = torch.autograd.grad(expected, (q, k, v), weight.double())
    assert max(map(_max_error, grads, expected_grads)) < 4 * atol


INTERPRETED = """
import sys
sys.path[:0] = sys.argv[1:]
import torch
from test_neighborhood_attention import check
for case in [(1, 9, 10, 1, 4, 3), (2, 3, 17, 2, 8, 5), (1, 1, 4, 1, 20, 13)]:
    check(case, "triton", torch.float32, 5e-6)
check((1, 9, 8, 1, 8, 5), "triton", torch.float16, 5e-3)  # the interpreter has no products of bfloat16
print("checked")
"""


def test_triton_kernels_in_the_interpreter():
    """The interpreter must be chosen before Triton is imported, hence a process of its own."""
    pytest.importorskip("triton")
    here = Path(__file__).parent
    got = subprocess.run(
        [sys.executable, "-c", INTERPRETED, here, here.parent / "support"],
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert got.returncode == 0, got.stderr[-2000:]
    assert got.stdout.strip() == "checked"


def test_triton_says_what_it_does_not_take(monkeypatch):
    from mdg.ops.neighborhood_attention import triton

    def objection(dtype=torch.float32, d=8, kernel_size=5):
        return triton.why_not(*_inputs(1, 4, 4, 1, d, dtype=dtype), kernel_size, 1.0)

    monkeypatch.setattr("mdg.ops.triton_launch.is_installed", lambda package: False)
    assert objection() == "triton is not installed"
    monkeypatch.setattr("mdg.ops.triton_launch.is_installed", lambda package: True)
    assert objection() == "it runs on CUDA and the input is on cpu"
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert objection() is None and triton.why_not_automatic() is not None
    assert "got torch.float64" in objection(torch.float64)
    assert "up to 64, got 65" in objection(d=65)
    assert "up to 13, got 15" in objection(kernel_size=15)
