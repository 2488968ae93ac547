#!/usr/bin/env python
"""A learning rate by a range test: mdg/commands/find_lr.py."""

from mdg.commands.find_lr import main

if __name__ == "__main__":
    main()
