"""Data sets, augmentation and loaders. Importing this package registers everything it ships."""

from mdg.data import fmb, folder, geometry, mfnet, photometry, pst900, synthetic
from mdg.data.base import DatasetOptions, Frame, RGBTDataset
from mdg.data.batch import Batch
from mdg.data.build import build_dataset
from mdg.data.loaders import EvalLoader, TrainLoader
from mdg.data.samples import read_batch
from mdg.data.transforms import build_transforms

__all__ = [
    "Batch",
    "DatasetOptions",
    "EvalLoader",
    "Frame",
    "RGBTDataset",
    "TrainLoader",
    "build_dataset",
    "build_transforms",
    "fmb",
    "folder",
    "geometry",
    "mfnet",
    "photometry",
    "pst900",
    "read_batch",
    "synthetic",
]
