#!/usr/bin/env python
"""Weights of encoders from where they are public: mdg/commands/fetch_weights.py."""

from mdg.commands.fetch_weights import main

if __name__ == "__main__":
    main()
