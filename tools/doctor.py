#!/usr/bin/env python
"""Says what this machine can run: mdg/commands/doctor.py."""

from mdg.commands.doctor import main

if __name__ == "__main__":
    main()
