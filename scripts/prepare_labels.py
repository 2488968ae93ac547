#!/usr/bin/env python
"""Annotations of people to label PNGs and a configuration: mdg/commands/prepare_labels.py."""

from mdg.commands.prepare_labels import main

if __name__ == "__main__":
    main()
