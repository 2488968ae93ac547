#!/usr/bin/env python
"""Brings a copy of MFNet (a folder, or one or several .zip, .tar, .tar.gz, .tgz) into the folders its loader expects.

The copy is only read. Run it again after an interruption: it goes on where it stopped.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mdg.utils.cli import run_tool


def parse() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="prepare_mfnet", description=__doc__)
    parser.add_argument("source", nargs="+", type=Path, metavar="SOURCE", help="folder or archive; several archives")
    parser.add_argument("destination", type=Path, metavar="DESTINATION", help="folder to write to, outside of SOURCE")
    parser.add_argument("--link", action="store_true", help="hard links instead of copies, where SOURCE is a folder")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done and write nothing")
    return parser


def main(args: argparse.Namespace) -> None:
    from mdg.data.prepare import MFNetLayouts, prepare  # torch takes seconds; --help should not

    prepare(MFNetLayouts(), args.source, args.destination, link=args.link, dry_run=args.dry_run)


if __name__ == "__main__":
    run_tool(main, parse())
