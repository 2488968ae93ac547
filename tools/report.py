#!/usr/bin/env python
"""Writes a page about training runs: mdg/commands/report.py."""

from mdg.commands.report import main

if __name__ == "__main__":
    main()
