#!/usr/bin/env python
"""Measures the input pipeline: mdg/commands/benchmark_data.py."""

from mdg.commands.benchmark_data import main

if __name__ == "__main__":
    main()
