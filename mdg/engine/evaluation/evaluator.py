"""Scoring a model on a split: every image once over all processes, one integer confusion matrix, the protocol.

Legend: B batch, K classes, H W size of the label.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn

from mdg.config import RunConfig
from mdg.data import EvalLoader, RGBTDataset
from mdg.data.base import ROLES
from mdg.data.batches import Batch
from mdg.engine.distributed import World
from mdg.engine.evaluation.provenance import Provenance
from mdg.engine.evaluation.scores import Evaluation, Tally
from mdg.engine.inference import Inference, describe_inference
from mdg.engine.runtime import make_autocast
from mdg.errors import ConfigError
from mdg.metrics import Protocol
from mdg.metrics.reliability import Reliability
from mdg.metrics.visibility import visibility
from mdg.models.absence import CAMERAS, why_not_without
from mdg.utils.cores import loader_processes


def require_split(split: str) -> None:
    """Raises ConfigError unless it is the role of a split."""
    if split not in ROLES:
        raise ConfigError(f"--split {split}: expected one of {', '.join(ROLES)}")


def make_eval_loader(
    config: RunConfig,
    dataset: RGBTDataset,
    world: World,
    workers: int | None = None,
    stop: Callable[[], bool] | None = None,
) -> EvalLoader:
    """The loader of a split as configured, for this process; ``stop`` is asked while no batch comes."""
    return EvalLoader(
        dataset,
        batch_size=config.eval.batch_size,
        eval_size=config.pipeline.eval_size,
        workers=loader_processes(config.pipeline.workers if workers is None else workers),
        prefetch=config.pipeline.prefetch,
        rank=world.rank,
        world_size=world.size,
        timeout=config.pipeline.timeout,
        stop=stop,
    )


def for_cameras(config: RunConfig, dataset: RGBTDataset, model: nn.Module) -> RunConfig:
    """The configuration under which a split is scored: of a camera that it does not have, a network that can do without
    is shown nothing; any other, such as an exported one that takes two images, a black one.

    Raises:
        ConfigError: ``eval:`` asks for that camera.
    """
    if len(dataset.cameras) > 1:
        return config
    (camera,) = dataset.cameras
    if config.eval.cameras not in ("both", camera) or config.eval.objects:
        asked = "objects: true" if config.eval.objects else f"cameras: {config.eval.cameras}"
        raise ConfigError(
            f"eval.{asked}: {dataset.dataset_name} has one camera ({camera}), so there is nothing to compare; leave it "
            "out"
        )
    if any(why_not_without(model, absent) for absent in CAMERAS if absent not in dataset.cameras):
        return config
    return config.model_copy(update={"eval": config.eval.model_copy(update={"cameras": camera})})


def make_protocol(config: RunConfig, dataset: RGBTDataset, provenance: Provenance) -> Protocol:
    """The protocol of a score computed by :func:`evaluate_model` under this configuration, by the primary rule.

    Args:
        config: How the split is scored.
        dataset: The split.
        provenance: How the weights came to be.
    """
    rule, inference = dataset.scoring_rules()[0], describe_inference(config.eval)
    size = config.pipeline.eval_size
    return Protocol(
        dataset=dataset.dataset_name,
        role=dataset.split,
        split=dataset.split_label,
        images=len(dataset),
        files_sha256=dataset.fingerprint(),
        classes=tuple(dataset.classes),
        rule=rule.name,
        averaged_classes=rule.averaged,
        ignored_classes=rule.ignored,
        absent_class=rule.absent_text,
        preparation=dataset.preparation(),
        input_size=f"{size[0]}x{size[1]}, logits resized to the label" if size else "native",
        mode=inference.mode,
        test_time_augmentation=inference.augmentation,
        selection=provenance.selection,
        epoch=provenance.epoch,
        weights=provenance.weights,
        precision=config.train.precision,
        trained_on=provenance.trained_on,
        changes=provenance.changes,
    )


@torch.inference_mode()
def evaluate_model(
    model: nn.Module,
    loader: EvalLoader,
    dataset: RGBTDataset,
    config: RunConfig,
    world: World,
    progress: Any = None,
    stop: Callable[[], bool] = lambda: False,
    shown: Callable[[int], torch.Tensor] | None = None,
    temperature: float | None = None,
) -> Evaluation | None:
    """Scores a model; leaves it in evaluation mode.

    Args:
        model: Network, on ``world.device``.
        loader: This process's share of the split.
        dataset: The split.
        config: Precision and the rules of ``eval:`` are read from it.
        world: The processes that share the work; all of them return the same evaluation.
        progress: Called with the number of images done by this process after each batch.
        stop: Asked before each group of images; where it says so in one process, all of them break off.
        shown: Which modality shows the objects of an image, by its place, where ``eval.objects`` asks; None looks at
            the images that the network gets.
        temperature: Measure reliability too, with probabilities at this temperature; None does not.

    Returns:
        The evaluation; None where it was broken off.

    Raises:
        NonFiniteError: The network gave logits that are not finite; names their frames.
        ConfigError: ``eval:`` asks for a camera that the split does not have.
    """
    model.eval()
    config = for_cameras(config, dataset, model)
    reliability = None if temperature is None else Reliability(temperature=temperature)
    tally, started = Tally(dataset, config.eval.objects, reliability), time.perf_counter()
    autocast = make_autocast(config, world.device)
    inference = Inference(model, config.eval, autocast, world.device, 1.0 if temperature is None else temperature)
    for batch in world.until_stopped(loader, stop):
        scores_BKHW = inference.scores(batch.rgb_B3HW, batch.thermal_B1HW, batch.label_BHW.shape[-2:], batch.names)
        prediction_BHW = scores_BKHW.argmax(dim=1)
        confidence_BHW = None if temperature is None else inference.confidence(scores_BKHW)
        label_BHW = batch.label_BHW.to(world.device)
        for place, index in enumerate(batch.indices):
            shown_HW = None
            if config.eval.objects:
                shown_HW = (shown(index) if shown else shown_in(batch, place, dataset)).to(world.device)
            confidence_HW = None if confidence_BHW is None else confidence_BHW[place]
            tally.add(index, prediction_BHW[place], label_BHW[place], shown_HW, confidence_HW)
        if progress:
            progress(tally.images)
    if world.any(stop()):
        return None
    return tally.gather(world, time.perf_counter() - started)


def shown_in(batch: Batch, place: int, dataset: RGBTDataset) -> torch.Tensor:
    """Which modality shows the objects of an image of a batch, ``[H, W]`` uint8 at the size of its label."""
    label_HW = batch.label_BHW[place].numpy()
    images = (batch.rgb_B3HW[place].permute(1, 2, 0).numpy(), batch.thermal_B1HW[place, 0].numpy())
    rgb_HW3, thermal_HW = (cv2.resize(np.ascontiguousarray(image), label_HW.shape[::-1]) for image in images)
    return torch.from_numpy(visibility(rgb_HW3, thermal_HW, label_HW, dataset.background, dataset.ignore_index))
