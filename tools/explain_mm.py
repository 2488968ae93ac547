#!/usr/bin/env python
"""Draws what the divergence interaction does: mdg/commands/explain.py."""

from mdg.commands.explain import main

if __name__ == "__main__":
    main()
