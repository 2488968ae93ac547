#!/usr/bin/env python
"""Kills, fills, damages and takes away, and looks whether a run survives; `make chaos`.

Victims are runs of a second: forks of this process, which has imported everything already. What happened to them stands
in the table of docs/reliability.md, one row a fault. `--only KIND` tries one kind again and replaces its rows. Whatever
did not survive keeps its folder, and the command that tries it again is printed. Exit code 1 where anything was lost or
differs. Some faults take root (small file systems, network namespaces); they are skipped, with the reason, without it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from mdg.errors import UserError, nearest
from mdg.utils.cli import run_tool

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reliability.md"
EXIT_LOST = 1


def parse() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="chaos", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=300, metavar="N", help="at random moments, default 300")
    parser.add_argument("--tries", type=int, default=40, metavar="N", help="of each other random fault, default 40")
    parser.add_argument("--seed", type=int, default=0, help="what random moments and bits start from, default 0")
    parser.add_argument("--only", nargs="+", default=[], metavar="KIND", help="kinds of faults; default: all")
    parser.add_argument("--case", metavar="NAME", help="one case of the kind, as printed where it failed")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="of the cases of a kind take each N-th")
    parser.add_argument("--lanes", type=int, default=len(os.sched_getaffinity(0)), metavar="N",
                        help="victims at once, default: one per processor")  # fmt: skip
    parser.add_argument("--work", type=Path, metavar="DIR", help="where victims live; default: a new temporary folder")
    parser.add_argument(
        "--out", type=Path, default=PAGE, metavar="FILE", help="page with the table; default: %(default)s"
    )
    return parser


def main(args: argparse.Namespace) -> int:
    from reliability import process
    from reliability.kinds import KINDS
    from reliability.report import Row, around_table, rows_of, write_table
    from reliability.runs import Lab, Skip

    from mdg.utils.environment import describe_environment

    for kind in args.only:
        if kind not in KINDS:
            raise UserError(f"--only {kind}: expected one of {', '.join(KINDS)}.{nearest(kind, KINDS)}")
    if args.case and len(args.only) != 1:
        raise UserError("--case names a case of one kind: give that kind with --only")
    if not args.case:
        around_table(args.out)
    work = args.work or Path(tempfile.mkdtemp(prefix="mdg-chaos-"))
    work.mkdir(parents=True, exist_ok=True)
    process.preload()
    code = re.sub(r"\b([0-9a-f]{9})[0-9a-f]{31}\b", r"\1", describe_environment()["code"])
    lost = 0
    for only in args.only or KINDS:
        place = work / only
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        lab = Lab(place, args.seed, args.kills if only == "random-kills" else args.tries)
        try:
            assert lab.reference  # made here, before several processes need it
            cases = [case for case in KINDS[only](lab) if args.case in (None, case.name)][:: args.every]
        except Skip as reason:
            print(f"{only}: skipped: {reason}", flush=True)
            rows = [Row(only.replace("-", " "), only, (0, 0, 0), 0.0, code, str(reason))]
        else:
            results = list(_try_all(cases, place, args.lanes, lambda name, only=only: _command(args, only, name)))
            rows = rows_of(only, results, code)
            for row in rows:
                print(" | ".join(row.cells()), flush=True)
            lost += sum(result["outcome"] != "survived" for result in results)
        if not args.case:
            command = "make chaos" if not args.only else f"python scripts/chaos.py --only {' '.join(args.only)}"
            write_table(args.out, command, rows, KINDS)
    print(f"{lost} not survived" + (f"; their folders lie in {work}" if lost else ""), flush=True)
    if not lost and args.work is None:
        shutil.rmtree(work, ignore_errors=True)
    return EXIT_LOST if lost else 0


def _command(args: argparse.Namespace, only: str, name: str) -> str:
    counts = f"--kills {args.kills} --tries {args.tries} --seed {args.seed}"
    return f"{Path(sys.executable)} scripts/chaos.py {counts} --only {only} --case '{name}'"


def _try_all(cases: Sequence, place: Path, lanes: int, command: Callable[[str], str]) -> Iterator[dict]:
    """Results of all cases; every lane is a fork that takes each ``lanes``-th case."""
    children = {}
    sys.stdout.flush()
    for lane in range(min(lanes, len(cases))):
        pid = os.fork()
        if not pid:
            _work(list(enumerate(cases))[lane::lanes], place, place / f"results-{lane}.jsonl", command)
        children[pid] = lane
    try:
        for pid in children:
            os.waitpid(pid, 0)
    except BaseException:
        for pid in children:
            os.kill(pid, signal.SIGKILL)
        raise
    for lane in children.values():
        for line in (place / f"results-{lane}.jsonl").read_text(encoding="utf-8").splitlines():
            yield json.loads(line)


def _work(cases: Sequence, place: Path, file: Path, command: Callable[[str], str]) -> None:
    from reliability.runs import LOST, SURVIVED, Verdict

    with open(file, "w", encoding="utf-8") as results:
        for number, case in cases:
            folder, began = place / f"case-{number}", time.monotonic()
            folder.mkdir()
            try:
                verdict = case.attempt(folder)
            except Exception as error:
                (folder / "harness.txt").write_text(traceback.format_exc())
                verdict = Verdict(LOST, f"the harness failed: {type(error).__name__}: {error}")
            if verdict.outcome == SURVIVED:
                shutil.rmtree(folder, ignore_errors=True)
            else:
                print(f"{verdict.outcome}: {case.kind}: {case.name}: {verdict.why[:400]}\n  {folder}\n"
                      f"  {command(case.name)}", flush=True)  # fmt: skip
            result = {"kind": case.kind, "case": case.name, **verdict._asdict(), "seconds": time.monotonic() - began}
            results.write(json.dumps(result) + "\n")
            results.flush()
    os._exit(0)


if __name__ == "__main__":
    run_tool(main, parse())
