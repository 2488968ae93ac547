"""Draws what the divergence interaction does to image pairs: mask, change of the features and gates, per stage.

python tools/explain_mm.py --rgb photo.png --thermal heat.png --out explained

Beside each picture NAME_interaction.png lie its numbers, NAME_interaction.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from mdg.utils.cli import add_opts, imports, run_tool, user_path


def parse() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="explain_mm", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rgb", type=user_path, required=True, metavar="PATH", help="image or folder; 4-channel without --thermal"
    )
    parser.add_argument("--thermal", type=user_path, metavar="PATH", help="thermal image or folder")
    parser.add_argument(
        "--checkpoint", type=user_path, metavar="FILE", help="default: best.pt of the newest run in exp/"
    )
    parser.add_argument(
        "--config", type=user_path, metavar="YAML", help="default: the configuration inside the checkpoint"
    )
    parser.add_argument("--out", type=user_path, default="explained", metavar="DIR", help="default: explained")
    parser.add_argument("--thermal-scaling", metavar="YAML", help="how more than 8 bits become 8, as of infer_mm")
    parser.add_argument("--align", metavar="PART", help="resize both to the size of rgb or thermal; or refuse")
    parser.add_argument("--grey-rgb", metavar="WHAT", help="RGB images of one channel: repeat, or refuse")
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
