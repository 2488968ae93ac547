#!/usr/bin/env python
"""Measures a network: mdg/commands/benchmark.py."""

from mdg.commands.benchmark import main

if __name__ == "__main__":
    main()
