"""Estimates what a training on many GPUs holds and exchanges, from sizes measured on one CPU.

python scripts/estimate_cluster.py configs/mfnet/mdg_b2.yaml --gpus 8 64 512
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from mdg.utils.cli import add_opts, imports, run_tool, user_path


def parse() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="estimate_cluster", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=user_path, help="YAML under configs/")
    parser.add_argument("--gpus", type=int, nargs="+", default=[8, 64, 512], metavar="N", help="(8 64 512)")
    parser.add_argument(
        "--link", type=float, default=12.5, metavar="GB/s", help="what a GPU gets from the network, each way (12.5)"
    )
    parser.add_argument("--step-ms", type=float, metavar="MS", help="what one GPU takes for a step, where it is known")
    add_opts(parser)
    return parser


def run(args: argparse.Namespace) -> None:
    with imports():
        from mdg.benchmark.batch_size import crop_size
        from mdg.benchmark.cluster import GIB, estimate_table, measure_sizes
        from mdg.benchmark.workload import Settings
        from mdg.config import load_config
        from mdg.errors import ConfigError

    if min(args.gpus) < 1:
        raise ConfigError(f"--gpus {min(args.gpus)}: expected at least 1")
    for name, value in (("--link", args.link), ("--step-ms", args.step_ms)):
        if value is not None and not 0 < value < float("inf"):
            raise ConfigError(f"{name} {value:g}: expected a number above 0")
    config = load_config(args.config, args.opts)
    height, width = crop_size(config)
    train = config.train
    plain = load_config(args.config, [*args.opts, "train.precision=fp32"])  # what is kept is measured in float32
    sizes = measure_sizes(Settings(plain, height=height, width=width, batch=1, mode="train"))
    print(
        f"{config.name}: {sizes.weights / 4e6:.2f} M numbers that learn; a pass over one image of {height}x{width} "
        f"keeps {sizes.kept / GIB:.2f} GiB in float32; {train.batch_size} image(s) a GPU and pass, {train.precision}\n"
    )
    text = estimate_table(
        sizes,
        args.gpus,
        images=train.batch_size,
        half=train.precision != "fp32",
        average=train.ema_decay is not None,
        passes=train.accumulate,
        link_gb=args.link,
        step_ms=args.step_ms,
    )
    print(text)


def main(arguments: Sequence[str] | None = None) -> None:
    run_tool(run, parse(), arguments)


if __name__ == "__main__":
    main()
