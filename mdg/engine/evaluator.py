"""Scoring a model on a split: every image once over all processes, one integer confusion matrix, the protocol.

Legend: B batch, K classes, H W size of the label.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from mdg.config import RunConfig
from mdg.data import EvalLoader, RGBTDataset
from mdg.engine.distributed import World
from mdg.metrics import ConfusionMatrix, Protocol
from mdg.models.layers import resize_bilinear

ABSENT_RULE = "absent classes (no labelled pixel) left out"


@dataclass
class Evaluation:
    """Scores of one split. ``groups`` holds a matrix per condition (day, night) where the data set tells them apart."""

    confusion: ConfusionMatrix
    groups: dict[str, ConfusionMatrix] = field(default_factory=dict)
    images: int = 0
    seconds: float = 0.0

    def means(self) -> dict[str, float]:
        """mIoU, mAcc, mF1 and pixel accuracy, as fractions."""
        return self.confusion.means()

    def as_dict(self, protocol: Protocol) -> dict[str, Any]:
        """Everything, as plain values for ``results.json``; scores in per cent."""
        names = protocol.classes
        return {
            "protocol": protocol.as_dict(),
            "scores": percent(self.means()),
            "per_class": per_class(self.confusion, names),
            "groups": {
                name: {
                    "scores": percent(matrix.means()),
                    "per_class": per_class(matrix, names),
                    "confusion_matrix": matrix.counts.tolist(),
                }
                for name, matrix in self.groups.items()
            },
            "images": self.images,
            "confusion_matrix": self.confusion.counts.tolist(),
        }


def percent(scores: dict[str, float]) -> dict[str, float]:
    """Fractions as per cent, unrounded."""
    return {name: 100 * value for name, value in scores.items()}


def per_class(confusion: ConfusionMatrix, names: tuple[str, ...]) -> list[dict[str, Any]]:
    """IoU, accuracy, precision and F1 in per cent and the labelled pixels, one record per class."""
    columns = {
        "iou": confusion.iou(),
        "accuracy": confusion.accuracy(),
        "precision": confusion.precision(),
        "f1": confusion.f1(),
    }
    labelled = confusion.counts.sum(axis=1)
    return [
        {"class": name, **{key: 100 * float(value[k]) for key, value in columns.items()}, "pixels": int(labelled[k])}
        for k, name in enumerate(names)
    ]


def make_eval_loader(config: RunConfig, dataset: RGBTDataset, world: World, workers: int | None = None) -> EvalLoader:
    """The loader of a split as configured, for this process."""
    return EvalLoader(
        dataset,
        batch_size=config.eval.batch_size,
        eval_size=config.pipeline.eval_size,
        workers=config.pipeline.workers if workers is None else workers,
        prefetch=config.pipeline.prefetch,
        rank=world.rank,
        world_size=world.size,
    )


def make_autocast(config: RunConfig, device: torch.device) -> torch.autocast:
    """Autocast in the configured precision; off for fp32."""
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[config.train.precision]
    return torch.autocast(device.type, dtype=dtype if dtype != torch.float32 else None, enabled=dtype != torch.float32)


def make_protocol(config: RunConfig, dataset: RGBTDataset, selection: str) -> Protocol:
    """The protocol of a score computed by :func:`evaluate_model` under this configuration."""
    size = config.pipeline.eval_size
    ema = config.train.ema_decay
    return Protocol(
        dataset=dataset.dataset_name,
        split=dataset.split_name,
        images=len(dataset),
        files_sha256=dataset.fingerprint(),
        classes=tuple(dataset.classes),
        averaged_classes=tuple(dataset.classes),
        absent_class=ABSENT_RULE,
        input_size=f"{size[0]}x{size[1]}, logits resized to the label" if size else "native",
        test_time_augmentation="none",
        selection=selection,
        weights=f"ema {ema}" if ema else "raw",
    )


@torch.inference_mode()
def evaluate_model(
    model: nn.Module, loader: EvalLoader, dataset: RGBTDataset, config: RunConfig, world: World, progress: Any = None
) -> Evaluation:
    """Scores a model; leaves it in evaluation mode.

    Args:
        model: Network, on ``world.device``.
        loader: This process's share of the split.
        dataset: The split.
        config: Precision is read from it.
        world: The processes that share the work; all of them return the same evaluation.
        progress: Called with the number of images done by this process after each batch.
    """
    model.eval()
    conditions = sorted({c for c in map(dataset.condition, range(len(dataset))) if c})
    matrices = {name: ConfusionMatrix(len(dataset.classes)) for name in ["", *conditions]}
    started, images = time.perf_counter(), 0
    for batch in loader:
        with make_autocast(config, world.device):
            output = model(
                batch.rgb_B3HW.to(world.device, non_blocking=True),
                batch.thermal_B1HW.to(world.device, non_blocking=True),
            )
        logits_BKHW = resize_bilinear(output.logits.float(), batch.label_BHW.shape[-2:])
        prediction_BHW, label_BHW = logits_BKHW.argmax(dim=1), batch.label_BHW.to(world.device)
        for place, index in enumerate(batch.indices):
            counts = matrices[""].update(prediction_BHW[place], label_BHW[place], dataset.ignore_index)
            if condition := dataset.condition(index):
                matrices[condition].counts += counts
        images += len(batch.indices)
        if progress:
            progress(images)
    return _gather(matrices, images, time.perf_counter() - started, world)


def _gather(matrices: dict[str, ConfusionMatrix], images: int, seconds: float, world: World) -> Evaluation:
    stacked = np.stack([matrix.counts for matrix in matrices.values()])
    total = world.sum(torch.from_numpy(stacked).to(world.device)).cpu().numpy()
    summed = {
        name: ConfusionMatrix(matrix.num_classes, counts)
        for (name, matrix), counts in zip(matrices.items(), total, strict=True)
    }
    count = int(world.sum(torch.tensor(images, device=world.device)).item())
    return Evaluation(summed.pop(""), summed, count, seconds)
