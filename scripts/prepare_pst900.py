#!/usr/bin/env python
"""Brings a copy of PST900 into the folders its loader expects: mdg/commands/prepare.py."""

from functools import partial

from mdg.commands import prepare

main = partial(prepare.main, dataset="pst900")

if __name__ == "__main__":
    main()
