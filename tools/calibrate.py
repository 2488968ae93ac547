#!/usr/bin/env python
"""Fits probabilities and warnings on val: mdg/commands/calibrate.py."""

from mdg.commands.calibrate import main

if __name__ == "__main__":
    main()
