"""Evaluates a checkpoint: a table of scores with their protocol, and a folder that nothing ever overwrites.

results/<split>/ of the run holds results.json (protocol, scores under every rule, confusion matrix), images.csv (scores
of every image), confusion.png, pictures/ (frames spread over the split) and worst/ (those with the lowest mIoU).

Without arguments: the best checkpoint of the newest run in exp/, on the test split, whole images.

python tools/val_mm.py --opts eval.mode=slide 'eval.window=[480, 640]'
python tools/val_mm.py --opts 'eval.scales=[0.75, 1.0, 1.25]' eval.flip=true
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from mdg.utils.cli import add_opts, imports, run_tool, user_path


def parse() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="val_mm", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--checkpoint",
        type=user_path,
        metavar="FILE",
        help="a best.pt or last.pt, or an exported .safetensors; default: newest best.pt in exp/",
    )
    parser.add_argument(
        "--config", type=user_path, metavar="YAML", help="default: the configuration inside the checkpoint"
    )
    parser.add_argument("--split", default="test", help="train, val or test (default)")
    parser.add_argument("--json", type=user_path, metavar="FILE", help="write the results there too")
    parser.add_argument(
        "--out", type=user_path, metavar="DIR", help="folder for results and pictures; default: results/ of the run"
    )
    add_opts(parser)
    return parser


def run(args: argparse.Namespace) -> None:
    with imports():
        from mdg.engine import evaluate  # torch takes seconds; --help should not

    evaluate(args.checkpoint, args.config, split=args.split, opts=args.opts, json_file=args.json, out_dir=args.out)


def main(arguments: Sequence[str] | None = None) -> None:
    run_tool(run, parse(), arguments)


if __name__ == "__main__":
    main()
