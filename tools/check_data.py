#!/usr/bin/env python
"""Says exactly what is wrong with the files of a data set: mdg/commands/check_data.py."""

from mdg.commands.check_data import main

if __name__ == "__main__":
    main()
