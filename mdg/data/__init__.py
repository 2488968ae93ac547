"""Data sets, augmentation and loaders. Importing this package registers everything it ships."""

from mdg.data import datasets, transforms
from mdg.data.base import Frame, RGBTDataset
from mdg.data.batches import Batch, read_batch
from mdg.data.build import build_dataset
from mdg.data.loaders import EvalLoader, TrainLoader
from mdg.data.synthetic.dataset import Synthetic
from mdg.data.transforms import build_transforms
from mdg.options.files import DatasetOptions

__all__ = [
    "Batch",
    "DatasetOptions",
    "EvalLoader",
    "Frame",
    "RGBTDataset",
    "Synthetic",
    "TrainLoader",
    "build_dataset",
    "build_transforms",
    "datasets",
    "read_batch",
    "transforms",
]
