"""What an evaluation leaves on disk: a folder that explains itself.

::

    results/<split>/
        results.json     protocol, scores under every rule, confusion matrix, configuration of the run
        images.csv       scores of every image
        counts.csv       pixels of every image and class, from which intervals of scores follow
        confusion.png    the matrix, rows in per cent
        pictures/        frames spread over the split
        worst/           the frames with the lowest mIoU

Legend: N images, K classes.
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import mdg
from mdg.config import RunConfig
from mdg.config.load import differences, flatten
from mdg.data import RGBTDataset
from mdg.data.reading.names import name_bytes
from mdg.engine.evaluation.image_counts import COUNTS, PIXELS
from mdg.engine.evaluation.pictures import predict_panels, spread, write_panels
from mdg.engine.evaluation.provenance import trained_config
from mdg.engine.evaluation.result_files import FILE, FORMAT
from mdg.engine.evaluation.scores import Evaluation, headline
from mdg.engine.inference import Inference
from mdg.metrics import Protocol
from mdg.utils import visualization as vis
from mdg.utils.charts import confusion_picture
from mdg.utils.environment import describe_environment
from mdg.utils.files import file_sha256, write_json, write_text

LONGEST = 200  # bytes of a name; file systems take 255, endings included
Panels = list[tuple[str, np.ndarray]]


def describe_result(
    evaluation: Evaluation,
    protocol: Protocol,
    data: Mapping[str, str],
    state: Mapping[str, Any],
    checkpoint: Path,
    config: RunConfig,
    processes: int,
) -> dict[str, Any]:
    """The content of ``results.json``.

    ``config`` and ``seed`` in it are those the checkpoint was trained with; ``evaluated_with`` holds what the
    configuration of the evaluation sets otherwise, by dotted path. ``data`` is the ``content_state()`` of the split.
    """
    trained = trained_config(state, checkpoint)
    changed = differences(flatten(trained), flatten(config.model_dump(mode="json")))
    return {
        "format": FORMAT,
        **evaluation.as_dict(protocol),
        "checkpoint": str(checkpoint),
        "checkpoint_sha256": file_sha256(checkpoint),
        "data": dict(data),
        "seed": trained["seed"],
        "training_processes": state.get("world_size"),
        "config": trained,
        "evaluated_with": {path: value for path, (_, value) in changed.items()},
        "environment": describe_environment(),
        "processes": processes,
        "mdg_version": mdg.__version__,
    }


def write_folder(
    folder: Path,
    content: Mapping[str, Any],
    evaluation: Evaluation,
    protocol: Protocol,
    dataset: RGBTDataset,
    inference: Inference,
    config: RunConfig,
) -> Iterator[str]:
    """Writes the folder, the scores first, and yields where things are as soon as they are there."""
    write_json(folder / FILE, dict(content))
    yield f"results: {folder / FILE}"
    write_image_scores(folder / "images.csv", evaluation, dataset)
    write_image_pixels(folder / COUNTS, evaluation, dataset)
    title = headline(evaluation, protocol)
    confusion_picture(folder / "confusion.png", evaluation.confusion.counts, evaluation.classes, title)
    yield f"scores of every image: {folder / 'images.csv'}; confusion matrix: {folder / 'confusion.png'}"
    wanted, size = config.eval.pictures, config.pipeline.eval_size
    panels = predict_panels(inference, dataset, spread(len(dataset), wanted), size)
    write_panels(folder / "pictures", file_names(panels), dataset)
    worst = write_worst(folder / "worst", inference, evaluation, dataset, wanted, size)
    for name, written in (("pictures", panels), ("worst frames", worst)):
        if written:
            yield f"{name}: {folder / name.split()[0] / 'overview.png'}"


def write_image_scores(file: Path, evaluation: Evaluation, dataset: RGBTDataset) -> None:
    """One row per image in the order of the data set: name, condition, mIoU, pixel accuracy, the worst of its averaged
    classes, and the IoU of every class. Per cent; NaN for what does not occur in the image.
    """
    scores, averaged = evaluation.per_image, evaluation.rules[0].averaged
    header = ["name", "condition", "mIoU", "pixel accuracy", "worst class", "worst IoU"]
    stream = io.StringIO(newline="")
    writer = csv.writer(stream)
    writer.writerow([*header, *evaluation.classes])
    for place, name in enumerate(dataset.names):
        iou = dict(zip(evaluation.classes, map(float, scores.iou_NK[place]), strict=True))
        worst, value = _worst_class({name: iou[name] for name in averaged})
        means = _cell(scores.miou_N[place]), _cell(scores.accuracy_N[place])
        writer.writerow([name, dataset.condition(place) or "", *means, worst, _cell(value), *map(_cell, iou.values())])
    write_text(file, stream.getvalue())


def write_image_pixels(file: Path, evaluation: Evaluation, dataset: RGBTDataset) -> None:
    """One row per image in the order of the data set: for every class the pixels that are right, labelled and
    predicted under the primary rule. Their sums give the IoU of the split."""
    stream = io.StringIO(newline="")
    writer = csv.writer(stream)
    writer.writerow(["name", *[f"{name} {part}" for name in evaluation.classes for part in PIXELS]])
    for name, pixels_K3 in zip(dataset.names, evaluation.pixels_NK3, strict=True):
        writer.writerow([name, *pixels_K3.flatten().tolist()])
    write_text(file, stream.getvalue())


def _worst_class(iou: dict[str, float]) -> tuple[str, float]:
    present = {name: value for name, value in iou.items() if not math.isnan(value)}
    return min(present.items(), key=lambda item: item[1]) if present else ("", math.nan)


def _cell(fraction: float) -> str:
    return "NaN" if math.isnan(fraction) else f"{100 * fraction:.4f}"


def write_worst(
    folder: Path,
    inference: Inference,
    evaluation: Evaluation,
    dataset: RGBTDataset,
    count: int,
    eval_size: tuple[int, int] | None,
) -> Panels:
    """Pictures of the ``count`` frames with the lowest mIoU, ``01_NAME.png`` the worst, and ``overview.png``."""
    places = evaluation.per_image.worst(count)
    panels = []
    for rank, (name, picture) in enumerate(predict_panels(inference, dataset, places, eval_size), start=1):
        value = 100 * evaluation.per_image.miou_N[places[rank - 1]]
        caption = f"{rank}. {name}: mIoU {value:.2f} over the classes in its label or prediction"
        panels.append((f"{rank:02d}_{name}", vis.panel([(caption, picture)], height=picture.shape[0])))
    write_panels(folder, file_names(panels), dataset)
    return panels


def file_names(panels: Sequence[tuple[str, np.ndarray]]) -> Panels:
    """The panels under names that can be files, each its own: frames of data sets with split folders are called
    ``test/00001``, others are longer than a file name may be, or are called as the overview is."""
    taken = {"overview"}
    named = []
    for name, picture in panels:
        plain = re.sub(r"[/\\\0]", "_", name)
        if len(name_bytes(plain)) > LONGEST or plain.casefold() in taken:
            short = name_bytes(plain)[: LONGEST - 17].decode("utf-8", "ignore")
            plain = f"{short}-{hashlib.sha256(name_bytes(name)).hexdigest()[:16]}"
        taken.add(plain.casefold())
        named.append((plain, picture))
    return named
