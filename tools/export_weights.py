#!/usr/bin/env python
"""Trained weights as people pass them on: mdg.commands.export_weights.py."""

from mdg.commands.export_weights import main

if __name__ == "__main__":
    main()
