"""Training as a function: what ``tools/train.py`` calls."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.distributed as dist

from mdg.config import RunConfig, dump_yaml, load_config
from mdg.engine.distributed import World, distributed
from mdg.engine.trainer import Trainer
from mdg.errors import ConfigError
from mdg.ops import set_backend
from mdg.utils.allocator import tune_allocator
from mdg.utils.environment import describe_environment
from mdg.utils.files import write_json
from mdg.utils.logging import log_to_file, setup_logging, stop_log_to_file
from mdg.utils.run_directory import RunDirectory, fresh_path

logger = logging.getLogger("mdg.train")


def train(
    config: str | Path | RunConfig | None = None,
    opts: Sequence[str] = (),
    *,
    resume: str | Path | None = None,
    run_dir: str | Path | None = None,
) -> RunDirectory:
    """Trains a configuration, or continues a run exactly where it stopped.

    Args:
        config: A YAML file or a loaded configuration; with ``resume`` the run's own ``config.yaml`` where it is None.
        opts: Overrides such as ``train.epochs=2``.
        resume: A run directory to continue.
        run_dir: Where to keep a new run; None makes ``exp_dir/name/<time>``.

    Returns:
        The run directory.

    Raises:
        UserError: A configuration, data set or file of weights that cannot be used; nothing was overwritten.
    """
    if resume is not None:
        run = RunDirectory.existing(Path(resume))
        config = config or run.config
    assert config is not None, "train() needs a config or a run to resume"
    if not isinstance(config, RunConfig):
        config = load_config(config, opts)
    with distributed(config.device, config.threads) as world:
        setup_logging(world.main)
        apply_runtime(config)
        if resume is None:
            run = _create_run(config, run_dir, world)
        trainer = Trainer(config, run, world, resume=resume is not None)
        if world.main:
            run.path.mkdir(parents=True, exist_ok=True)
        handler = log_to_file(run.path / "train.log") if world.main else None
        try:
            if world.main:
                _explain(config, run, trainer)
            _report_end(config, run, trainer.fit())
        finally:
            if handler is not None:
                stop_log_to_file(handler)
    return run


def apply_runtime(config: RunConfig) -> None:
    """Backends of the operators, memory and determinism, for this process."""
    for operator in type(config.ops).model_fields:
        backend = getattr(config.ops, operator)
        # `auto` leaves the choice to the environment variable, then to the operator itself.
        set_backend(operator, None if backend == "auto" else backend)
    if config.device == "cpu" or not torch.cuda.is_available():
        # Whoever computes activations again wants less memory rather than more speed.
        tune_allocator(keep_freed=not config.train.activation_checkpointing)
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if config.train.compile and config.device != "cuda" and not torch.cuda.is_available():
        _require_compiler()
    torch.use_deterministic_algorithms(config.deterministic, warn_only=True)


def _require_compiler() -> None:
    if not any(map(shutil.which, ("c++", "g++", "clang++"))):
        raise ConfigError(
            "train.compile: torch.compile on a CPU needs a C++ compiler (c++, g++ or clang++) and none is on the PATH; "
            "install one or set --opts train.compile=false"
        )


def _create_run(config: RunConfig, run_dir: str | Path | None, world: World) -> RunDirectory:
    # The main process picks the folder (its name is a time) and tells the others.
    path = [
        str(RunDirectory.create(config.exp_dir, config.name, Path(run_dir) if run_dir else None).path)
        if world.main
        else None
    ]
    if world.size > 1:
        dist.broadcast_object_list(path)
    return RunDirectory(Path(path[0]))


def _explain(config: RunConfig, run: RunDirectory, trainer: Trainer) -> None:
    step = trainer.progress.step
    text = dump_yaml(config)
    if run.config.is_file() and run.config.read_text(encoding="utf-8") != text:  # resumed with other options
        run.config.rename(fresh_path(run.path / f"config-until-step-{step}.yaml"))
    run.config.write_text(text, encoding="utf-8")
    write_json(
        fresh_path(run.path / (f"environment-from-step-{step}.json" if step else "environment.json")),
        {
            **describe_environment(),
            "seed": config.seed,
            "processes": trainer.world.size,
            "device": str(trainer.world.device),
        },
    )
    parameters = sum(p.numel() for p in trainer.model.parameters()) / 1e6
    logger.info("run %s", run.path)
    logger.info(
        "%s %s: %d images, %d steps per epoch; %.2f M parameters; %d process(es) on %s",
        config.name,
        trainer.train_set.dataset_name,
        trainer.train_loader.images,
        trainer.steps_per_epoch,
        parameters,
        trainer.world.size,
        trainer.world.device,
    )


def _report_end(config: RunConfig, run: RunDirectory, progress) -> None:
    if progress.epoch >= config.train.epochs:
        logger.info("done: %d epochs, %d steps", progress.epoch, progress.step)
    else:
        logger.info(
            "stopped in epoch %d at step %d; continue with --resume %s", progress.epoch + 1, progress.step, run.path
        )
    if progress.best_score is not None:
        logger.info(
            "best %s on %s: %.2f (epoch %d), %s",
            config.eval.metric,
            config.eval.selection,
            100 * progress.best_score,
            progress.best_epoch,
            run.best,
        )
