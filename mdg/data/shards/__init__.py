"""A data set in tar files: making them, their index, where they lie, in which order they are read.

The format is that of WebDataset (Aizman et al., "High Performance I/O For Large Scale Deep Learning", 2019): members of
one frame stand together and share their name up to the first dot. ``index.json`` beside the shards says where each
member begins, so that a frame is read without unpacking and an epoch has an order that is known in advance.
"""
