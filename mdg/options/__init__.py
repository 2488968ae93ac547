"""Options of every part that is shipped: its keys in YAML, their ranges, their defaults. Nothing here imports PyTorch.

A table at the end of each file says which parts there are (:meth:`mdg.registry.ComponentRegistry.declare`); the class
that implements a part registers itself, with its options, where it stands.
"""
