#!/usr/bin/env python
"""Brings a copy of MFNet into the folders its loader expects: mdg/commands/prepare.py."""

from functools import partial

from mdg.commands import prepare

main = partial(prepare.main, dataset="mfnet")

if __name__ == "__main__":
    main()
