#!/usr/bin/env python
"""What many GPUs hold and exchange: mdg/commands/estimate_cluster.py."""

from mdg.commands.estimate_cluster import main

if __name__ == "__main__":
    main()
