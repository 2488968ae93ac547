"""What a run reads: the splits that train and select, their loaders, and what a checkpoint keeps of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from mdg.config import RunConfig
from mdg.data import RGBTDataset, TrainLoader, build_transforms
from mdg.data.build import Pool, fill_cache, open_dataset, open_unlabelled
from mdg.data.loaders import EvalLoader, SemiLoader
from mdg.engine.balance import ClassBalance
from mdg.engine.distributed import World, compare_processes
from mdg.engine.evaluation.evaluator import make_eval_loader
from mdg.engine.evaluation.provenance import FrameSet, frame_set
from mdg.engine.resume import identity
from mdg.utils.cores import loader_processes


class RunData:
    """Opens the splits of a run without decoding a frame.

    Args:
        config: The run.
        world: The processes that share it.
        stop: Asked while loaders wait.

    Attributes:
        train_set, eval_set: The splits that train and select; None where the last epoch is kept.
        balance: Classes of the train split.
        pool: Images without labels, where they are used.
        train_loader, eval_loader: Of this process; from :meth:`open_loaders` on, as what follows.
        steps_per_epoch: Optimizer steps.
        identity: What another run on other data differs in.

    Raises:
        UserError: Data that are missing or cannot be used, or processes that see different ones.
    """

    train_loader: TrainLoader | SemiLoader
    steps_per_epoch: int
    identity: dict[str, Any]

    def __init__(self, config: RunConfig, world: World, stop: Callable[[], bool]):
        self.config, self.world, self.stop = config, world, stop
        self.train_set = open_dataset(config.data, "train")
        self.balance = ClassBalance(self.train_set)
        self.eval_set: RGBTDataset | None = None
        self.eval_loader: EvalLoader | None = None
        self.pool: Pool | None = None

    def open_loaders(self, unlabelled: bool) -> None:
        """Opens what is left; ``unlabelled``: every batch holds images without labels as well."""
        config, world = self.config, self.world
        chances = self.balance.chances(config.pipeline.rare_class_sampling)
        self.train_loader = loader = self._make_loader(self.train_set, chances)
        if unlabelled:
            self.pool = open_unlabelled(config.data, config.unlabelled)
            self.train_loader = SemiLoader(loader, self._make_loader(self.pool, None))
        if config.eval.selection != "last":
            self.eval_set = open_dataset(config.data, config.eval.selection)
            workers = min(loader_processes(config.pipeline.workers), 2)
            self.eval_loader = make_eval_loader(config, self.eval_set, world, workers, stop=self.stop)
        self.steps_per_epoch = math.ceil(len(self.train_loader) / config.train.accumulate)
        self.identity = identity(config, self.train_set, self.eval_set, world.size, self._unlabelled)
        facts = {f"data ({role} split)": facts["sizes"] for role, facts in self.identity["data"].items()}
        compare_processes(world, facts)

    @property
    def _unlabelled(self) -> list[RGBTDataset]:
        return [] if self.pool is None else [dataset for dataset, _ in self.pool.parts]

    # Checkpoints keep the names of the frames, so that an evaluation can tell whether it scores some of them.

    def trained_on(self) -> FrameSet:
        """The frames that train with their labels."""
        return frame_set(self.train_set)

    def selected_on(self) -> FrameSet | None:
        """The frames that select."""
        return None if self.eval_set is None else frame_set(self.eval_set)

    def unlabelled_on(self) -> list[FrameSet]:
        """The frames that train without their labels, by data set."""
        return [frame_set(dataset) for dataset in self._unlabelled]

    def fill_caches(self) -> None:
        """Decodes frames where that is asked for: minutes, so it comes after all that can be found wrong without it."""
        fill_cache(self.train_set, self.config.data)
        for dataset, options in [] if self.pool is None else self.pool.parts:
            fill_cache(dataset, options)
        if self.eval_set is not None:
            fill_cache(self.eval_set, self.config.data)

    def _make_loader(self, dataset: RGBTDataset | Pool, chances: Any) -> TrainLoader:
        config, world = self.config, self.world
        return TrainLoader(
            dataset,
            build_transforms(config.pipeline.train),
            batch_size=config.train.batch_size,
            seed=config.seed,
            workers=loader_processes(config.pipeline.workers),
            prefetch=config.pipeline.prefetch,
            rank=world.rank,
            world_size=world.size,
            timeout=config.pipeline.timeout,
            stop=self.stop,
            chances=chances,
        )
