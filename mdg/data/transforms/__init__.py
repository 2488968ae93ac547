"""Augmentation: the chain over a sample, and its links. Importing this package registers them."""

from mdg.data.transforms import corruptions, geometry, photometry
from mdg.data.transforms.chain import Sample, Transform, apply_transforms, build_transforms, to_sample

__all__ = [
    "Sample",
    "Transform",
    "apply_transforms",
    "build_transforms",
    "corruptions",
    "geometry",
    "photometry",
    "to_sample",
]
