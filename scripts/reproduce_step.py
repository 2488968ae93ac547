#!/usr/bin/env python
"""Does a training step again that gave numbers that are not finite, and names the first tensor that was not.

python scripts/reproduce_step.py exp/RUN/non-finite-step-120.pt
"""

from __future__ import annotations

import argparse

from mdg.utils.cli import run_tool


def parse() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="reproduce_step", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", help="non-finite-step-N.pt of a run")
    parser.add_argument("--device", default="auto", help="auto (default), cpu or cuda")
    return parser


def main(args: argparse.Namespace) -> None:
    from pathlib import Path  # torch takes seconds; --help should not

    from mdg.engine.diagnosis import repeat_step

    found = repeat_step(Path(args.file), args.device)
    print(f"not finite: {found}" if found else "everything is finite on this machine")


if __name__ == "__main__":
    run_tool(main, parse())
