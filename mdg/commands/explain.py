"""Draws what the divergence interaction does to image pairs: mask, change of the features and gates, per stage.

python tools/explain_mm.py --rgb photo.png --thermal heat.png --out explained

Beside each picture NAME_interaction.png lie its numbers, NAME_interaction.json. On all frames of a split:

python tools/explain_mm.py --split val --json numbers.json
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from mdg.errors import ConfigError
from mdg.utils.cli import add_opts, add_pairs, imports, run_tool, user_path


def parse() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="explain_mm", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_pairs(parser, required=False)
    parser.add_argument("--split", metavar="SPLIT", help="instead of --rgb: the numbers over train, val or test")
    parser.add_argument("--json", type=user_path, metavar="FILE", help="with --split: write the numbers there")
    parser.add_argument("--out", type=user_path, default="explained", metavar="DIR", help="default: explained")
    add_opts(parser)
    return parser


def run(args: argparse.Namespace) -> None:
    if (args.rgb is None) == (args.split is None) or (args.json is not None and args.split is None):
        raise ConfigError("name image pairs (--rgb, --thermal), or a split (--split, with or without --json)")
    with imports():
        from mdg.engine.explain import explain
        from mdg.engine.explain_split import explain_split

    if args.split is not None:
        explain_split(args.split, args.checkpoint, args.config, opts=args.opts, json_file=args.json)
        return
    choices = {"thermal_scaling": args.thermal_scaling, "align": args.align, "grey_rgb": args.grey_rgb}
    explain(args.rgb, args.thermal, args.checkpoint, args.config, out_dir=args.out, opts=args.opts, choices=choices)


def main(arguments: Sequence[str] | None = None) -> None:
    run_tool(run, parse(), arguments)


if __name__ == "__main__":
    main()
