"""Finds a learning rate by a range test: the rate grows from step to step until the loss does.

python scripts/find_lr.py configs/mfnet/mdg_b2.yaml --out rates.png
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from mdg.utils.cli import add_opts, imports, run_tool, user_path


def parse() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="find_lr", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=user_path, help="YAML under configs/")
    parser.add_argument("--lowest", type=float, default=1e-6, metavar="RATE", help="of the first step (1e-6)")
    parser.add_argument("--highest", type=float, default=1.0, metavar="RATE", help="of the last step (1)")
    parser.add_argument("--steps", type=int, default=100, metavar="N", help="optimizer steps (100)")
    parser.add_argument("--out", type=user_path, default="rates.png", metavar="FILE", help="picture; rates.png")
    add_opts(parser)
    return parser


def run(args: argparse.Namespace) -> None:
    with imports():
        from mdg.engine.rate_finder import find_rate
        from mdg.utils.files import require_writable

    require_writable(args.out, "--out")
    found = find_rate(
        args.config, args.opts, lowest=args.lowest, highest=args.highest, steps=args.steps, picture=args.out
    )
    print(f"steepest fall at {found.steepest:.2g}, lowest loss at {found.lowest:.2g}; drawn in {args.out}")
    print(f"to begin with: --opts optimizer.lr={found.suggested:g}; compare it with a third and three times of it")


def main(arguments: Sequence[str] | None = None) -> None:
    run_tool(run, parse(), arguments)


if __name__ == "__main__":
    main()
