"""Calibration of a checkpoint: what ``tools/calibrate.py`` calls.

Legend: N frames or pixels, K classes, J numbers of a frame.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from mdg.config import RunConfig
from mdg.data import Batch, RGBTDataset, build_dataset, read_batch
from mdg.engine.checkpoint import load_model, open_checkpoint, save_checkpoint
from mdg.engine.distributed import distributed
from mdg.engine.evaluation.evaluator import for_cameras, make_eval_loader, require_split
from mdg.engine.evaluation.pictures import spread
from mdg.engine.inference import Inference, describe_inference
from mdg.engine.runtime import apply_runtime, make_autocast
from mdg.engine.trust.familiarity import fit_group
from mdg.engine.trust.measure import measured
from mdg.engine.trust.state import FamiliarGroup, TrustState
from mdg.engine.trust.temperature import MOST_PIXELS, fit_temperature, reliability_at, some_pixels
from mdg.errors import ConfigError, DataError
from mdg.models.absence import require_cameras
from mdg.models.weight_files import is_safetensors
from mdg.utils.files import require_writable
from mdg.utils.progress import Progress

TRAINING_FRAMES = 256


class Calibrated(NamedTuple):
    """The checkpoint that was rewritten, and what it now says of itself."""

    checkpoint: Path
    trust: TrustState


class _Seen(NamedTuple):
    """What was taken from frames: pixels ``[N, K]`` and their labels, and numbers of the frames by group."""

    logits_NK: torch.Tensor
    label_N: torch.Tensor
    numbers: dict[str, np.ndarray]


def calibrate(
    checkpoint: str | Path | None = None,
    config: str | Path | None = None,
    *,
    split: str = "val",
    opts: Sequence[str] = (),
) -> Calibrated:
    """Fits a temperature and the limits of familiar pairs on a split, and writes them into the checkpoint.

    The weights stay as they are, and so does every mask and every score but the calibration error.

    Args:
        checkpoint, config, opts: As for :func:`mdg.engine.evaluate`.
        split: "val" (or "test"): frames that did not train the weights.

    Raises:
        ConfigError: An unknown split, or the training split, on which a network is surer than it may be.
        UserError: A configuration, data set or checkpoint that cannot be used, or written.
    """
    require_split(split)
    if split == "train":
        raise ConfigError("--split train: expected frames that did not train the weights: val")
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise ConfigError("calibration takes one process; start it without a launcher")
    checkpoint, state, run = open_checkpoint(checkpoint, config, opts)
    if is_safetensors(checkpoint):
        raise ConfigError(
            f"{checkpoint}: these are exported weights; calibrate the checkpoint, and export it again: the export "
            "takes along what was measured"
        )
    require_writable(checkpoint)
    with distributed(run.device, run.threads) as world, torch.inference_mode():
        apply_runtime(run)
        dataset, trained_on = build_dataset(run.data, split), build_dataset(run.data, "train")
        model = load_model(state, run, dataset.classes, checkpoint, world.device).eval()
        require_cameras(model, dataset.cameras, dataset.dataset_name)
        run = for_cameras(run, dataset, model)
        inference = Inference(model, run.eval, make_autocast(run, world.device), world.device)
        held_out = _look(inference, dataset, make_eval_loader(run, dataset, world), len(dataset))
        places = spread(len(trained_on), TRAINING_FRAMES)
        frames = (read_batch(trained_on, place, run.pipeline.eval_size) for place in places)
        trained = _look(inference, trained_on, frames, len(places), pixels=False)
    if not len(held_out.label_N):
        raise DataError(f"{dataset.dataset_name} {split}: no labelled pixels that count, so there is nothing to fit")
    trust = _fit(held_out, trained, run, dataset, len(places))
    content = {key: value for key, value in state.items() if key != "format"}
    save_checkpoint(checkpoint, {**content, "trust": trust.model_dump()})
    return Calibrated(checkpoint, trust)


def _fit(held_out: _Seen, trained: _Seen, run: RunConfig, dataset: RGBTDataset, frames: int) -> TrustState:
    temperature = fit_temperature(held_out.logits_NK, held_out.label_N)
    errors = [reliability_at(held_out.logits_NK, held_out.label_N, t).expected_error() for t in (1.0, temperature)]
    familiar: list[FamiliarGroup] = []
    if frames > 1:
        familiar = [fit_group(name, trained.numbers[name], held_out.numbers[name]) for name in held_out.numbers]
    return TrustState(
        temperature=temperature,
        split=dataset.split_label,
        sha256=dataset.fingerprint(),
        images=len(dataset),
        mode=describe_inference(run.eval).mode,
        before=100 * errors[0],
        after=100 * errors[1],
        trained=frames if familiar else 0,
        familiar=familiar,
    )


def _look(
    inference: Inference, dataset: RGBTDataset, batches: Iterable[Batch], frames: int, pixels: bool = True
) -> _Seen:
    """Predicts frames and keeps what is fitted on; without ``pixels`` only their numbers."""
    logits: list[torch.Tensor] = []
    labels: list[torch.Tensor] = []
    numbers: dict[str, list[np.ndarray]] = {}
    rule = dataset.scoring_rules()[0]
    with Progress(frames, "frames") as progress:
        for batch in batches:
            images = batch.rgb_B3HW, batch.thermal_B1HW
            scores_BKHW, _, found = measured(inference, *images, batch.label_BHW.shape[-2:], batch.names)
            for name, values_BJ in found.items():
                numbers.setdefault(name, []).append(values_BJ)
            if pixels:
                for logits_KHW, label_HW in zip(inference.logits(scores_BKHW), batch.label_BHW, strict=True):
                    ignored_HW = rule.leaves_out(label_HW, dataset.classes, dataset.ignore_index)
                    most = max(1, MOST_PIXELS // max(1, frames))
                    some_NK, label_N = some_pixels(logits_KHW.cpu(), label_HW, ignored_HW, most)
                    logits.append(some_NK)
                    labels.append(label_N)
            progress.advance(len(batch.indices))
    joined = {name: np.concatenate(parts) for name, parts in numbers.items()}
    if not pixels:
        return _Seen(torch.empty(0, 0), torch.empty(0), joined)
    return _Seen(torch.cat(logits), torch.cat(labels), joined)
