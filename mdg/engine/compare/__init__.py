"""Results of several runs, read back and put side by side."""
