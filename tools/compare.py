#!/usr/bin/env python
"""Compares runs: mdg/commands/compare.py."""

from mdg.commands.compare import main

if __name__ == "__main__":
    main()
