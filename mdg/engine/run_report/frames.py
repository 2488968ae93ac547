"""The best, middle and worst frames of a scored split as pictures: what the network saw, said, and should have said.

The frames are predicted again with the checkpoint, the data and the rules of ``eval:`` that were scored.

Legend: H W image size, K classes, 3: R, G, B.
"""

from __future__ import annotations

import csv
import json
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from mdg.config.load import ABSENT, flatten
from mdg.data import RGBTDataset
from mdg.data.base import Frame
from mdg.data.build import open_dataset
from mdg.engine.evaluation.result_files import Result
from mdg.engine.predictor import Predictor
from mdg.engine.run_report.runs import Run
from mdg.errors import ConfigError, DataError
from mdg.metrics import ConfusionMatrix, ScoringRule
from mdg.metrics.scoring import score_image
from mdg.utils.files import explained
from mdg.utils.limits import require_within
from mdg.utils.pictures import Picture, class_map, css_colour, photograph, shown_size
from mdg.utils.visualization import colorize, grey

logger = logging.getLogger("mdg.report")
WIDTH = 640  # px of a picture, at most
QUALITY = 84  # of JPEG
WRONG = (214, 30, 40)
SAME = 0.05  # points of mIoU; a processor may round another way than the one that scored
SCORED_BY = ("eval.", "data.", "pipeline.eval_size")  # what an evaluation may have set that changes what is predicted


class ImageScore(NamedTuple):
    """A frame of ``images.csv``: name, condition (or ""), mIoU in per cent (NaN where nothing counts)."""

    name: str
    condition: str
    miou: float


@dataclass(frozen=True)
class ShownFrame:
    """A frame: name, condition, mIoU as scored, share of wrong pixels in per cent, size, pictures and its classes
    (name and colour)."""

    name: str
    condition: str
    miou: float
    wrong: float
    size: tuple[int, int]
    pictures: list[Picture]
    classes: list[tuple[str, str]]


