"""What runs in a loader process: read a frame, transform it, hand over plain tensors.

An error of the user's goes to the main process as a value, since torch would wrap an exception into a traceback.
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

from mdg.data.arrays import to_planes
from mdg.data.base import RGBTDataset
from mdg.data.batch import Batch, Item, collate
from mdg.data.transforms.chain import Sample, Transform, apply_transforms, to_sample
from mdg.data.transforms.resampling import resize_image
from mdg.errors import UserError


class SampleKey(NamedTuple):
    """One draw of an image: ``repeat`` counts how often the epoch has drawn it before."""

    epoch: int
    index: int
    repeat: int


class TrainSamples(Dataset):
    """Augmented items by :class:`SampleKey`; equal keys give equal items in any process and any order."""

    def __init__(self, dataset: RGBTDataset, transforms: Sequence[Transform], seed: int):
        self.dataset, self.transforms, self.seed = dataset, transforms, seed

    def __getitem__(self, key: SampleKey) -> Item | UserError:
        try:
            frame = self.dataset[key.index]
            with torch.random.fork_rng(devices=[]):
                # Not torch.manual_seed: that would reseed CUDA too, and with it the dropout of a run without workers.
                torch.default_generator.manual_seed(hash_seed(self.seed, *key))
                sample = apply_transforms(to_sample(frame), self.transforms)
            return _to_item(sample, frame.name, key.index)
        except UserError as error:
            return error


class EvalSamples(Dataset):
    """Items by index: images resized to ``size`` ([height, width]) where it is given, labels as they are."""

    def __init__(self, dataset: RGBTDataset, size: tuple[int, int] | None):
        self.dataset, self.size = dataset, size

    def __getitem__(self, index: int) -> Item | UserError:
        try:
            frame = self.dataset[index]
            sample = to_sample(frame)
            if self.size is not None:
                sample |= {key: resize_image(sample[key], self.size) for key in ("rgb", "thermal")}
            return _to_item(sample, frame.name, index)
        except UserError as error:
            return error


def read_batch(dataset: RGBTDataset, index: int, size: tuple[int, int] | None) -> Batch:
    """One frame as a batch, prepared as for evaluation, in this process; raises DataError where it cannot be used."""
    batch = collate([EvalSamples(dataset, size)[index]], advice="")
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


def _to_item(sample: Sample, name: str, index: int) -> Item:
    label_HW = sample["label"].as_subclass(torch.Tensor).contiguous()
    return Item(to_planes(sample["rgb"]), to_planes(sample["thermal"]), label_HW, name, index)
