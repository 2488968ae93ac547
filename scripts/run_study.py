#!/usr/bin/env python
"""Many runs from one file: mdg/commands/study.py."""

from mdg.commands.study import main

if __name__ == "__main__":
    main()