@dataclass
class Gallery:
    """Frames under headings, and what is to be said of them."""

    groups: list[tuple[str, list[ShownFrame]]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def make_gallery(run: Run, result: Result, frames: int, config: str | Path | None, opts: Sequence[str]) -> Gallery:
    """Predicts and draws frames of a scored split.

    Args:
        run: Its checkpoint predicts.
        result: Results of the split; ``images.csv`` lies beside them.
        frames: Best, middle and worst frames each.
        config: A YAML; None takes the configuration inside the checkpoint.
        opts: Overrides of it, after those that the evaluation had.

    Raises:
        UserError: No checkpoint, no data set, or another one than was scored.
    """
    groups = choose(read_image_scores(result.file.with_name("images.csv")), frames)
    checkpoint, scored = run.scored_checkpoint(result)
    gallery = Gallery()
    if not scored:
        gallery.notes.append(f"The checkpoint that was scored is gone; {checkpoint.name} predicted these frames.")
    predictor = Predictor(checkpoint, config, opts=[*as_scored(result), *opts])
    dataset = open_dataset(predictor.config.data, result.protocol.role)
    _require_same(dataset, predictor, result)
    places = {name: place for place, name in enumerate(dataset.names)}
    for heading, chosen in groups:
        logger.info("%s: predicting %s", run.folder, heading)
        shown = []
        for score in chosen:
            frame = dataset[places[score.name]]
            pair = [(frame.rgb_HW3, frame.thermal_HW)]
            prediction_HW = predictor.predict(pair, [frame.name], probabilities=False, divergence=False)[0].mask
            shown.append(show(frame, prediction_HW, dataset, score))
            again = 100 * _miou(frame, prediction_HW, dataset)
            if scored and abs(again - score.miou) > SAME:
                gallery.notes.append(f"{score.name}: mIoU {again:.2f} here, {score.miou:.2f} when it was scored.")
        gallery.groups.append((heading, shown))
    return gallery


def read_image_scores(file: Path) -> list[ImageScore]:
    """Reads ``images.csv``.

    Raises:
        ConfigError: It is not there, or is not what an evaluation writes.
    """
    with explained(file):
        require_within("json_bytes", file.stat().st_size, file, ConfigError)
        with open(file, encoding="utf-8", errors="surrogateescape", newline="") as stream:
            rows = list(csv.reader(stream))
    try:
        header, *lines = rows
        columns = [header.index(name) for name in ("name", "condition", "mIoU")]
        cells = [[line[column] for column in columns] for line in lines if line]
        return [ImageScore(name, condition, float(miou)) for name, condition, miou in cells]
    except (ValueError, IndexError) as error:
        raise ConfigError(f"{file}: not what an evaluation writes ({error}); score the run again") from None


def choose(scores: Sequence[ImageScore], wanted: int) -> list[tuple[str, list[ImageScore]]]:
    """The ``wanted`` best, middle and worst frames, none of them twice: a third of the split each at most, and all of a
    split of one or two. Frames without a score are left out; of equal ones the first of the split is the worse."""
    order = sorted((score for score in scores if math.isfinite(score.miou)), key=lambda score: score.miou)
    if not order or not wanted:
        return []
    if len(order) < 3:
        return [("All frames", order[::-1])]
    n = min(wanted, len(order) // 3)
    middle = (len(order) - n) // 2
    return [("Best", order[::-1][:n]), ("Median", order[middle : middle + n]), ("Worst", order[:n])]


def as_scored(result: Result) -> list[str]:
    """Overrides that predict as the evaluation did: what it set otherwise than the training."""
    changed = result.content.get("evaluated_with")
    changed = changed if isinstance(changed, dict) else {}
    merged = {**flatten(result.config), **changed}
    opts: dict[str, None] = {}
    for path, value in changed.items():
        if not path.startswith(SCORED_BY) or value == ABSENT:
            continue
        parent, _, last = path.rpartition(".")
        if last.isdigit():  # a list is set as a whole, since its length may differ
            path, value = parent, _list_at(merged, parent)
        opts[f"{path}={json.dumps(value)}"] = None
    return list(opts)


def _list_at(flat: dict[str, Any], path: str) -> list[Any]:
    values: list[Any] = []
    for place in count():
        value = flat.get(f"{path}.{place}", ABSENT)
        if value == ABSENT:
            return values
        values.append(value)
    raise AssertionError("unreachable")


def _require_same(dataset: RGBTDataset, predictor: Predictor, result: Result) -> None:
    """Raises DataError unless the frames and classes are those that were scored."""
    names = list(result.protocol.classes)
    for what, classes in (("the data set", dataset.classes), ("the checkpoint", predictor.classes)):
        if list(classes) != names:
            raise DataError(f"{what} has the classes {', '.join(classes)}; scored were {', '.join(names)}")
    if dataset.fingerprint() != result.protocol.files_sha256:
        raise DataError(
            f"{dataset.dataset_name} {dataset.split_label} has other frames here ({len(dataset)}) than were scored "
            f"({result.protocol.images}); name the data set that was scored with --opts data.root=..."
        )


def show(frame: Frame, prediction_HW: np.ndarray, dataset: RGBTDataset, score: ImageScore) -> ShownFrame:
    """The pictures of a frame, at most :data:`WIDTH` wide; ``prediction_HW`` holds class ids, as many as its label."""
    counted_HW = _counted(frame.label_HW, dataset)
    wrong_HW = counted_HW & (prediction_HW != frame.label_HW)
    h, w = shown_size(frame.label_HW, WIDTH)
    rgb, thermal = (
        cv2.resize(image, (w, h), interpolation=cv2.INTER_AREA) for image in (frame.rgb_HW3, frame.thermal_HW)
    )
    small = [
        cv2.resize(ids.astype(np.uint8), (w, h), interpolation=cv2.INTER_NEAREST)
        for ids in (prediction_HW, frame.label_HW, counted_HW, wrong_HW)
    ]
    prediction, label, counted, wrong = small
    present = np.union1d(frame.label_HW, prediction_HW)
    share = 100 * wrong_HW.sum() / max(int(counted_HW.sum()), 1)
    return ShownFrame(
        frame.name,
        dataset.condition(dataset.names.index(frame.name)) or "",
        score.miou,
        float(share),
        (w, h),
        [
            photograph("RGB", rgb, QUALITY),
            *([photograph("thermal", thermal, QUALITY)] if "thermal" in dataset.cameras else []),
            class_map("prediction", colorize(prediction, dataset.palette_K3)),
            class_map("label", colorize(label, dataset.palette_K3)),
            photograph("errors", error_map(rgb, counted > 0, wrong > 0), QUALITY),
        ],
        [(dataset.classes[k], css_colour(dataset.palette_K3[k])) for k in present if k < len(dataset.classes)],
    )


def error_map(rgb_HW3: np.ndarray, counted_HW: np.ndarray, wrong_HW: np.ndarray) -> np.ndarray:
    """Wrong pixels red over pale grey, so that the red is seen without colour too; what counts nowhere is darker."""
    pale_HW = 100 + 0.6 * cv2.cvtColor(rgb_HW3, cv2.COLOR_RGB2GRAY)
    picture_HW3 = grey(np.where(counted_HW, pale_HW, 0.5 * pale_HW).astype(np.uint8))
    picture_HW3[wrong_HW] = WRONG
    return picture_HW3


def _counted(label_HW: np.ndarray, dataset: RGBTDataset) -> np.ndarray:
    ignored = [dataset.classes.index(name) for name in _rule(dataset).ignored]
    return ~np.isin(label_HW, [dataset.ignore_index, *ignored])


def _rule(dataset: RGBTDataset) -> ScoringRule:
    return dataset.scoring_rules()[0]


def _miou(frame: Frame, prediction_HW: np.ndarray, dataset: RGBTDataset) -> float:
    """As a fraction, as ``images.csv`` has it."""
    K, valid_HW = len(dataset.classes), frame.label_HW != dataset.ignore_index
    pairs = K * frame.label_HW[valid_HW].astype(np.int64) + prediction_HW[valid_HW]
    counts_KK = ConfusionMatrix(K, np.bincount(pairs, minlength=K * K).reshape(K, K)).counts
    return float(score_image(counts_KK, _rule(dataset), dataset.classes)[-2])
