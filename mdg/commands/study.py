"""Runs a study: every configuration with every seed and split, then a table of them all.

python scripts/run_study.py configs/studies/ablations.yaml

Runs that are done are left out and one that was begun goes on, so the same command continues a study. Exit code 1: some
runs failed, and the others are done; 75: stopped by a signal.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mdg.utils.cli import EXIT_STOPPED, imports, run_tool, user_path

if TYPE_CHECKING:
    from mdg.engine.study.plan import Study


def parse() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="run_study", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", type=user_path, help="YAML of a study; docs/results.md says what it holds")
    parser.add_argument("--jobs", type=int, metavar="N", help="runs at once; default: one on each GPU, one on a CPU")
    parser.add_argument("--allow-changes", action="store_true", help="continue runs that other code has begun")
    parser.add_argument("--list", action="store_true", help="say what is done and what is left, and run nothing")
    parser.add_argument("--baseline", metavar="ROW", help="differences in the table are to this row, not to the first")
    keep = parser.add_mutually_exclusive_group()
    keep.add_argument("--table", action="store_true", help="write the table of the runs that are done, and run nothing")
    keep.add_argument(
        "--pack",
        type=user_path,
        metavar="FILE.tar.xz",
        help="write what the runs that are done have measured, without their weights, and run nothing",
    )
    keep.add_argument(
        "--unpack",
        type=user_path,
        metavar="FILE.tar.xz",
        help="take over the runs that such a file holds, write the table, and run nothing",
    )
    return parser


def run(args: argparse.Namespace) -> int:
    with imports():
        from mdg.engine.study.plan import read_study
        from mdg.engine.study.records import pack_records, unpack_records
        from mdg.engine.study.report import baseline_row
        from mdg.engine.study.runner import StudyRunner, require_devices

    study = read_study(args.study)
    baseline = baseline_row(study, args.baseline)
    if args.list:
        for job in study.jobs:
            print(f"{'done' if job.scored else 'begun' if job.run.has_state else 'to do':6} {job.title}  {job.folder}")
        return 0
    if args.table:
        _write_table(study, baseline)
        return 0
    if args.pack is not None:
        print(f"{args.pack}: {len(pack_records(study, Path(args.pack)))} of {len(study.jobs)} runs")
        return 0
    if args.unpack is not None:
        taken = unpack_records(study, Path(args.unpack))
        print(
            f"{len(taken)} runs taken from {args.unpack}; {sum(job.scored for job in study.jobs)} of "
            f"{len(study.jobs)} are done"
        )
        _write_table(study, baseline)
        return 0
    summary = StudyRunner(study, require_devices(args.jobs), allow_changes=args.allow_changes).run()
    _write_table(study, baseline)
    if summary.stopped:
        print("stopped; the same command continues")
        return EXIT_STOPPED
    for job, problem in summary.failed.items():
        print(f"failed: {job.title}: {problem}")
    return 1 if summary.failed else 0


def _write_table(study: Study, baseline: str) -> None:
    from mdg.engine.study.report import write_report

    files = write_report(study, baseline)
    print(files[0].read_text(encoding="utf-8"))
    print(f"written: {', '.join(map(str, files))}")


def main(arguments: Sequence[str] | None = None) -> None:
    run_tool(run, parse(), arguments)


if __name__ == "__main__":
    main()
