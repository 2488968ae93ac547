#!/usr/bin/env python
"""Trained networks as files for other runtimes: mdg/commands/export_network.py."""

from mdg.commands.export_network import main

if __name__ == "__main__":
    main()
