#!/usr/bin/env python
"""Measures runs under corruption: mdg/commands/robustness.py."""

from mdg.commands.robustness import main

if __name__ == "__main__":
    main()
