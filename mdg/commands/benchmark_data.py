"""Measures how many images per second the training data of a configuration gives, one thread per process.

Prints images/s of reading alone (files, or the cache of data.cache, to memory), of augmentation alone (frames in memory
to batches) and of the whole loader, and the mean time of each transform. Other programs slow a machine down: compare
the best rounds, or the rates per second of processor time (of a single process).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from mdg.utils.cli import add_opts, run_tool, user_path


def parse() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="benchmark_data", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--config", type=user_path, metavar="YAML", required=True, help="such as configs/mfnet/mdg_b2.yaml"
    )
    parser.add_argument("--seconds", type=seconds, default=20.0, help="per figure, default 20; in five rounds")
    parser.add_argument(
        "--workers", type=int, nargs="+", metavar="N", help="loader processes; default: 0 and pipeline.workers"
    )
    parser.add_argument("--json", type=user_path, metavar="FILE", help="write the figures there too")
    add_opts(parser)
    return parser


def seconds(text: str) -> float:
    """A time to measure for."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 3600:
        raise argparse.ArgumentTypeError(f"got '{text}', expected seconds, more than 0 and at most 3600")
    return value


def run(args: argparse.Namespace) -> None:
    from mdg.benchmark.throughput import measure
    from mdg.benchmark.timing import ROUNDS
    from mdg.config import load_config
    from mdg.utils.cores import loader_processes
    from mdg.utils.environment import describe_environment
    from mdg.utils.files import require_writable, write_json

    if args.json:
        require_writable(args.json, "--json")
    config = load_config(args.config, args.opts)
    found = measure(config, args.seconds, args.workers or sorted({0, loader_processes(config.pipeline.workers)}))
    environment = describe_environment()
    names = ("torch", "torchvision", "opencv-python")
    packages = ", ".join(f"{name} {environment['packages'][name]}" for name in names)
    print(f"{environment['processor']}, one thread per process; {packages}; code {environment['code']}")
    print(f"{'images/s':24} {'best':>8} {'median':>8} {'CPU':>8}  CPU: per second of it; {ROUNDS} rounds")
    for name, rate in found["images_per_second"].items():
        cpu = f"{rate['per_cpu_second']:8.1f}" if rate["per_cpu_second"] else f"{'-':>8}"
        print(f"{name:24} {rate['best']:8.1f} {rate['median']:8.1f} {cpu}")
    print("augmentation, ms of processor time per image")
    for step in found["cpu_ms_per_image"]:
        print(f"{step['step']:24} {step['mean']:8.2f}")
    if args.json:
        settings = {"config": config.model_dump(mode="json"), "seconds": args.seconds, "threads_per_process": 1}
        write_json(args.json, {**settings, **found, "environment": environment})


def main(arguments: Sequence[str] | None = None) -> None:
    run_tool(run, parse(), arguments)


if __name__ == "__main__":
    main()
