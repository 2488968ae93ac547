#!/usr/bin/env python
"""A data set as shards: mdg/commands/make_shards.py."""

from mdg.commands.make_shards import main

if __name__ == "__main__":
    main()
