#!/usr/bin/env python
"""Encoder weights from one layout to another: mdg/commands/convert_weights.py."""

from mdg.commands.convert_weights import main

if __name__ == "__main__":
    main()
