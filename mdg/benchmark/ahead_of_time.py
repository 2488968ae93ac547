"""Triton kernels compiled for GPUs that are not here: that they compile, and what they take of a GPU.

``triton.compile`` needs no device, only the compiler that Triton brings along. What comes out is the machine code that
such a GPU would run, so that registers and spills are known before anybody has one.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mdg.ops.channel_scan.triton import constants as scan_constants
from mdg.ops.neighborhood_attention.triton import constants as attention_constants
from mdg.utils.markdown import table

ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)  # T4; A100; A10, RTX 30; RTX 40, L4; H100; B200; RTX 50
TYPES = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
BFLOAT16_FROM = 80
WARP = 32
BYTES_PER_KIB = 1024
PAGE = """\
# Triton kernels ahead of time

What the compiler makes of the kernels for GPUs of seven generations, without any of them at hand: registers of a thread
(255 is the most there is), `+` the bytes per thread that did not fit and lie in memory, and the most shared memory of a
program among them. `half` is bfloat16, on sm_75 float16. Triton {triton}, PyTorch {torch}. Written by
`python scripts/compile_kernels.py`; which kernel does what: [kernels.md](kernels.md).

sm_75: T4, RTX 20; sm_80: A100; sm_86: A10, RTX 30; sm_89: L4, RTX 40; sm_90: H100; sm_100: B200; sm_120: RTX 50.

{table}
"""


@dataclass(frozen=True)
class Kernel:
    """A kernel as the network calls it: its function, the types of its arguments, and what it is compiled for."""

    name: str
    shape: str
    dtype: str
    function: Any
    signature: Mapping[str, str]
    constants: Mapping[str, Any]
    num_warps: int


@dataclass(frozen=True)
class Compiled:
    """What a kernel takes on one architecture.

    Attributes:
        registers: Of each thread; 255 is the most there is.
        stack: Bytes of each thread's memory for what did not fit into registers.
        shared: Bytes of shared memory of a program.
        failure: What the compiler said where it failed.
    """

    registers: int = 0
    stack: int = 0
    shared: int = 0
    failure: str = ""


LENGTHS = (8, 16, 20, 32, 40, 64)  # of a scan
WINDOWS = ((32, 7), (32, 5), (32, 13), (16, 7), (64, 13), (8, 3))  # head dim and side
Job = tuple[int, int]  # architecture, place of a kernel among its kernels


def kernels(architecture: int) -> Iterator[Kernel]:
    """The kernels with the shapes of MDG-B2 at 480x640, as shipped and with the published interaction, and with the
    windows and head dims that bound them, in float32 and in the half precision that an architecture has."""
    dtypes = ("float32", "float16" if architecture < BFLOAT16_FROM else "bfloat16")
    yield from (kernel for dtype in dtypes for length in LENGTHS for kernel in _scan(length, dtype))
    for dtype in dtypes:
        for head_dim, window in WINDOWS:
            yield from _attention(head_dim, window, dtype, architecture)


def compile_kernel(kernel: Kernel, architecture: int) -> Compiled:
    """Compiles for compute capability ``architecture / 10``; errors of the compiler pass through."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = kernel.function.arg_names
    pointers = {(place,): [["tt.divisibility", 16]] for place, name in enumerate(names) if name.endswith("_ptr")}
    source = ASTSource(kernel.function, dict(kernel.signature), dict(kernel.constants), pointers)
    target = GPUTarget("cuda", architecture, WARP)
    binary = triton.compile(source, target=target, options={"num_warps": kernel.num_warps})
    registers, stack = _usage(binary.asm["cubin"])
    return Compiled(registers, stack, binary.metadata.shared)


def compile_all(run: Callable[[Callable[[Job], Compiled], Iterable[Job]], Iterable[Compiled]]) -> dict[Job, Compiled]:
    """Every kernel for every architecture; ``run`` is ``map``, or that of a pool of processes."""
    jobs = [(architecture, place) for architecture in ARCHITECTURES for place, _ in enumerate(kernels(architecture))]
    return dict(zip(jobs, run(_compile_job, jobs), strict=True))


