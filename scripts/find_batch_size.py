#!/usr/bin/env python
"""The largest batch that fits into memory: mdg/commands/find_batch_size.py."""

from mdg.commands.find_batch_size import main

if __name__ == "__main__":
    main()
