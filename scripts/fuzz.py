#!/usr/bin/env python
"""Feeds readers of strangers' bytes with bytes that nobody wrote; `make fuzz`. Only a UserError may come out of them.

atheris mutates inputs so that they reach new lines of mdg; each target is a process of its own with limits of memory
and of time per input. Where atheris cannot be installed, a plain mutation of good inputs takes its place and says so.
Findings are kept in --findings, with the command that tries each again. Exit code 1 where there is one.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

from mdg.errors import UserError, nearest
from mdg.utils.cli import run_tool

EXIT_FOUND = 1
MEGABYTES = 3072  # of a target, torch included
SECONDS_PER_INPUT = 10
LARGEST = 1 << 16  # bytes of an input
GRACE = 600  # seconds for imports, on a busy machine too, and for the last input


def parse() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=int, default=600, metavar="N", help="altogether, default 600")
    parser.add_argument("--only", nargs="+", default=[], metavar="TARGET", help="default: all")
    parser.add_argument("--input", type=Path, metavar="FILE", help="try this one input of one target, and show all")
    parser.add_argument("--findings", type=Path, default=Path("exp/fuzz"), metavar="DIR", help="default: exp/fuzz")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    return parser


def main(args: argparse.Namespace) -> int:
    from reliability.fuzzing import TARGETS, corpus, run_worker, try_input

    for name in args.only:
        if name not in TARGETS:
            raise UserError(f"--only {name}: expected one of {', '.join(TARGETS)}.{nearest(name, TARGETS)}")
    if args.worker or args.input is not None:
        if len(args.only) != 1:
            raise UserError("name one target with --only")
        if args.input is not None:
            try_input(args.only[0], args.input.read_bytes())
            print("answered as it should be")
            return 0
        run_worker(args.only[0], args.findings, args.seconds, LARGEST, SECONDS_PER_INPUT, MEGABYTES)
    targets = args.only or list(TARGETS)
    if importlib.util.find_spec("atheris") is None:
        print("atheris is not installed (`make fuzz` does so); good inputs are mutated blindly instead", flush=True)
    found = 0
    for name in targets:
        folder = args.findings / name
        corpus(name, folder / "corpus")
        before = set(folder.glob("*-*"))
        seconds = max(1, args.seconds // len(targets))
        command = [sys.executable, __file__, "--worker", "--only", name, "--seconds", str(seconds)]
        log = folder / "log.txt"
        with open(log, "w") as stream:
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENCV_LOG_LEVEL": "SILENT"}
            arguments = [*command, "--findings", str(folder)]
            try:
                code = subprocess.run(
                    arguments, stdout=stream, stderr=stream, env=environment, timeout=seconds + GRACE, check=False
                ).returncode
            except subprocess.TimeoutExpired:
                code = "no end"
        fresh = sorted(set(folder.glob("*-*")) - before)
        found += bool(fresh or code)
        print(
            f"{name}: {seconds} s, {'clean' if not fresh and not code else f'ended with {code}, see {log}'}", flush=True
        )
        for file in fresh:
            print(f"  {sys.executable} scripts/fuzz.py --only {name} --input {file}", flush=True)
    return EXIT_FOUND if found else 0


if __name__ == "__main__":
    run_tool(main, parse())
