"""Calibration of a checkpoint: what ``tools/calibrate.py`` calls.

Legend: N frames or pixels, K classes, J numbers of a frame.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from mdg.data import Batch, RGBTDataset, build_dataset, read_batch
from mdg.engine.checkpoint import load_model, open_checkpoint, save_checkpoint
from mdg.engine.distributed import distributed
from mdg.engine.evaluation.evaluator import for_cameras, make_eval_loader, require_split
from mdg.engine.evaluation.pictures import spread
from mdg.engine.inference import Inference, describe_inference
from mdg.engine.runtime import apply_runtime, make_autocast
from mdg.engine.trust.familiarity import fit_group
from mdg.engine.trust.measure import measured
from mdg.engine.trust.state import TrustState
from mdg.engine.trust.temperature import MOST_PIXELS, fit_temperature, reliability_at, some_pixels
from mdg.errors import ConfigError, DataError
from mdg.models.absence import require_cameras
from mdg.models.weight_files import is_safetensors
from mdg.utils.files import require_writable
from mdg.utils.progress import Progress

TRAINING_FRAMES = 256
Pixels = tuple[torch.Tensor, torch.Tensor]  # logits [N, K] and labels [N]


class Calibrated(NamedTuple):
    """The checkpoint that was rewritten, and what it now says of itself."""

    checkpoint: Path
    trust: TrustState


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
        kept: list[Pixels] = []
        loader = make_eval_loader(run, dataset, world)
        held_out = _look(
            inference,
            loader,
            len(dataset),
            lambda batch, logits_BKHW: kept.extend(_pixels(batch, logits_BKHW, dataset)),
        )
        places = spread(len(trained_on), TRAINING_FRAMES)
        frames = (read_batch(trained_on, place, run.pipeline.eval_size) for place in places)
        trained = _look(inference, frames, len(places))
    logits_NK, label_N = map(torch.cat, zip(*kept, strict=True))
    if not len(label_N):
        raise DataError(f"{dataset.dataset_name} {split}: no labelled pixels that count, so there is nothing to fit")
    temperature = fit_temperature(logits_NK, label_N)
    before, after = (100 * reliability_at(logits_NK, label_N, t).expected_error() for t in (1.0, temperature))
    familiar = [fit_group(name, trained[name], held_out[name]) for name in held_out] if len(places) > 1 else []
    trust = TrustState(
        temperature=temperature,
        split=dataset.split_label,
        sha256=dataset.fingerprint(),
        images=len(dataset),
        mode=describe_inference(run.eval).mode,
        before=before,
        after=after,
        trained=len(places) if familiar else 0,
        familiar=familiar,
    )
    content = {key: value for key, value in state.items() if key != "format"}
    save_checkpoint(checkpoint, {**content, "trust": trust.model_dump()})
    return Calibrated(checkpoint, trust)


def _look(
    inference: Inference,
    batches: Iterable[Batch],
    frames: int,
    also: Callable[[Batch, torch.Tensor], None] | None = None,
) -> dict[str, np.ndarray]:
    """Numbers of the frames by group; ``also`` is shown each batch with its logits ``[B, K, H, W]``."""
    numbers: dict[str, list[np.ndarray]] = {}
    with Progress(frames, "frames") as progress:
        for batch in batches:
            images = batch.rgb_B3HW, batch.thermal_B1HW
            scores_BKHW, _, found = measured(inference, *images, batch.label_BHW.shape[-2:], batch.names)
            for name, values_BJ in found.items():
                numbers.setdefault(name, []).append(values_BJ)
            if also is not None:
                also(batch, inference.logits(scores_BKHW))
            progress.advance(len(batch.indices))
    return {name: np.concatenate(parts) for name, parts in numbers.items()}


def _pixels(batch: Batch, logits_BKHW: torch.Tensor, dataset: RGBTDataset) -> Iterator[Pixels]:
    """Some labelled pixels of every frame of a batch; of all frames together no more than the fit needs."""
    rule, most = dataset.scoring_rules()[0], max(1, MOST_PIXELS // len(dataset))
    for logits_KHW, label_HW in zip(logits_BKHW, batch.label_BHW, strict=True):
        ignored_HW = rule.leaves_out(label_HW, dataset.classes, dataset.ignore_index)
        yield some_pixels(logits_KHW.cpu(), label_HW, ignored_HW, most)
