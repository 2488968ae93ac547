#!/usr/bin/env python
"""Trains a configuration, or resumes a run: mdg/commands/train.py."""

from mdg.commands.train import main

if __name__ == "__main__":
    main()
