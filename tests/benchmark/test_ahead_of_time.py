"""Triton kernels become machine code for GPUs that are not here."""

from __future__ import annotations

import pytest

pytest.importorskip("triton", reason="Triton is not installed")

from mdg.benchmark.ahead_of_time import ARCHITECTURES, Compiled, compile_all, compile_kernel, kernels, page

MOST_REGISTERS = 255
# Bytes of a thread that may lie in memory: a few registers around a loop; more with head dims that no network here has.
MOST_STACK, MOST_STACK_OF_WIDE_HEADS = 24, 128
SHARED = {75: 64, 80: 163, 86: 99, 89: 99, 90: 227, 100: 227, 120: 99}  # KiB that a program may have


def test_every_kernel_is_there():
    names = {kernel.name for kernel in kernels(80)}
    assert names == {
        "channel_scan, forward",
        "channel_scan, backward",
        "neighborhood_attention, forward",
        "neighborhood_attention, backward query",
        "neighborhood_attention, backward key",
    }


def test_the_page_has_a_row_for_every_kernel_and_a_column_for_every_architecture():
    results = compile_all(lambda _, jobs: [Compiled(100 + a % 10, 8 * (place == 0), 2048) for a, place in jobs])
    rows = [line for line in page(results).splitlines() if line.startswith(("| channel", "| neigh"))]
    assert len(rows) == len(list(kernels(80)))
    assert "| 105 + 8 | 100 + 8 | 106 + 8 | 109 + 8 | 100 + 8 | 100 + 8 | 100 + 8 | 2 |" in rows[0]
    assert "| float32 | 105 | 100 | 106 | 109 | 100 | 100 | 100 | 2 |" in rows[1]
    failed = compile_all(lambda _, jobs: [Compiled(failure="no") for _ in jobs])
    assert page(failed).count("| fails ") == len(rows) * len(ARCHITECTURES)


def check(kernel, architecture):
    got = compile_kernel(kernel, architecture)
    assert 0 < got.registers <= MOST_REGISTERS
    assert got.stack <= (MOST_STACK_OF_WIDE_HEADS if "d=64" in kernel.shape else MOST_STACK), got
    assert got.shared <= 1024 * SHARED[architecture], got


def test_a_kernel_compiles_for_the_oldest_and_the_newest():
    for architecture in (ARCHITECTURES[0], ARCHITECTURES[-1]):
        check(next(k for k in kernels(architecture) if k.name == "neighborhood_attention, forward"), architecture)


@pytest.mark.slow  # each takes one to five seconds of the compiler
@pytest.mark.parametrize(
    ("kernel", "architecture"),
    [(kernel, architecture) for architecture in ARCHITECTURES for kernel in kernels(architecture)],
    ids=lambda x: f"{x.name}, {x.shape}, {x.dtype}" if hasattr(x, "dtype") else f"sm_{x}",
)
def test_every_kernel_compiles_without_spills(kernel, architecture):
    check(kernel, architecture)
