"""The sum of resized maps: every backend against interpolation written out in float64."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from mdg.errors import UserError
from mdg.ops import resized_sum
from mdg.ops.resize import resize_bilinear
from mdg.ops.resized_sum import OPERATOR

BACKENDS = ["torch", "numba"]
PYRAMID = ((32, 40), (16, 20), (8, 10), (4, 5))
SIZES = [
    PYRAMID,
    ((13, 9), (7, 5), (4, 3), (2, 2)),  # sides that do not divide
    ((5, 7), (5, 7), (1, 1)),
    ((3, 4), (6, 9)),  # a coarser one may be larger
    ((1, 1), (2, 3)),
    ((6, 5),),
]


def need(backend: str, sizes: Sequence[tuple[int, int]] = PYRAMID) -> None:
    if backend == "numba":
        pytest.importorskip("numba")
        if len(sizes) == 1:
            pytest.skip("numba takes two maps or more")


def maps_of(sizes, batch: int = 2, channels: int = 19) -> list[Tensor]:
    generator = torch.Generator().manual_seed(len(sizes))
    return [torch.randn(batch, *size, channels, generator=generator) for size in sizes]


def written_out(maps: list[Tensor]) -> Tensor:
    """Half-pixel centres, clamped at the borders: pixel by pixel."""
    total = maps[0].double().clone()
    _, H, W, _ = total.shape
    for x in maps[1:]:
        _, h, w, _ = x.shape
        for y in range(H):
            for column in range(W):
                (top, bottom, down), (left, right, along) = _between(y, h, H), _between(column, w, W)
                upper = (1 - along) * x[:, top, left].double() + along * x[:, top, right].double()
                lower = (1 - along) * x[:, bottom, left].double() + along * x[:, bottom, right].double()
                total[:, y, column] += (1 - down) * upper + down * lower
    return total


def _between(place: int, small: int, large: int) -> tuple[int, int, float]:
    position = min(max((place + 0.5) * small / large - 0.5, 0), small - 1)
    low = math.floor(position)
    return low, min(low + 1, small - 1), position - low


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("relu", [False, True])
def test_it_is_interpolation_written_out(backend, sizes, relu):
    need(backend, sizes)
    maps = maps_of(sizes)
    expected = written_out(maps)
    expected = expected.clamp(min=0) if relu else expected
    for context in (torch.no_grad(), torch.enable_grad()):  # the kernel alone, and as an operator
        with context:
            got = resized_sum(maps, relu=relu, backend=backend)
        assert got.shape == expected.shape and got.dtype == torch.float32 and got.is_contiguous()
        torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("sizes", SIZES)
def test_gradients_are_those_of_plain_pytorch(sizes, relu):
    need("numba", sizes)
    found = []
    for backend in BACKENDS:
        maps = [x.requires_grad_() for x in maps_of(sizes)]
        y = resized_sum(maps, relu=relu, backend=backend)
        found.append(torch.autograd.grad(y, maps, torch.arange(y.numel()).view(y.shape) / y.numel()))
    for got, expected in zip(*found, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_maps_may_lie_anyhow_in_memory():
    need("numba")
    maps = [x.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1) for x in maps_of(PYRAMID)]
    kept = [x.clone() for x in maps]
    torch.testing.assert_close(resized_sum(maps, backend="numba"), resized_sum(maps, backend="torch"))
    assert all(torch.equal(x, before) for x, before in zip(maps, kept, strict=True))


def test_the_bits_do_not_depend_on_the_threads():
    need("numba")
    maps, threads = maps_of(PYRAMID, channels=256), torch.get_num_threads()
    found = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.append(resized_sum(maps, backend="numba"))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_no_number_comes_out(backend):
    need(backend)
    maps = maps_of(((4, 4), (2, 2)))
    maps[0][0, 1, 1, 3], maps[1][1, 0, 0, 2] = math.nan, math.inf
    y = resized_sum(maps, relu=True, backend=backend)
    assert not (y[0, 1, 1, 3].isfinite() or y[1, 0, 0, 2].isfinite())
    assert (
        y[0].isfinite().sum() == y[0].numel() - 1 and y[1, ..., :2].isfinite().all() and y[1, ..., 3:].isfinite().all()
    )


def test_who_runs():
    numba = pytest.importorskip("numba")
    assert numba
    large, small = maps_of(PYRAMID, channels=64), maps_of(PYRAMID, batch=1, channels=8)

    def reasons(maps: list[Tensor]) -> str | None:
        return OPERATOR.report(maps[0], tuple(maps[1:]), False)["numba"]

    assert reasons(large) is None
    assert reasons(small) == "the maps are small"
    assert reasons(large[:1]) == "there is one map"
    assert "computes in float32" in str(reasons([x.half() for x in large]))


def test_a_compiler_may_trace_it():
    need("numba")
    maps = [x.requires_grad_() for x in maps_of(PYRAMID, channels=64)]
    arguments = (maps[0], maps[1:], False)
    torch.library.opcheck(torch.ops.mdg.resized_sum.default, arguments, test_utils=("test_schema", "test_faketensor"))


def test_a_resize_to_its_own_size_is_nothing():
    (x,) = maps_of(((3, 4),))
    assert resize_bilinear(x, x.shape[-2:]) is x


@pytest.mark.parametrize(
    "maps",
    [
        [torch.zeros(2, 4, 4, 3), torch.zeros(1, 2, 2, 3)],
        [torch.zeros(2, 4, 4, 3), torch.zeros(2, 2, 2, 4)],
        [torch.zeros(2, 4, 4, 3), torch.zeros(2, 2, 2, 3).double()],
        [torch.zeros(2, 4, 4, 3), torch.zeros(2, 0, 2, 3)],
        [torch.zeros(4, 4, 3)],
    ],
)
def test_maps_that_do_not_fit_are_a_message(maps):
    with pytest.raises(UserError, match=r"resized_sum: got maps .* expected .* equal B and C .* Project and cast"):
        resized_sum(maps)
