"""Segments your own pairs: two files, two folders with equal names, or 4-channel PNGs as in MFNet.

python tools/infer_mm.py --rgb photo.png --thermal heat.png --out masks
python tools/infer_mm.py --rgb rgb/ --thermal raw/ --thermal-scaling '{mode: fixed, range: [7000, 9500]}'

Exit code 1: some pairs could not be used, and the others are done.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from mdg.utils.cli import add_opts, add_pairs, imports, run_tool, user_path


def parse() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="infer_mm", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_pairs(parser)
    parser.add_argument("--out", type=user_path, default="predictions", metavar="DIR", help="default: predictions")
    parser.add_argument("--resume", action="store_true", help="leave out the pairs whose outputs exist")
    add_opts(parser)
    return parser


def run(args: argparse.Namespace) -> None:
    with imports():
        from mdg.engine.predict import predict

    predict(
        args.rgb,
        args.thermal,
        args.checkpoint,
        args.config,
        out_dir=args.out,
        opts=args.opts,
        resume=args.resume,
        thermal_scaling=args.thermal_scaling,
        align=args.align,
        grey_rgb=args.grey_rgb,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    run_tool(run, parse(), arguments)


if __name__ == "__main__":
    main()
