"""Compares runs: mean and standard deviation over seeds, one column per score and protocol.

A RUN is a run directory (its newest results of the split count), a results folder or a results.json. Runs whose
configurations differ in the seed only form one row. Scores of different protocols never share a column.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from mdg.utils.cli import imports, run_tool, user_path


def parse() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="compare", description=__doc__)
    parser.add_argument(
        "runs", type=user_path, nargs="+", metavar="RUN", help="run directory, results folder or results.json"
    )
    parser.add_argument("--split", default="test", help="results to take from run directories: train, val or test")
    parser.add_argument("--per-class", action="store_true", help="the IoU of every class too")
    parser.add_argument("--markdown", type=user_path, metavar="FILE", help="write the tables there as Markdown")
    parser.add_argument("--csv", type=user_path, metavar="FILE", help="write the scores there as CSV")
    parser.add_argument("--json", type=user_path, metavar="FILE", help="write the comparison there as JSON")
    parser.add_argument("--html", type=user_path, metavar="FILE", help="write tables and charts there as one page")
    return parser


def run(args: argparse.Namespace) -> None:
    with imports():
        from mdg.engine.compare.comparison import compare  # torch takes seconds; --help should not
        from mdg.engine.compare.output import write_comparison
        from mdg.engine.compare.tables import print_comparison
        from mdg.utils.logging import console

    comparison = compare(args.runs, args.split)
    # Written first: the reader of the output may have gone.
    write_comparison(
        comparison,
        args.per_class,
        markdown=args.markdown,
        csv_file=args.csv,
        json_file=args.json,
        html=args.html,
    )
    print_comparison(comparison, console, args.per_class)


def main(arguments: Sequence[str] | None = None) -> None:
    run_tool(run, parse(), arguments)


if __name__ == "__main__":
    main()
