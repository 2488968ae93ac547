"""Faults on purpose: what `make chaos` and `make fuzz` do to the programs of this project. mdg imports none of it."""
