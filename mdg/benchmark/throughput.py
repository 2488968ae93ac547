"""How many images per second the training data of a configuration gives, and where the time goes.

Every process works with one thread, so the figures of a single process are images per second and core.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import cv2
import torch

from mdg.benchmark.timing import Rate, Stopwatch, count_images
from mdg.config import RunConfig
from mdg.data.base import Frame, RGBTDataset
from mdg.data.batches import SampleKey, TrainSamples, collate
from mdg.data.build import build_dataset
from mdg.data.loaders import TRAIN_ADVICE, TrainLoader
from mdg.data.transforms.chain import Transform, build_transforms, to_sample
from mdg.errors import ConfigError, UserError

KEPT = 64  # frames held in memory to measure augmentation alone


def measure(config: RunConfig, seconds: float, workers: Iterable[int]) -> dict[str, Any]:
    """Measures the train split of a configuration.

    Args:
        config: Data set, transforms, batch size, seed and prefetch are read from it.
        seconds: Duration of the measurement of each figure.
        workers: Numbers of loader processes to measure the whole loader with; 0 is this process.

    Returns:
        ``images_per_second``: :meth:`Rate.summary` of ``reading`` (files or cache to memory), ``augmentation`` (memory
        to batches) and ``loader, N workers``. ``cpu_ms_per_image``: the steps of ``augmentation`` in their order.

    Raises:
        ConfigError: A duration or a number of processes that cannot be. DataError: data that cannot be used.
    """
    workers = list(workers)
    if not seconds > 0 or any(count < 0 for count in workers):
        raise ConfigError(f"got {seconds} seconds and {workers} workers, expected more than 0 seconds and 0 workers on")
    dataset, transforms = build_dataset(config.data, "train"), build_transforms(config.pipeline.train)
    with one_thread():
        rates = {"reading": count_images(read_frames(dataset), seconds).summary()}
        augmentation, steps = _measure_augmentation(config, dataset, transforms, seconds)
        rates["augmentation"] = augmentation.summary()
        for count in workers:
            stream = load_batches(config, dataset, transforms, count)
            # Batches made before the clock starts must not count: those that the processes hold ready.
            rate = count_images(stream, seconds, warm_up=1 + count * config.pipeline.prefetch)
            rates[f"loader, {count} workers"] = rate.summary(in_process=count == 0)
    return {"images_per_second": rates, "cpu_ms_per_image": steps}


def _measure_augmentation(
    config: RunConfig, dataset: RGBTDataset, transforms: Sequence[Transform], seconds: float
) -> tuple[Rate, list[dict[str, Any]]]:
    frames = [dataset[index] for index in range(min(KEPT, len(dataset)))]
    watched = [Stopwatch(transform) for transform in transforms]
    rate = count_images(augment_frames(frames, watched, config.train.batch_size, config.seed), seconds)
    steps = [(watch.name, watch.cpu_ms()) for watch in watched]
    steps.append(("copying and batching", rate.cpu_ms() - sum(ms for _, ms in steps)))
    return rate, [{"step": name, "mean": ms} for name, ms in steps]


def read_frames(dataset: RGBTDataset) -> Iterator[int]:
    """Reads one frame after the other into memory of their own, which decodes files or copies out of the cache."""
    for index in itertools.cycle(range(len(dataset))):
        to_sample(dataset[index])
        yield 1


def augment_frames(
    frames: Sequence[Frame], transforms: Sequence[Transform], batch_size: int, seed: int
) -> Iterator[int]:
    """Makes batches of frames that are in memory, in the way of the loader."""
    samples = TrainSamples(frames, transforms, seed)
    places = itertools.count()
    while True:
        draws = [divmod(place, len(frames)) for place in itertools.islice(places, batch_size)]
        batch = collate([samples[SampleKey(epoch, index, 0)] for epoch, index in draws], TRAIN_ADVICE)
        if isinstance(batch, UserError):
            raise batch
        yield len(batch.indices)


def load_batches(
    config: RunConfig, dataset: RGBTDataset, transforms: Sequence[Transform], workers: int
) -> Iterator[int]:
    """Batches of the loader that training would use, epoch after epoch."""
    loader = TrainLoader(
        dataset,
        transforms,
        batch_size=config.train.batch_size,
        seed=config.seed,
        workers=workers,
        prefetch=config.pipeline.prefetch,
    )
    for epoch in itertools.count():
        for batch in loader.epoch(epoch):
            yield len(batch.indices)


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread for torch and OpenCV, as in a loader process."""
    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])
