"""Finds how many images of a training step fit into the memory at hand.

python scripts/find_batch_size.py configs/mfnet/mdg_b2.yaml
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from mdg.utils.cli import add_opts, imports, run_tool, user_path


def parse() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="find_batch_size", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=user_path, help="YAML under configs/")
    parser.add_argument("--share", type=float, default=0.9, metavar="S", help="of the free memory to take (0.9)")
    add_opts(parser)
    return parser


def run(args: argparse.Namespace) -> None:
    with imports():
        from mdg.benchmark.batch_size import advise, find_batch_size
        from mdg.config import load_config

    config = load_config(args.config, args.opts)
    fit, images = find_batch_size(config, share=args.share), config.train.batch_size * config.train.accumulate
    advice = advise(fit, config)
    size = "{}x{}".format(*fit.size)
    print(f"largest batch of {size} that fits: {fit.images} images, {fit.peak_mb:.0f} of {fit.allowed_mb:.0f} MB")
    keys = " ".join(f"{key}={value}" for key, value in advice.items())
    print(f"for {images} images a step and process, as configured: --opts {keys}")
    if advice["train.batch_size"] < config.train.batch_size:
        print("BatchNorm sees one pass at a time, so that accumulated steps are not quite those of the larger batch")


def main(arguments: Sequence[str] | None = None) -> None:
    run_tool(run, parse(), arguments)


if __name__ == "__main__":
    main()
