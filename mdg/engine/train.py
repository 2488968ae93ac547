"""Training as a function: what ``tools/train.py`` calls."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from mdg.config import RunConfig, dump_yaml, load_config
from mdg.engine.checkpoint import config_inside
from mdg.engine.distributed import World, compare_processes, distributed
from mdg.engine.freezing import describe_size
from mdg.engine.resume import newest_state
from mdg.engine.runtime import apply_runtime, follow_measurements
from mdg.engine.state import Progress
from mdg.engine.trainer import Trainer
from mdg.ops import measured
from mdg.ops.measured import Measurement
from mdg.utils.crash import remember
from mdg.utils.environment import code_fingerprint, describe_environment, package_version
from mdg.utils.files import explained, write_bytes, write_json, write_text
from mdg.utils.launched import command_line, launch_id, restart_count
from mdg.utils.logging import early_lines, log_to_file, pass_on, setup_logging, stop_log_to_file
from mdg.utils.run_directory import RunDirectory, fresh_path

logger = logging.getLogger("mdg.train")


@dataclass(frozen=True)
class Outcome:
    """How a training ended: where it is kept, where it stands, and whether a signal stopped it before its end."""

    run: RunDirectory
    progress: Progress
    stopped: bool


def train(
    config: str | Path | RunConfig | None = None,
    opts: Sequence[str] = (),
    *,
    resume: str | Path | None = None,
    run_dir: str | Path | None = None,
    allow_changes: bool = False,
) -> RunDirectory:
    """Trains a configuration, or continues a run exactly where it stopped.

    Args:
        config: A YAML file or a loaded configuration; with ``resume`` the run's own where it is None.
        opts: Overrides such as ``train.epochs=2``.
        resume: A run directory to continue.
        run_dir: Where to keep a new run; None makes ``exp_dir/name/<time>``.
        allow_changes: Resume with another configuration, code or data than the run was started with; the protocol of
            its scores then says so.

    Returns:
        The run directory.

    Raises:
        UserError: A configuration, data set or file of weights that cannot be used; nothing was overwritten.
    """
    return run_training(config, opts, resume=resume, run_dir=run_dir, allow_changes=allow_changes).run


def run_training(
    config: str | Path | RunConfig | None = None,
    opts: Sequence[str] = (),
    *,
    resume: str | Path | None = None,
    run_dir: str | Path | None = None,
    allow_changes: bool = False,
) -> Outcome:
    """:func:`train`, saying how it ended."""
    run = RunDirectory.existing(Path(resume).expanduser()) if resume is not None else None
    if not isinstance(config, RunConfig):
        config = _load(config, opts, run)
    with distributed(config.device, config.threads, config.process_timeout) as world:
        setup_logging(world.main)
        remember(config=dump_yaml(config))
        apply_runtime(config)
        compare_processes(world, _facts(config, resume))
        run, resuming = _open_run(run, config, run_dir, world)
        try:
            with run.held(command_line()) if world.main else nullcontext():
                return _train(config, run, world, resuming, allow_changes)
        finally:
            if world.main:
                run.leave_if_empty()


def _load(config: str | Path | None, opts: Sequence[str], run: RunDirectory | None) -> RunConfig:
    if config is not None:
        return load_config(config, opts)
    assert run is not None, "train() needs a config or a run to resume"
    if run.config.is_file() and run.config.stat().st_size:
        return load_config(run.config, opts)
    # Lost or never written: the states hold the configuration too.
    state, file = newest_state(run)
    return config_inside(state, file, opts)


def _facts(config: RunConfig, resume: str | Path | None) -> dict[str, str]:
    """What all processes must have in common; values that differ are shown."""
    versions = {name: package_version(name) or "absent" for name in ("torch", "numpy", "opencv-python")}
    return {
        "configuration": hashlib.sha256(dump_yaml(config).encode()).hexdigest()[:16],
        "--resume": str(resume),
        "code": code_fingerprint(tuple(config.custom_imports)),
        **versions,
    }


def _open_run(
    run: RunDirectory | None, config: RunConfig, run_dir: str | Path | None, world: World
) -> tuple[RunDirectory, bool]:
    """The run, the same for all processes, and whether a saved state is continued."""
    if run is None:
        # The main process picks the folder (its name is a time) and tells the others.
        path = str(_new_or_restarted(config, run_dir)) if world.main else ""
        run = RunDirectory(Path(world.gather(path)[0]))
        return run, run.has_state
    return run, True


def _new_or_restarted(config: RunConfig, run_dir: str | Path | None) -> Path:
    """A new folder, or that of the attempt before this one, where a launcher (torchrun --max-restarts) starts again."""
    folder = Path(run_dir).expanduser() if run_dir else None
    if restart_count():
        candidates = [folder] if folder else sorted((config.exp_dir / config.name).glob("*/"))
        for candidate in candidates:
            if RunDirectory(candidate).launch == launch_id():
                return candidate
    return RunDirectory.create(config.exp_dir, config.name, folder).path


def _train(config: RunConfig, run: RunDirectory, world: World, resuming: bool, allow_changes: bool) -> Outcome:
    with early_lines() as lines:  # no file of a run is touched before it is known that it can go on
        measurements = follow_measurements(run, world)
        trainer = Trainer(config, run, world, resume=resuming, allow_changes=allow_changes)
    handler = log_to_file(run.path / "train.log") if world.main else None
    remember(folder=run.path)
    try:
        if handler is not None:
            pass_on(lines, handler)
            if not resuming:  # an earlier attempt of this launch may have ended before it saved anything
                run.truncate_metrics(0)
            _explain(config, run, trainer, measurements)
        progress = trainer.fit()
        _report_end(config, run, progress, trainer.finished)
    finally:
        if handler is not None:
            stop_log_to_file(handler)
    return Outcome(run, progress, trainer.stopped)


def _explain(config: RunConfig, run: RunDirectory, trainer: Trainer, measurements: list[Measurement]) -> None:
    step = trainer.progress.step
    text = trainer.config_text
    with explained(run.config):
        known = run.config.read_bytes() if run.config.is_file() else b""
    if known and known != text.encode():  # resumed with other options
        write_bytes(fresh_path(run.path / f"config-until-step-{step}.yaml"), known)
    write_text(run.config, text)
    measured.write(run.backends, measurements)
    write_json(
        fresh_path(run.path / (f"environment-from-step-{step}.json" if step else "environment.json")),
        {
            **describe_environment(),
            "seed": config.seed,
            "processes": trainer.world.size,
            "launch": launch_id(),
            "device": str(trainer.world.device),
        },
    )
    logger.info("run %s", run.path)
    logger.info(
        "%s %s: %d images, %d steps per epoch; %s; %d process(es) on %s",
        config.name,
        trainer.train_set.dataset_name,
        trainer.train_loader.images,
        trainer.steps_per_epoch,
        describe_size(trainer.model),
        trainer.world.size,
        trainer.world.device,
    )


def _report_end(config: RunConfig, run: RunDirectory, progress: Progress, finished: bool) -> None:
    if finished:
        logger.info("done: %d epochs, %d steps", progress.epoch, progress.step)
    else:
        place, epoch = ("in", progress.epoch + 1) if progress.batch else ("behind", progress.epoch)
        asked = [key for key in ("stop_epoch", "max_steps") if getattr(config.train, key) is not None]
        further = f" --opts {' '.join(f'train.{key}=null' for key in asked)}" if asked else ""
        logger.info(
            "stopped %s epoch %d at step %d; continue with --resume %s%s",
            place,
            epoch,
            progress.step,
            run.path,
            further,
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
