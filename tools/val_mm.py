#!/usr/bin/env python
"""Evaluates a checkpoint: per-class table, results.json with protocol and confusion matrix, overlay pictures.

Without arguments: the best checkpoint of the newest run in exp/, on the test split.
"""

from __future__ import annotations

import argparse

from mdg.utils.cli import add_opts, run_tool


def parse() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="val_mm", description=__doc__)
    parser.add_argument("--checkpoint", metavar="FILE", help="a best.pt or last.pt; default: newest best.pt in exp/")
    parser.add_argument("--config", metavar="YAML", help="default: the configuration inside the checkpoint")
    parser.add_argument("--split", default="test", help="train, val or test (default)")
    parser.add_argument("--json", metavar="FILE", help="write the results there too")
    parser.add_argument("--out", metavar="DIR", help="folder for results and pictures; default: results/ of the run")
    add_opts(parser)
    return parser


def main(args: argparse.Namespace) -> None:
    from mdg.engine import evaluate  # torch takes seconds; --help should not

    evaluate(args.checkpoint, args.config, split=args.split, opts=args.opts, json_file=args.json, out_dir=args.out)


if __name__ == "__main__":
    run_tool(main, parse())
