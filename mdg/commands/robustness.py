"""Measures how much of a score remains when cameras, weather and rigs fail: the mIoU under every corruption of
docs/robustness.md at every severity, what it means over groups, and one page that shows it.

A RUN is a run directory, of which the best checkpoint counts, or a checkpoint. Every score is kept in --out as soon as
it is measured: the same command goes on where it was broken off.

python tools/robustness.py exp/mdg_b2/run
python tools/robustness.py exp/a/run exp/b/run --reference exp/a/run --severities 1 3 5 --corruptions weather MotionBlur
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from mdg.utils.cli import add_opts, imports, positive, run_tool, user_path


def parse() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="robustness", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=user_path, nargs="+", metavar="RUN", help="run directory or checkpoint")
    parser.add_argument("--split", default="test", help="train, val or test (default)")
    parser.add_argument(
        "--corruptions",
        nargs="+",
        metavar="NAME",
        help="types (Fog), types of a camera ('JPEG of thermal') or groups (weather); default: all",
    )
    parser.add_argument(
        "--severities",
        type=_severity,
        nargs="+",
        default=[1, 2, 3, 4, 5],
        metavar="S",
        help="above 0, up to 5; default: 1 2 3 4 5",
    )
    parser.add_argument("--seed", type=_whole, default=0, metavar="N", help="of the corruptions; default: 0")
    parser.add_argument(
        "--reference", type=user_path, metavar="RUN", help="one of the runs, against whose errors those of all stand"
    )
    parser.add_argument("--frames", type=positive, metavar="N", help="score only the first N frames of the split")
    parser.add_argument("--scene", metavar="NAME", help="frame to show; default: one with many classes")
    parser.add_argument(
        "--out", type=user_path, metavar="DIR", help="folder; default: robustness/SPLIT in the first run"
    )
    parser.add_argument("--json", type=user_path, metavar="FILE", help="write robustness.json there too")
    parser.add_argument(
        "--config",
        type=user_path,
        metavar="YAML",
        help="for all runs; default: the configuration inside each checkpoint",
    )
    add_opts(parser)
    return parser


def _severity(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"got {text[:40]!r}, expected a number above 0 and up to 5") from None


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise argparse.ArgumentTypeError(f"got {text[:40]!r}, expected a whole number from 0 to 999999999")
    return int(text)


def run(args: argparse.Namespace) -> None:
    with imports():
        from mdg.engine.robustness.robustness import robustness  # torch takes seconds; --help should not

    robustness(
        args.runs,
        split=args.split,
        corruptions=args.corruptions,
        severities=args.severities,
        seed=args.seed,
        reference=args.reference,
        frames=args.frames,
        scene=args.scene,
        out=args.out,
        json_file=args.json,
        config=args.config,
        opts=args.opts,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    run_tool(run, parse(), arguments)


if __name__ == "__main__":
    main()
