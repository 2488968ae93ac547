"""Writes one HTML page about one or several training runs: scores with their protocol, curves, classes, confusions,
pictures of the best, middle and worst frames, configuration and environment. The page needs nothing but itself.

A RUN is a run directory. The page shows what the run has so far, and names the command that makes what is missing.
Frames are predicted again with the checkpoint that was scored. Several runs are compared with each other too.

python tools/report.py exp/mdg/20260101-120000
python tools/report.py exp/a/seed1 exp/b/seed1 --split val --out both.html
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from mdg.utils.cli import add_opts, imports, run_tool, user_path


def parse() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=user_path, nargs="+", metavar="RUN", help="run directory")
    parser.add_argument(
        "--split", help="whose classes and frames are shown: train, val or test; default: test, else val, by results"
    )
    parser.add_argument(
        "--out",
        type=user_path,
        metavar="FILE",
        help="the page; default: report.html in the run, comparison.html in the first of several",
    )
    parser.add_argument(
        "--frames", type=_frames, default=3, metavar="N", help="best, middle and worst frames each; default: 3"
    )
    parser.add_argument("--no-pictures", action="store_true", help="leave the frames out; nothing is predicted")
    parser.add_argument(
        "--config",
        type=user_path,
        metavar="YAML",
        help="to predict with; default: the configuration inside the checkpoint",
    )
    add_opts(parser)
    return parser


def _frames(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 5):
        raise argparse.ArgumentTypeError(f"got {text[:40]!r}, expected a whole number from 0 to 9999")
    return int(text)


def run(args: argparse.Namespace) -> None:
    with imports():
        from mdg.engine.run_report.report import report  # torch takes seconds; --help should not

    frames = 0 if args.no_pictures else args.frames
    report(args.runs, split=args.split, out=args.out, frames=frames, config=args.config, opts=args.opts)


def main(arguments: Sequence[str] | None = None) -> None:
    run_tool(run, parse(), arguments)


if __name__ == "__main__":
    main()
