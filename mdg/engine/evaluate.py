"""Evaluation as a function: what ``tools/val_mm.py`` calls."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

import mdg
from mdg.config import RunConfig, load_config, parse_config
from mdg.config.yaml_tree import apply_override, parse_yaml
from mdg.data import RGBTDataset, build_dataset
from mdg.engine.checkpoint import load_checkpoint, load_weights
from mdg.engine.distributed import World, distributed
from mdg.engine.evaluator import Evaluation, evaluate_model, make_autocast, make_eval_loader, make_protocol
from mdg.engine.pictures import predict_panels, spread, write_panels
from mdg.engine.report import score_table, write_json
from mdg.engine.train import apply_runtime
from mdg.errors import ConfigError, WeightsError
from mdg.metrics.protocol import Protocol, selection_rule
from mdg.models import build_model
from mdg.utils.environment import describe_environment
from mdg.utils.logging import console, setup_logging
from mdg.utils.run_directory import fresh_path, newest_run

logger = logging.getLogger("mdg.eval")
SPLITS = ("train", "val", "test")


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
    """Scores a checkpoint on a split, prints the table and writes ``results.json`` and overlay pictures.

    Args:
        checkpoint: A ``best.pt`` or ``last.pt``; None takes the best checkpoint of the newest run in ``exp/``.
        config: A YAML; None takes the configuration inside the checkpoint.
        split: "train", "val" or "test".
        opts: Overrides such as ``data.root=/path``.
        json_file: Write the results there too.
        out_dir: Folder for results and pictures; None makes ``results/<split>`` in the run of the checkpoint. An
            existing folder is never overwritten.

    Raises:
        UserError: A configuration, data set or checkpoint that cannot be used.
    """
    if split not in SPLITS:
        raise ConfigError(f"--split {split}: expected one of {', '.join(SPLITS)}")
    checkpoint = find_checkpoint(checkpoint, opts)
    state = load_checkpoint(checkpoint)
    run_config = load_config(config, opts) if config is not None else config_inside(state, checkpoint, opts)
    with distributed(run_config.device, run_config.threads) as world:
        setup_logging(world.main)
        apply_runtime(run_config)
        dataset = build_dataset(run_config.data, split)
        model = load_model(state, run_config, dataset.classes, checkpoint, world.device)
        loader = make_eval_loader(run_config, dataset, world)
        logger.info("%s on %s %s: %d images", checkpoint, dataset.dataset_name, split, len(dataset))
        evaluation = evaluate_model(model, loader, dataset, run_config, world, _progress_lines(loader, world))
        selection = selection_rule(
            _selection(state, checkpoint), run_config.eval.metric, split, state["progress"]["epoch"]
        )
        result = EvaluationResult(evaluation, make_protocol(run_config, dataset, selection), None)
        if world.main:
            _write(result, model, run_config, dataset, world, checkpoint, json_file, out_dir)
        world.barrier()
    return result


def find_checkpoint(checkpoint: str | Path | None, opts: Sequence[str]) -> Path:
    """The file named, or the best (else the last) checkpoint of the newest run under ``exp_dir``."""
    if checkpoint is not None:
        return Path(checkpoint)
    exp_dir = next((opt.partition("=")[2] for opt in reversed(opts) if opt.startswith("exp_dir=")), "exp")
    run = newest_run(Path(exp_dir))
    return run.best if run.best.is_file() else run.last


def config_inside(state: dict[str, Any], checkpoint: Path, opts: Sequence[str]) -> RunConfig:
    """The configuration a checkpoint was trained with, under ``opts``.

    Raises:
        ConfigError: It names modules to import, or an override does not fit.
    """
    tree = parse_yaml(state["config"], f"configuration inside {checkpoint}")
    if tree.values.get("custom_imports"):
        raise ConfigError(
            f"{checkpoint}: its configuration imports {', '.join(tree.values['custom_imports'])}. A checkpoint must "
            "not decide what code runs: if you trust it, name its configuration with --config (config.yaml of its run)"
        )
    for override in opts:
        tree = apply_override(tree, override)
    return parse_config(tree)


def _selection(state: dict[str, Any], checkpoint: Path) -> str:
    # `last.pt` is the last state whatever the run selected on; `best.pt` was chosen by its run's own rule.
    if "optimizer" in state:
        return "last"
    return parse_yaml(state["config"], str(checkpoint)).values["eval"]["selection"]


def load_model(
    state: dict[str, Any], config: RunConfig, classes: Sequence[str], checkpoint: Path, device: torch.device
) -> nn.Module:
    """The network of a checkpoint on ``device``, with the moving average of its weights where it holds one.

    Raises:
        WeightsError: Another number of classes, or tensors that do not fit.
    """
    if len(state["classes"]) != len(classes):
        raise WeightsError(
            f"{checkpoint}: trained for {len(state['classes'])} classes ({', '.join(state['classes'])}), the data set "
            f"has {len(classes)} ({', '.join(classes)})"
        )
    model = build_model(config.model, len(classes), load_pretrained=False)
    weights = state["model"]
    if state.get("ema") is not None:  # `last.pt` holds both; the moving average is what is scored
        weights = {name.removeprefix("module."): value for name, value in state["ema"].items() if name != "n_averaged"}
    load_weights(model, weights, checkpoint)
    model.to(device)
    if config.train.compile:
        model.compile()
    return model


def _progress_lines(loader, world: World):
    if not world.main:
        return None
    total, marks = len(loader), {max(1, round(len(loader) * part / 4)) for part in range(1, 5)}
    done = iter(range(1, total + 1))

    def report(images: int) -> None:
        batch = next(done)
        if total > 40 and batch in marks:
            logger.info("  %d images", images * world.size)

    return report


def _write(
    result: EvaluationResult,
    model: nn.Module,
    config: RunConfig,
    dataset: RGBTDataset,
    world: World,
    checkpoint: Path,
    json_file: str | Path | None,
    out_dir: str | Path | None,
) -> None:
    console.print(score_table(result.evaluation, result.protocol))
    content = {
        **result.evaluation.as_dict(result.protocol),
        "checkpoint": str(checkpoint),
        "environment": describe_environment(),
        "processes": world.size,
        "mdg_version": mdg.__version__,
    }
    if json_file is not None:
        write_json(Path(json_file), content)
        console.print(f"results: {json_file}")
    in_run = checkpoint.parent.name == "checkpoints"
    if out_dir is None and not in_run:
        return
    result.folder = fresh_path(Path(out_dir) if out_dir else checkpoint.parent.parent / "results" / dataset.split)
    write_json(result.folder / "results.json", content)
    places = spread(len(dataset), config.eval.pictures)
    panels = predict_panels(
        model, dataset, places, config.pipeline.eval_size, world.device, make_autocast(config, world.device)
    )
    write_panels(result.folder / "pictures", panels, dataset)
    console.print(f"results: {result.folder / 'results.json'}")
    if panels:
        console.print(f"pictures: {result.folder / 'pictures' / 'overview.png'}")
