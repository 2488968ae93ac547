"""What the divergence interaction does to the frames of a split: the numbers of its stages, and their gradients."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mdg.data import build_dataset
from mdg.engine.checkpoint import load_model, open_checkpoint
from mdg.engine.distributed import distributed
from mdg.engine.evaluation.evaluator import make_eval_loader, require_split
from mdg.engine.runtime import apply_runtime, make_autocast
from mdg.engine.watching import STREAMS, interactions, measure, watched
from mdg.losses import Objective
from mdg.utils.files import require_writable, write_json
from mdg.utils.grids import Grid, print_grid
from mdg.utils.logging import console, setup_logging


def explain_split(
    split: str,
    checkpoint: str | Path | None = None,
    config: str | Path | None = None,
    *,
    opts: Sequence[str] = (),
    json_file: str | Path | None = None,
) -> list[dict[str, Any]]:
    """Measures every stage on every frame of a split, prints a table, and writes it.

    The gradients are those of the main loss in evaluation mode, summed over the split.

    Args:
        split: "train", "val" or "test"; ``data.limit`` among ``opts`` makes it shorter.
        checkpoint, config, opts: As for :func:`mdg.engine.evaluate`.
        json_file: Write the numbers there.

    Returns:
        The numbers of :func:`mdg.engine.watching.measure`, means over batches, one record per stage, with the root mean
        square ``gradient`` of the parameters of its parts.

    Raises:
        ConfigError: An unknown split, or a network without a divergence interaction.
        UserError: A configuration, data set or checkpoint that cannot be used.
    """
    require_split(split)
    if json_file is not None:
        require_writable(json_file, "--json")
    checkpoint, state, run = open_checkpoint(checkpoint, config, opts)
    with distributed(run.device, run.threads) as world:
        setup_logging(world.main)
        apply_runtime(run)
        dataset = build_dataset(run.data, split)
        model = load_model(state, run, dataset.classes, checkpoint, world.device).eval()
        objective = Objective(
            run.loss,
            run.auxiliary_loss,
            num_classes=len(dataset.classes),
            ignore_index=dataset.ignore_index,
            automatic_weights=lambda: [1.0] * len(dataset.classes),
        ).to(world.device)
        interactions(model)  # before the frames are read
        seen: list[list[dict[str, Any]]] = []
        for batch in make_eval_loader(run, dataset, world):
            label_BHW = batch.label_BHW.to(world.device).long()
            with watched(model) as stages, make_autocast(run, world.device):
                output = model(batch.rgb_B3HW.to(world.device), batch.thermal_B1HW.to(world.device))
            objective(output, label_BHW)[0].backward()
            with torch.no_grad():
                seen.append([measure(stage, label_BHW) for stage in stages])
        found = [{**_mean(records), "stage": records[0]["stage"]} for records in zip(*seen, strict=True)]
        for record in found:
            record["gradient"] = _gradients(model, record["stage"])
    if json_file is not None:
        write_json(json_file, {"checkpoint": str(checkpoint), "split": split, "stages": found})
    print_grid(grid_of(found), console)
    return found


def _mean(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Of numbers in equal places; places that some records lack are means over the others."""
    keys = dict.fromkeys(key for record in records for key in record)
    found = {key: [record[key] for record in records if key in record] for key in keys}
    return {
        key: _mean(values) if isinstance(values[0], dict) else sum(values) / len(values)
        for key, values in found.items()
    }


def _gradients(model: nn.Module, stage: int) -> dict[str, float]:
    """Root mean square of the gradients of the parts of a stage and, beside them, of its two encoders."""
    interaction = interactions(model)[stage]
    parts: dict[str, list[nn.Module]] = {
        "LCA": [interaction.attention] if interaction.attention is not None else [],
        "CM": [interaction.mamba] if interaction.mamba is not None else [],
        "encoders": [
            module
            for stream in STREAMS
            for name, module in getattr(model, f"{stream}_backbone").named_children()
            if name in (f"patch_embed{stage}", f"block{stage}", f"norm{stage}")
        ],
    }
    return {name: _root_mean_square(modules) for name, modules in parts.items() if modules}


def _root_mean_square(modules: Sequence[nn.Module]) -> float:
    grads = [p.grad.float() for module in modules for p in module.parameters() if p.grad is not None]
    count = sum(grad.numel() for grad in grads)
    return math.sqrt(sum(grad.square().sum().item() for grad in grads) / count) if count else math.nan


def grid_of(found: Sequence[dict[str, Any]]) -> Grid:
    """One column per stage, one row per number: "rgb selected: change / norm"."""
    rows: dict[str, list[str]] = {}
    for place, record in enumerate(found):
        for name, value in _flat(record):
            rows.setdefault(name, [""] * len(found))[place] = f"{value:.3g}"
    titles = ["", *[f"stage {record['stage']}" for record in found]]
    return [titles, *[[name, *cells] for name, cells in rows.items() if name != "stage"]]


def _flat(record: dict[str, Any], above: str = "") -> list[tuple[str, float]]:
    flat = []
    for key, value in record.items():
        name = f"{above}, {key}" if above else key
        flat += _flat(value, name) if isinstance(value, dict) else [(name, float(value))]
    return flat
