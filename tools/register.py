#!/usr/bin/env python
"""Brings two fixed cameras into one view: mdg/commands/register.py."""

from mdg.commands.register import main

if __name__ == "__main__":
    main()