def _compile_job(job: Job) -> Compiled:
    architecture, place = job
    try:
        return compile_kernel(list(kernels(architecture))[place], architecture)
    except Exception as error:  # of whatever kind the compiler's is
        return Compiled(failure=f"{type(error).__name__}: {error}".splitlines()[0])


def page(results: Mapping[Job, Compiled]) -> str:
    """The table of what every kernel takes, in Markdown."""
    import triton

    rows = []
    for place, kernel in enumerate(kernels(BFLOAT16_FROM)):
        found = [results[architecture, place] for architecture in ARCHITECTURES]
        half = "half" if kernel.dtype == "bfloat16" else kernel.dtype
        shared = max(result.shared for result in found) / BYTES_PER_KIB
        rows.append([kernel.name, kernel.shape, half, *map(_cell, found), f"{shared:.0f}"])
    header = ["kernel", "shapes", "numbers", *(f"sm_{architecture}" for architecture in ARCHITECTURES), "shared, KiB"]
    return PAGE.format(triton=triton.__version__, torch=torch.__version__, table=table(header, rows, left=3))


def _cell(result: Compiled) -> str:
    if result.failure:
        return "fails"
    return f"{result.registers}" + (f" + {result.stack}" if result.stack else "")


def _usage(cubin: bytes) -> tuple[int, int]:
    """Registers and bytes of stack, as NVIDIA's own program reads them out of the machine code."""
    import triton

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.cubin"
        file.write_bytes(cubin)
        command = [triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage", str(file)]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+)", said)
    assert found is not None, said
    return int(found[1]), int(found[2])


def _scan(length: int, dtype: str) -> Iterator[Kernel]:
    from mdg.ops.channel_scan import triton_kernels

    u, W, A = torch.empty(64, length, 32), torch.empty(2, 2, 32), torch.empty(2, 12, 32)
    for function, rows in ((triton_kernels.forward_kernel, 16), (triton_kernels.backward_kernel, 8)):
        per_step = {name: f"*{TYPES[dtype]}" for name in ("u_ptr", "p_ptr", "y_ptr", "gy_ptr", "gu_ptr", "gp_ptr")}
        shape = f"L={length}, D=32, N=12"
        yield _kernel("channel_scan", shape, dtype, function, per_step, scan_constants(u, W, A, rows))


def _attention(head_dim: int, window: int, dtype: str, architecture: int) -> Iterator[Kernel]:
    from mdg.ops.neighborhood_attention import triton_kernels

    x = torch.empty(1, 30, 40, 1, head_dim, dtype=getattr(torch, dtype), device="meta")
    per_feature = {f"{name}_ptr": f"*{TYPES[dtype]}" for name in ("q", "k", "v", "out", "gout", "gq", "gk", "gv")}
    for function, backward in (
        (triton_kernels.forward_kernel, False),
        (triton_kernels.backward_query_kernel, True),
        (triton_kernels.backward_key_kernel, True),
    ):
        numbers = {**per_feature, "scale": "fp32"}
        shape = f"d={head_dim}, {window}x{window}"
        chosen = attention_constants(x, window, backward=backward, architecture=architecture)
        yield _kernel("neighborhood_attention", shape, dtype, function, numbers, chosen)


def _kernel(
    operator: str, shape: str, dtype: str, function: Any, types: Mapping[str, str], constants: dict[str, Any]
) -> Kernel:
    """``types`` names the arguments that are not ``*fp32`` (pointers) or ``i32`` (numbers)."""
    num_warps = constants.pop("num_warps")
    signature = {
        name: "constexpr" if name in constants else types.get(name, "*fp32" if name.endswith("_ptr") else "i32")
        for name in function.arg_names
    }
    name = f"{operator}, {function.__name__.removesuffix('_kernel').replace('_', ' ')}"
    return Kernel(name, shape, dtype, function, signature, constants, num_warps)
