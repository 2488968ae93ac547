"""From frames to batches: what runs in a loader process, and what it hands over.

An error of the user's goes to the main process as a value, since torch would wrap an exception into a traceback.

Shape suffixes: B images, H, W height and width in pixels, 3 the channels R, G, B, 1 the channel of thermal.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from mdg.data.base import Frames, RGBTDataset
from mdg.data.transforms.chain import Sample, Transform, apply_transforms, to_planes, to_sample
from mdg.data.transforms.resampling import resize_image
from mdg.errors import DataError, UserError


class Batch(NamedTuple):
    """Images that go through the network together; uint8 throughout, the model normalises on its device.

    Attributes:
        rgb_B3HW: Channels in the order R, G, B.
        thermal_B1HW: Brighter is warmer.
        label_BHW: Class ids, 255 ignored. In evaluation of native size, whatever the size of the images.
        names: Names of the frames.
        indices: Their places in the data set.
        unlabelled: How many of the last images have no label: 0 there, 255 where no camera saw anything.
    """

    rgb_B3HW: torch.Tensor
    thermal_B1HW: torch.Tensor
    label_BHW: torch.Tensor
    names: list[str]
    indices: list[int]
    unlabelled: int = 0


def collate(ones: Sequence[Batch | UserError], advice: str) -> Batch | UserError:
    """Joins batches of one image; an error among them, or sizes that differ, becomes the error that the loader raises.

    Args:
        ones: What the data set gave for the indices of a batch.
        advice: What to do where sizes differ.
    """
    batches: list[Batch] = []
    for one in ones:
        if isinstance(one, UserError):
            return one
        batches.append(one)
    for part in ("rgb_B3HW", "label_BHW"):
        sizes = {one.names[0]: tuple(getattr(one, part).shape[-2:]) for one in batches}
        if len(set(sizes.values())) > 1:
            listed = ", ".join(f"{name} is {height}x{width}" for name, (height, width) in sizes.items())
            return DataError(f"images of different sizes cannot form a batch ({listed}): {advice}")
    return _join(batches)


def collate_by_size(ones: Sequence[Batch | UserError]) -> list[Batch] | UserError:
    """Joins batches of one image to one per size of image and label, or gives the first error among them.

    Padding to a common size would change what the network sees, and with it the scores. Batches come in the order in
    which their sizes appear, the images of each in the order given.
    """
    groups: dict[tuple[torch.Size, torch.Size], list[Batch]] = {}
    for one in ones:
        if isinstance(one, UserError):
            return one
        groups.setdefault((one.rgb_B3HW.shape, one.label_BHW.shape), []).append(one)
    return [_join(group) for group in groups.values()]


def _join(batches: Sequence[Batch]) -> Batch:
    rgb, thermal, label, names, indices, _ = zip(*batches, strict=True)
    return Batch(torch.cat(rgb), torch.cat(thermal), torch.cat(label), sum(names, []), sum(indices, []))


def with_unlabelled(labelled: Batch, unlabelled: Batch) -> Batch:
    """One batch of both, those with a label first.

    Raises:
        DataError: Their sizes differ.
    """
    sizes = [tuple(batch.rgb_B3HW.shape[-2:]) for batch in (labelled, unlabelled)]
    if sizes[0] != sizes[1]:
        (height, width), (other_height, other_width) = sizes
        raise DataError(
            f"images with labels are {height}x{width} and those without {other_height}x{other_width}: end "
            "pipeline.train with RandomResizedCrop or Resize"
        )
    return _join([labelled, unlabelled])._replace(unlabelled=len(unlabelled.names))


class SampleKey(NamedTuple):
    """One draw of the image at a place in the data set: ``repeat`` counts how often the epoch has drawn it before."""

    epoch: int
    place: int
    repeat: int


class TrainSamples(Dataset):
    """Augmented images, as batches of one, by :class:`SampleKey`: equal keys give equal ones, wherever and whenever."""

    def __init__(self, dataset: Frames, transforms: Sequence[Transform], seed: int):
        self.dataset, self.transforms, self.seed = dataset, transforms, seed

    def __getitem__(self, key: SampleKey) -> Batch | UserError:
        try:
            frame = self.dataset[key.place]
            with torch.random.fork_rng(devices=[]):
                # Not torch.manual_seed: that would reseed CUDA too, and with it the dropout of a run without workers.
                torch.default_generator.manual_seed(hash_seed(self.seed, *key))
                sample = apply_transforms(to_sample(frame), self.transforms)
            return _batch_of_one(sample, frame.name, key.place)
        except UserError as error:
            return error


class EvalSamples(Dataset):
    """Images as batches of one, by index: resized to ``size`` ([height, width]) where given, labels as they are."""

    def __init__(self, dataset: RGBTDataset, size: tuple[int, int] | None):
        self.dataset, self.size = dataset, size

    def __getitem__(self, index: int) -> Batch | UserError:
        try:
            frame = self.dataset[index]
            sample = to_sample(frame)
            if self.size is not None:
                sample |= {key: resize_image(sample[key], self.size) for key in ("rgb", "thermal")}
            return _batch_of_one(sample, frame.name, index)
        except UserError as error:
            return error


def read_batch(dataset: RGBTDataset, index: int, size: tuple[int, int] | None) -> Batch:
    """One frame as a batch, prepared as for evaluation, in this process; raises DataError where it cannot be used."""
    batch = EvalSamples(dataset, size)[index]
    if isinstance(batch, UserError):
        raise batch
    return batch


def hash_seed(*numbers: int) -> int:
    """A 64-bit seed from non-negative integers; neighbouring numbers give unrelated seeds."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])


def init_worker(worker: int) -> None:
    """One thread per loader process (the processes share the cores already), deaf to signals that ask for a stop.

    They may reach the whole group of the main process, or every process of a job. The main process decides how to stop;
    a loader process that died first would turn a clean stop into a crash. It still ends with the main process, and by
    the SIGTERM with which that one ends it.
    """
    if hasattr(os, "setpgrp"):
        os.setpgrp()
    for name in ("SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def _batch_of_one(sample: Sample, name: str, index: int) -> Batch:
    label_HW = sample["label"].as_subclass(torch.Tensor).contiguous()
    return Batch(to_planes(sample["rgb"])[None], to_planes(sample["thermal"])[None], label_HW[None], [name], [index])
