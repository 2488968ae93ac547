"""The data sets that lie on disk. Importing this package registers them."""

from mdg.data.datasets import cityscapes, fmb, folder, mfnet, pst900, shards

__all__ = ["cityscapes", "fmb", "folder", "mfnet", "pst900", "shards"]
