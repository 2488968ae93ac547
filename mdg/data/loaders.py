"""Batches for training and evaluation, on one process or several.

The order of an epoch is a function of the seed and the epoch, an augmented image one of the seed, the epoch and the
image. Nothing depends on the number of loader processes, and an epoch can be resumed at any batch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from multiprocessing.process import BaseProcess
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from mdg.data.base import RGBTDataset, TrainingFrames
from mdg.data.batches import (
    Batch,
    EvalSamples,
    SampleKey,
    TrainSamples,
    collate,
    collate_by_size,
    hash_seed,
    init_worker,
    with_unlabelled,
)
from mdg.data.transforms.chain import Transform
from mdg.data.waiting import SECONDS_BETWEEN_LOOKS, deaths_found_by_waiting, require_room, share, wait_for
from mdg.errors import DataError, MachineError, UserError

TRAIN_ADVICE = "end pipeline.train with Resize or RandomResizedCrop"


class TrainLoader:
    """Endless training data, epoch by epoch.

    Every batch is full and every image is seen in every epoch: the permutation is continued from its own start until
    it fills ``len(self)`` batches of every process. With fewer images than ``batch_size * world_size`` it goes round
    several times; an image drawn again is augmented anew. A data set may propose the order (``epoch_order``).

    Args:
        dataset: What to read.
        transforms: Augmentation, see ``build_transforms``.
        batch_size: Images per batch of one process.
        seed: Seed of order and augmentation, the same on all processes.
        workers: Loader processes; 0 reads in this one.
        prefetch: Batches each loader process holds ready.
        rank, world_size: This process and the number of processes that train together.
        timeout: Seconds to wait for a batch of the loader processes; None waits for ever.
        stop: Asked while no batch comes: whether to give up, because the run was asked to stop.
        chances: Chance of every image to be drawn, with sum 1; then images are drawn with replacement, and an epoch is
            as many draws as there would be images. None: every image is seen in every epoch.
    """

    def __init__(
        self,
        dataset: TrainingFrames,
        transforms: Sequence[Transform],
        *,
        batch_size: int,
        seed: int,
        workers: int,
        prefetch: int,
        rank: int = 0,
        world_size: int = 1,
        timeout: float | None = None,
        stop: Callable[[], bool] | None = None,
        chances: np.ndarray | None = None,
    ):
        assert 0 <= rank < world_size, (rank, world_size)
        self.images, self._dataset = len(dataset), dataset
        self.chances = None if chances is None else torch.from_numpy(np.asarray(chances, np.float64))
        self.batch_size, self.seed, self.rank, self.world_size = batch_size, seed, rank, world_size
        samples = TrainSamples(dataset, transforms, seed)
        self._passes = _Passes(samples, partial(collate, advice=TRAIN_ADVICE), workers, prefetch, timeout, stop)

    def __len__(self) -> int:
        """Batches per epoch, the same on every process."""
        return -(-self.images // (self.batch_size * self.world_size))

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Batches ``start``, ``start + 1`` ... of an epoch; those before are not read.

        One epoch at a time: beginning another ends this one.

        Raises:
            DataError: ``start`` lies beyond the epoch, or a file cannot be used.
            NoBatch: A loader process was lost, or none gives a batch. MachineError: They have no room for batches.
        """
        if not 0 <= start <= len(self):
            raise DataError(
                f"cannot begin at batch {start} of an epoch of {len(self)} batches: resume with the batch "
                "size, the number of processes and the training split the run was started with"
            )
        return self._passes.run(self._batches(epoch)[start:])

    def _batches(self, epoch: int) -> list[list[SampleKey]]:
        generator = torch.Generator().manual_seed(hash_seed(self.seed, epoch))
        if self.chances is None and (own := self._dataset.epoch_order(generator, self.rank, self.world_size)):
            return self._batches_of_own(epoch, own)
        step = self.batch_size * self.world_size
        keys = self._drawn(epoch, len(self) * step, generator)
        return [
            keys[first : first + self.batch_size]
            for first in range(self.rank * self.batch_size, len(self) * step, step)
        ]

    def _batches_of_own(self, epoch: int, order: list[int]) -> list[list[SampleKey]]:
        """Batches of the part of this process in the data set's own order. What fills the last one comes from the end
        of that part, which was read a moment ago."""
        keys = [SampleKey(epoch, index, 0) for index in order]
        for place in range(len(self) * self.batch_size - len(order)):
            keys.append(SampleKey(epoch, order[-1 - place % len(order)], 1 + place // len(order)))
        return [keys[first : first + self.batch_size] for first in range(0, len(keys), self.batch_size)]

    def _drawn(self, epoch: int, count: int, generator: torch.Generator) -> list[SampleKey]:
        """What an epoch shows on all processes, in its order; an image that comes again is another sample."""
        if self.chances is None:
            order = torch.randperm(self.images, generator=generator).tolist()
            return [SampleKey(epoch, order[place % self.images], place // self.images) for place in range(count)]
        seen: Counter[int] = Counter()
        keys = []
        for index in torch.multinomial(self.chances, count, replacement=True, generator=generator).tolist():
            keys.append(SampleKey(epoch, index, seen[index]))
            seen[index] += 1
        return keys


class SemiLoader:
    """Batches of images with a label and of images without, joined. An epoch is one pass over those without; those with
    a label go round as often as it takes, and their passes go on from one epoch to the next.

    Args:
        labelled, unlabelled: The loaders of both.
    """

    def __init__(self, labelled: TrainLoader, unlabelled: TrainLoader):
        self.labelled, self.unlabelled, self.images = labelled, unlabelled, unlabelled.images

    def __len__(self) -> int:
        """Batches per epoch, the same on every process."""
        return len(self.unlabelled)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """As :meth:`TrainLoader.epoch`."""
        ones = self._labelled_from(epoch * len(self) + start)
        for others, one in zip(self.unlabelled.epoch(epoch, start), ones, strict=False):
            yield with_unlabelled(one, others)

    def _labelled_from(self, place: int) -> Iterator[Batch]:
        """Batches with labels from one of them on, counted from the start of the run."""
        epoch, start = divmod(place, len(self.labelled))
        while True:
            yield from self.labelled.epoch(epoch, start)
            epoch, start = epoch + 1, 0


class EvalLoader:
    """Every image once over all processes, without padding.

    ``batch_size`` images are read together and delivered as one batch, or, where their sizes differ, as one batch per
    size; so a batch may be smaller, and what the network sees of an image does not depend on its neighbours.

    Args:
        dataset: What to read.
        batch_size: Images read together by one process, and thereby the most in a batch.
        eval_size: [height, width] to which images are resized (bilinear, antialiased); labels keep their native size.
        workers, prefetch, rank, world_size, timeout, stop: As for :class:`TrainLoader`.

    Attributes:
        images: Number of images of this process.

    Raises:
        DataError: More processes than images.
    """

    def __init__(
        self,
        dataset: RGBTDataset,
        *,
        batch_size: int,
        eval_size: tuple[int, int] | None,
        workers: int,
        prefetch: int,
        rank: int = 0,
        world_size: int = 1,
        timeout: float | None = None,
        stop: Callable[[], bool] | None = None,
    ):
        assert 0 <= rank < world_size, (rank, world_size)
        if world_size > len(dataset):
            raise DataError(
                f"got more processes ({world_size}) than images ({len(dataset)}) in the {dataset.split} "
                f"split of {dataset.dataset_name}: start at most {len(dataset)} processes"
            )
        mine = dataset.scored_by(rank, world_size)
        self.images = len(mine)
        self._batches = [list(mine[first : first + batch_size]) for first in range(0, len(mine), batch_size)]
        self._passes = _Passes(EvalSamples(dataset, eval_size), collate_by_size, workers, prefetch, timeout, stop)

    def __len__(self) -> int:
        """Groups of images that this process reads together; with sizes that differ there are more batches."""
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        """All batches of this process; raises DataError where a file cannot be used, else as ``TrainLoader.epoch``."""
        for batches in self._passes.run(self._batches):
            yield from batches


class _Plan:
    """Batch sampler whose batches are set anew for every pass."""

    def __init__(self) -> None:
        self.batches: Sequence[Any] = ()

    def __iter__(self) -> Iterator[Any]:
        return iter(self.batches)


class _Passes:
    """One pass after another over plans of batches, by loader processes that outlive the passes."""

    def __init__(
        self,
        samples: Dataset,
        collate_fn: Callable[..., Any],
        workers: int,
        prefetch: int,
        timeout: float | None,
        stop: Callable[[], bool] | None,
    ):
        self.samples, self.collate_fn, self.workers, self.prefetch = samples, collate_fn, workers, prefetch
        self.timeout, self.stop = timeout, stop
        self._plan = _Plan()
        self._loader = self._make_loader()
        self._processes: list[BaseProcess] = []
        self._fits = workers == 0

    def run(self, batches: Sequence[Any]) -> Iterator[Any]:
        """Delivers what the collate function made of each of ``batches``; raises the errors that it handed over."""
        self._plan.batches = armed = list(batches)
        if not armed:
            return
        iterator = self._wait(self._begin)
        for _ in armed:
            made = self._wait(partial(next, iterator))
            assert self._plan.batches is armed, "another pass over this loader has begun"
            if isinstance(made, UserError):
                raise made
            if not self._fits:
                require_room(made, self.workers, self.prefetch)
                self._fits = True
            yield made

    def _wait(self, take: Callable[[], Any]) -> Any:
        return wait_for(take, self._processes, self.timeout, self.stop) if self.workers else take()

    def _begin(self) -> Iterator[Any]:
        try:
            with deaths_found_by_waiting() as started:
                iterator = iter(self._loader)
            self._processes = started or self._processes
            return iterator
        except RuntimeError:
            # Loader processes still busy with a pass that was left early: torch waits for them here, once.
            self._loader = self._make_loader()
            raise
        except OSError as error:
            raise MachineError(
                f"cannot start {self.workers} loader processes ({error.strerror}); set --opts pipeline.workers=0"
            ) from error

    def _make_loader(self) -> DataLoader:
        return DataLoader(
            self.samples,
            batch_sampler=self._plan,
            num_workers=self.workers,
            collate_fn=partial(_collate_shared, self.collate_fn),
            worker_init_fn=init_worker,
            pin_memory=torch.cuda.is_available(),
            prefetch_factor=self.prefetch if self.workers else None,
            persistent_workers=self.workers > 0,
            # Not for ever in one go: `wait_for` asks again, and looks around between.
            timeout=SECONDS_BETWEEN_LOOKS if self.workers else 0,
            # The loader draws a seed for every pass; without a generator of its own it would advance the global one.
            generator=torch.Generator(),
        )


def _collate_shared(collate_fn: Callable[..., Any], items: Sequence[Any]) -> Any:
    made = collate_fn(items)
    return made if get_worker_info() is None or isinstance(made, UserError) else share(made)
