"""Brings a downloaded copy of a data set into the folders its loader expects."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mdg.utils.cli import run_tool

NAMES = {"mfnet": "MFNet", "pst900": "PST900", "fmb": "FMB"}
DESCRIPTION = """Brings a copy of {} (a folder, or one or several .zip, .tar, .tar.gz, .tgz) into the folders its loader
expects.

The copy is only read. Run it again after an interruption: it goes on where it stopped.
"""


def parse(dataset: str | None = None) -> argparse.ArgumentParser:
    """The arguments for one data set; None: the first argument names it."""
    if dataset:
        parser = argparse.ArgumentParser(prog=f"prepare_{dataset}", description=DESCRIPTION.format(NAMES[dataset]))
        parser.set_defaults(dataset=dataset)
    else:
        parser = argparse.ArgumentParser(prog="prepare", description=DESCRIPTION.format("MFNet, PST900 or FMB"))
        parser.add_argument("dataset", choices=NAMES, metavar="DATASET", help=f"one of {', '.join(NAMES)}")
    parser.add_argument("source", nargs="+", type=Path, metavar="SOURCE", help="folder or archive; several archives")
    parser.add_argument("destination", type=Path, metavar="DESTINATION", help="folder to write to, outside of SOURCE")
    parser.add_argument("--link", action="store_true", help="hard links instead of copies, where SOURCE is a folder")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done and write nothing")
    return parser


def run(args: argparse.Namespace) -> None:
    from mdg.data.prepare import FMBLayouts, MFNetLayouts, PST900Layouts, prepare

    layouts = {"mfnet": MFNetLayouts(), "pst900": PST900Layouts(), "fmb": FMBLayouts()}[args.dataset]
    prepare(layouts, args.source, args.destination, link=args.link, dry_run=args.dry_run)


def main(arguments: Sequence[str] | None = None, dataset: str | None = None) -> None:
    run_tool(run, parse(dataset), arguments)


if __name__ == "__main__":
    main()
