"""Reads every file of every split of a configuration's data set and says exactly what is wrong.

Also what one wants to know before training: sizes, classes and how often they occur, mean and standard deviation for
`model.normalize`, the range of thermal values, frames that two splits share. Exit code 1 where there are problems.

python tools/check_data.py configs/mfnet/mdg_b2.yaml --html report.html
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from mdg.utils.cli import add_opts, imports, positive, run_tool, user_path

EXIT_PROBLEMS = 1


def parse() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="check_data", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=user_path, help="YAML under configs/; only its data set matters")
    parser.add_argument("--workers", type=positive, metavar="N", help="frames read at once; default: one per processor")
    parser.add_argument("--html", type=user_path, metavar="FILE", help="write a page with charts and sample frames")
    parser.add_argument("--json", type=user_path, metavar="FILE", help="write everything, for programs")
    add_opts(parser)
    return parser


def run(args: argparse.Namespace) -> None:
    with imports():
        from mdg.config import load_config  # torch takes seconds; --help should not
        from mdg.data.check import check_data

    options = load_config(args.config, args.opts).data
    if not check_data(options, config=args.config, workers=args.workers, html=args.html, json_file=args.json):
        sys.exit(EXIT_PROBLEMS)


def main(arguments: Sequence[str] | None = None) -> None:
    run_tool(run, parse(), arguments)


if __name__ == "__main__":
    main()
