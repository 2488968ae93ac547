#!/usr/bin/env python
"""Runs the measurements of docs/benchmarks.md and writes their part of the page; `make bench`.

About six minutes on two CPU cores. Other programs slow a machine down: leave it alone meanwhile.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mdg.errors import UserError
from mdg.utils.cli import run_tool

PAGE = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"


def parse() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="run_benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", metavar="YAML", default="configs/mfnet/mdg_b2.yaml", help="default: %(default)s")
    parser.add_argument("--height", type=int, default=480, metavar="N", help="of the images, default 480")
    parser.add_argument("--width", type=int, default=640, metavar="N", help="of the images, default 640")
    parser.add_argument("--page", type=Path, default=PAGE, metavar="FILE", help="default: docs/benchmarks.md")
    return parser


def main(args: argparse.Namespace) -> None:
    import torch

    from mdg.benchmark.page import BENCH, around_section, section, write_section
    from mdg.benchmark.suite import pipeline, run_entry, suite

    device = "cuda" if torch.cuda.is_available() else "cpu"
    around_section(args.page, BENCH[device])  # a page without its place should not be found out at the end
    entries = suite(args.config, args.height, args.width, device)
    results = []
    for number, entry in enumerate([*entries, pipeline(args.config)], start=1):
        print(f"[{number}/{len(entries) + 1}] {entry.title}: {entry.command()}", flush=True)
        results.append(run_entry(entry))
    failed = [result for result in results[:-1] if result.found is None]
    if len(failed) == len(entries):
        raise UserError(f"no measurement succeeded, {args.page} stays as it was; the last one: {failed[-1].message}")
    write_section(args.page, section(results[:-1], results[-1]), BENCH[device])
    print(f"wrote {args.page}" + (f"; {len(failed)} of {len(entries)} measurements failed" if failed else ""))


if __name__ == "__main__":
    run_tool(main, parse())
