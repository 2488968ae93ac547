#!/usr/bin/env python
"""Lists of frames whose labels count: mdg/commands/make_splits.py."""

from mdg.commands.make_splits import main

if __name__ == "__main__":
    main()
