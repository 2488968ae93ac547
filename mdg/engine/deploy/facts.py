"""What a file of a network says of itself, beside the graph: plain text under short keys, so that programs in any
language can read it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mdg.config import RunConfig
from mdg.engine.deploy.network import Shape
from mdg.engine.evaluation.known_scores import KnownScore, known_scores
from mdg.models.segmentor import STRIDE
from mdg.options.files import PairOptions
from mdg.utils.files import file_sha256, plain


def describe(
    state: Mapping[str, Any], checkpoint: Path, config: RunConfig, shape: Shape, outputs: Sequence[str]
) -> dict[str, str]:
    """Facts by key; whatever is no single word is JSON.

    ``classes``: names; ``palette``: their colours ``[[R, G, B], ...]``, 0..255; ``size``: ``[height, width]`` or null
    where it is open; ``multiple``: of which height and width must be then; ``batch``: number or null; ``outputs``;
    ``input``: what images are, in words; ``thermal_scaling``: how raw thermal values became 0..255, null for data that
    has no files; ``scores``: per split ``mIoU`` in per cent, the rule and the SHA-256 of the whole protocol;
    ``checkpoint_sha256``; ``mdg_version``.
    """
    scaling = config.data.thermal_scaling if isinstance(config.data, PairOptions) else None
    told = {
        "classes": state["classes"],
        "palette": state["palette"],
        "size": None if shape.dynamic else shape.size,
        "multiple": STRIDE if shape.dynamic else 1,
        "batch": None if shape.dynamic else shape.batch,
        "outputs": outputs,
        "thermal_scaling": None if scaling is None else scaling.model_dump(mode="json"),
        "scores": [_told(score) for score in known_scores(state, checkpoint)],
    }
    return {
        **{key: json.dumps(plain(value), ensure_ascii=True) for key, value in told.items()},
        "input": "rgb [B, 3, H, W] in the order R, G, B and thermal [B, 1, H, W], brighter is warmer; float32, 0..255; "
        "normalisation is inside",
        "checkpoint_sha256": file_sha256(checkpoint),
        "mdg_version": str(state["mdg_version"]),
    }


def _told(score: KnownScore) -> dict[str, Any]:
    protocol = score.protocol.as_dict()
    return {
        "split": f"{score.protocol.dataset} {score.protocol.split}",
        "mIoU": score.miou,
        "rule": score.protocol.rule,
        "protocol_sha256": hashlib.sha256(json.dumps(protocol, sort_keys=True).encode()).hexdigest(),
    }
