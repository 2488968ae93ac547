#!/usr/bin/env python
"""Segments your own pairs: mdg/commands/infer.py."""

from mdg.commands.infer import main

if __name__ == "__main__":
    main()
