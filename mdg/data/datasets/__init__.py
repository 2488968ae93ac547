"""The data sets that lie on disk. Importing this package registers them."""

from mdg.data.datasets import fmb, folder, mfnet, pst900, shards

__all__ = ["fmb", "folder", "mfnet", "pst900", "shards"]
