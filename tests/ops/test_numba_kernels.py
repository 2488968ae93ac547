"""A kernel that was compiled gives the same bits as one that was read from disk."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys

import pytest

numba = pytest.importorskip("numba")
GRADIENTS = """
import hashlib, torch
from mdg.ops import attention, channel_scan, neighborhood_attention

torch.set_num_threads(2)
draw = lambda *shape: torch.randn(shape, generator=torch.Generator().manual_seed(len(shape))).requires_grad_()
maps, tokens = draw(2, 30, 40, 2, 32), draw(2, 1200, 64)
attended = neighborhood_attention(maps, maps, maps, kernel_size=9)
mixed = attention(tokens, tokens, tokens, heads=2)
ones = torch.ones
scanned = channel_scan(
    draw(60, 16, 32), draw(60, 16, 52), ones(2, 32, 2), ones(2, 32), -ones(2, 32, 12), ones(2, 32)
)
for y, x in ((attended, maps), (mixed, tokens)):
    (gradient,) = torch.autograd.grad(y, x, y.detach())
    print(hashlib.sha256(y.detach().numpy().tobytes() + gradient.numpy().tobytes()).hexdigest())
print(hashlib.sha256(scanned.detach().numpy().tobytes()).hexdigest())
"""


@pytest.mark.slow  # compiles all kernels anew
def test_the_first_run_gives_the_bits_of_the_second(tmp_path, repository):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(repository)}
    first, second = (
        subprocess.run([sys.executable, "-c", GRADIENTS], env=environment, capture_output=True, text=True, check=True)
        for _ in range(2)
    )
    assert any(tmp_path.iterdir()), "nothing was kept"
    assert len(first.stdout.split()) == 3 and first.stdout == second.stdout


@pytest.mark.parametrize("operator", ["attention", "channel_scan", "neighborhood_attention", "resized_sum"])
def test_a_kernel_calls_no_function_that_exists_beside_it(operator):
    kernels = importlib.import_module(f"mdg.ops.{operator}.numba_kernels")
    kind = numba.core.dispatcher.Dispatcher
    functions = {name: thing for name, thing in vars(kernels).items() if isinstance(thing, kind)}
    apart = [
        name
        for name, function in functions.items()
        if not function.targetoptions.get("forceinline") and function.targetoptions.get("inline") != "always"
    ]
    # Products are written in vectors of LLVM, which it compiles in one way only.
    assert set(apart) <= {"forward", "backward", "_products"}
    assert len(functions) > 0
