#!/usr/bin/env python
"""Evaluates a checkpoint: mdg/commands/val.py."""

from mdg.commands.val import main

if __name__ == "__main__":
    main()
