"""Single frames of an evaluation: their scores as a table, and pictures of those the model fails on.

Legend: N images, K classes.
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mdg.data import RGBTDataset
from mdg.data.reading.names import name_bytes
from mdg.engine.evaluation.pictures import predict_panels, write_panels
from mdg.engine.evaluation.scores import Evaluation
from mdg.engine.inference import Inference
from mdg.utils import visualization as vis
from mdg.utils.files import write_text

LONGEST = 200  # bytes of a name; file systems take 255, endings included
Panels = list[tuple[str, np.ndarray]]


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
