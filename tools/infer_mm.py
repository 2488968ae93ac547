#!/usr/bin/env python
"""Segments your own pairs: two files, two folders with equal names, or 4-channel PNGs as in MFNet.

python tools/infer_mm.py --rgb photo.png --thermal heat.png --out masks
"""

from __future__ import annotations

import argparse

from mdg.utils.cli import add_opts, run_tool


def parse() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="infer_mm", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rgb", required=True, metavar="PATH", help="image or folder; 4-channel without --thermal")
    parser.add_argument("--thermal", metavar="PATH", help="thermal image or folder; scaled and aligned as in training")
    parser.add_argument("--checkpoint", metavar="FILE", help="default: best.pt of the newest run in exp/")
    parser.add_argument("--config", metavar="YAML", help="default: the configuration inside the checkpoint")
    parser.add_argument("--out", default="predictions", metavar="DIR", help="default: predictions")
    add_opts(parser)
    return parser


def main(args: argparse.Namespace) -> None:
    from mdg.engine.predict import predict

    predict(args.rgb, args.thermal, args.checkpoint, args.config, out_dir=args.out, opts=args.opts)


if __name__ == "__main__":
    run_tool(main, parse())
