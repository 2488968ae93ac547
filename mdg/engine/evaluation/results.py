"""What an evaluation leaves on disk: a folder that explains itself.

::

    results/<split>/
        results.json     protocol, scores under every rule, confusion matrix, configuration of the run
        images.csv       scores of every image
        confusion.png    the matrix, rows in per cent
        pictures/        frames spread over the split
        worst/           the frames with the lowest mIoU
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import mdg
from mdg.config import RunConfig
from mdg.data import RGBTDataset
from mdg.engine.compare.result_files import FILE, FORMAT
from mdg.engine.evaluation.pictures import predict_panels, spread, write_panels
from mdg.engine.evaluation.provenance import file_sha256, trained_config
from mdg.engine.evaluation.scores import Evaluation
from mdg.engine.frames import file_names, write_image_scores, write_worst
from mdg.engine.inference import Inference
from mdg.engine.report import headline
from mdg.metrics import Protocol
from mdg.utils.charts import confusion_picture
from mdg.utils.environment import describe_environment
from mdg.utils.files import write_json
from mdg.utils.trees import differences, flatten


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
