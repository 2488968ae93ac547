"""Evaluation as a function: what ``tools/val_mm.py`` calls."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mdg.data import EvalLoader, build_dataset
from mdg.engine.checkpoint import load_model, open_checkpoint
from mdg.engine.distributed import World, distributed
from mdg.engine.evaluation.evaluator import (
    evaluate_model,
    for_cameras,
    make_eval_loader,
    make_protocol,
    require_split,
)
from mdg.engine.evaluation.provenance import provenance
from mdg.engine.evaluation.results import describe_result, write_folder
from mdg.engine.evaluation.scores import Evaluation, calibration_text, score_table
from mdg.engine.inference import Inference
from mdg.engine.runtime import apply_runtime, make_autocast
from mdg.engine.trust.holds import temperature_under
from mdg.errors import ConfigError
from mdg.metrics import Protocol
from mdg.models.absence import require_cameras
from mdg.utils.files import explained, require_writable, write_json
from mdg.utils.logging import console, setup_logging
from mdg.utils.progress import Progress
from mdg.utils.run_directory import fresh_path, make_fresh_folder

logger = logging.getLogger("mdg.eval")


@dataclass
class EvaluationResult:
    """Scores, the protocol they follow and the folder they were written to (None: only to ``json_file``)."""

    evaluation: Evaluation
    protocol: Protocol
    folder: Path | None


def evaluate(
    checkpoint: str | Path | None = None,
    config: str | Path | None = None,
    *,
    split: str = "test",
    opts: Sequence[str] = (),
    json_file: str | Path | None = None,
    out_dir: str | Path | None = None,
) -> EvaluationResult:
    """Scores a checkpoint on a split, writes what :mod:`mdg.engine.evaluation.results` lists and prints the table.

    Everything is written before anything is printed: the reader of the output may have gone.

    Args:
        checkpoint: A ``best.pt`` or ``last.pt``; None takes the best checkpoint of the newest run in ``exp/``.
        config: A YAML; None takes the configuration inside the checkpoint.
        split: "train", "val" or "test".
        opts: Overrides such as ``data.root=/path``.
        json_file: Write the results there too.
        out_dir: Folder for results and pictures; None makes ``results/<split>`` in the run of the checkpoint. An
            existing folder is never overwritten.

    Raises:
        UserError: A configuration, data set or checkpoint that cannot be used, or a place that cannot be written, which
            is looked at before the scoring.
        NonFiniteError: Weights or logits that are not finite.
    """
    require_split(split)
    checkpoint, state, run_config = open_checkpoint(checkpoint, config, opts)
    with distributed(run_config.device, run_config.threads) as world:
        setup_logging(world.main)
        if world.main:
            _require_places(checkpoint, json_file, split, out_dir)
        apply_runtime(run_config)
        dataset = build_dataset(run_config.data, split)
        model = load_model(state, run_config, dataset.classes, checkpoint, world.device)
        require_cameras(model, dataset.cameras, dataset.dataset_name)
        run_config = for_cameras(run_config, dataset, model)
        loader = make_eval_loader(run_config, dataset, world)
        logger.info("%s on %s %s: %d images", checkpoint, dataset.dataset_name, split, len(dataset))
        # Before the scoring, which a mistake in any of these would lose.
        protocol = make_protocol(run_config, dataset, provenance(state, checkpoint, dataset))
        data = dataset.content_state()
        with _shown(loader, world) as progress:
            temperature = temperature_under(state, run_config.eval)
            evaluation = evaluate_model(model, loader, dataset, run_config, world, progress, temperature=temperature)
        assert evaluation is not None, "nothing asks it to stop"
        result = EvaluationResult(evaluation, protocol, None)
        if world.main:
            content = describe_result(evaluation, protocol, data, state, checkpoint, run_config, world.size)
            lines = [] if evaluation.reliability is None else [calibration_text(evaluation.reliability)]
            try:
                if json_file is not None:
                    write_json(json_file, content)
                    lines.append(f"results: {json_file}")
                if (target := _target(checkpoint, split, out_dir)) is not None:
                    result.folder = make_fresh_folder(target)
                    inference = Inference(model, run_config.eval, make_autocast(run_config, world.device), world.device)
                    parts = evaluation, protocol, dataset, inference, run_config
                    for line in write_folder(result.folder, content, *parts):
                        lines.append(line)
            finally:  # where writing fails, the scores are shown all the same
                console.print(score_table(evaluation, protocol))
                for line in lines:
                    console.print(line)
        world.barrier()
    return result


@contextmanager
def _shown(loader: EvalLoader, world: World) -> Iterator[Callable[[int], None] | None]:
    """Takes the number of images that this process has done; None in processes that say nothing."""
    if not world.main:
        yield None
        return
    with Progress(loader.images * world.size, "images") as progress:
        yield lambda images: progress.advance(images * world.size - progress.done)


def _target(checkpoint: Path, split: str, out_dir: str | Path | None) -> Path | None:
    """Where to write: the folder asked for, else one in the run of the checkpoint, else nowhere; never an old one."""
    if out_dir is not None:
        return Path(out_dir)
    return checkpoint.parent.parent / "results" / split if checkpoint.parent.name == "checkpoints" else None


def _require_places(checkpoint: Path, json_file: str | Path | None, split: str, out_dir: str | Path | None) -> None:
    if json_file is not None:
        require_writable(json_file, "--json")
        if Path(json_file).resolve() == checkpoint.resolve():
            raise ConfigError(f"--json {json_file}: this is the checkpoint; name another file")
    target = _target(checkpoint, split, out_dir)
    if target is not None:
        with explained(f"--out {target}"):
            target = fresh_path(target)
        require_writable(target, "--out")
