"""Says what this machine can run: versions, devices, and for each operator which backend serves and why not another."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from typing import Any

from mdg.utils.cli import run_tool


def parse() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="doctor", description=__doc__)
    parser.add_argument(
        "--compile", action="store_true", help="compile the CPU kernels, half a minute; else the first run does"
    )
    parser.add_argument(
        "--race", action="store_true", help="measure the backends on this CPU, which the automatic choice then goes by"
    )
    return parser


def example_inputs(device: str) -> dict[str, tuple[Any, ...]]:
    """Inputs of the operators, by name: as the first stage of a 480x640 image gives them, the scan fewer of them."""
    import torch

    import mdg.ops  # noqa: F401  (registers the operators)

    q = torch.zeros(1, 120, 160, 2, 32, device=device, requires_grad=True)
    u = torch.zeros(128, 16, 32, device=device, requires_grad=True)
    projected, dt_weight = torch.zeros(128, 16, 52, device=device), torch.zeros(2, 32, 2, device=device)
    vector, A = torch.zeros(2, 32, device=device), torch.zeros(2, 32, 12, device=device)
    tokens, keys = (torch.zeros(1, n, 64, device=device, requires_grad=True) for n in (19200, 300))
    maps = torch.zeros(1, 120, 160, 64, device=device), (torch.zeros(1, 60, 80, 64, device=device),)
    return {
        "neighborhood_attention": (q, q, q, 13, 32**-0.5),
        "channel_scan": (u, projected, dt_weight, vector, A, vector),
        "attention": (tokens, keys, keys, 1),
        "linear": (tokens, torch.zeros(64, 64, device=device), None),
        "resized_sum": (*maps, False),
    }


def compile_kernels() -> str:
    """Lets a small network run forwards and backwards, whose kernels stay on disk; says what came of it."""
    import torch

    from mdg.models import build_model
    from mdg.ops.cpu_kernels import why_not_numba

    reason = why_not_numba()
    if reason is not None:
        return f"no CPU kernels to compile: {reason}"
    network = build_model({"type": "MDG", "rgb_backbone": "b0", "thermal_backbone": "b0"}, num_classes=2)
    output = network(torch.zeros(2, 3, 64, 64), torch.zeros(2, 1, 64, 64))
    output.logits.sum().backward()
    return "the CPU kernels are compiled"


def race_backends() -> None:
    """Measures this machine, shows the table and keeps it."""
    from mdg.benchmark.machine import measure_machine
    from mdg.benchmark.page import machine_table
    from mdg.ops import measured
    from mdg.utils.files import require_writable
    from mdg.utils.logging import console

    if (file := measured.user_file()) is not None:
        require_writable(file)
    measurement = measure_machine()
    console.print(machine_table(measurement))
    print(f"kept in {measured.keep(measurement)}")


def measured_when() -> str:
    """Whether this machine was measured, in words."""
    import torch

    from mdg.ops.measured import current

    measurement, threads = current(), torch.get_num_threads()
    if measurement is None:
        return f"not yet, with {threads} thread(s) and this version; `python tools/doctor.py --race` does it"
    shapes = sum(map(len, measurement.operators.values()))
    return f"{measurement.at}, with {threads} thread(s): {shapes} shapes, by which the automatic choice goes on a CPU"


def run(args: argparse.Namespace) -> None:
    import torch

    from mdg.ops.dispatch import get_operator
    from mdg.utils.driver import unused_gpu
    from mdg.utils.environment import describe_environment

    if args.compile:
        print(compile_kernels())
    if args.race:
        race_backends()
    if args.compile or args.race:
        return
    environment = describe_environment()
    packages = environment.pop("packages")
    for key in ("mdg", "code", "python", "platform", "processor", "cpu_threads", "cuda", "gpus"):
        print(f"{key:12} {environment[key]}")
    if reason := unused_gpu():
        print(f"{'GPU':12} {reason}")
    print(f"{'packages':12} " + ", ".join(f"{name} {version or 'absent'}" for name, version in packages.items()))
    compiler = next((path for name in ("c++", "g++", "clang++") if (path := shutil.which(name))), None)
    print(f"{'C++':12} {compiler or 'absent'} (train.compile on a CPU needs one)")
    print(f"{'measured':12} {measured_when()}")
    for device in ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]:
        for name, inputs in example_inputs(device).items():
            operator = get_operator(name)
            print(f"{name} on {device}, training: {operator.choose(*inputs, backend='auto').name}")
            for backend, reason in operator.report(*inputs).items():
                print(f"  {backend:10} {'ready' if reason is None else 'no: ' + reason}")


def main(arguments: Sequence[str] | None = None) -> None:
    run_tool(run, parse(), arguments)


if __name__ == "__main__":
    main()
