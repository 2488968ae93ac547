"""Draws what the divergence interaction does to image pairs: mask, change of the features and gates, per stage.

python tools/explain_mm.py --rgb photo.png --thermal heat.png --out explained

Beside each picture NAME_interaction.png lie its numbers, NAME_interaction.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from mdg.utils.cli import add_opts, add_pairs, imports, run_tool, user_path


def parse() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="explain_mm", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_pairs(parser)
    parser.add_argument("--out", type=user_path, default="explained", metavar="DIR", help="default: explained")
    add_opts(parser)
    return parser


def run(args: argparse.Namespace) -> None:
    with imports():
        from mdg.engine.explain import explain

    choices = {"thermal_scaling": args.thermal_scaling, "align": args.align, "grey_rgb": args.grey_rgb}
    explain(args.rgb, args.thermal, args.checkpoint, args.config, out_dir=args.out, opts=args.opts, choices=choices)


def main(arguments: Sequence[str] | None = None) -> None:
    run_tool(run, parse(), arguments)


if __name__ == "__main__":
    main()
