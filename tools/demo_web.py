#!/usr/bin/env python
"""Serves a page that segments pairs and videos: mdg/commands/demo_web.py."""

from mdg.commands.demo_web import main

if __name__ == "__main__":
    main()
