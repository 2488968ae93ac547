"""What goes with weights that are passed on, in Markdown: use, input, scores with their protocol, classes, training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from mdg.config.yaml_tree import parse_yaml
from mdg.engine.evaluation.result_files import Result
from mdg.utils import markdown
from mdg.utils.pictures import css_colour

HEAD = """\
---
library_name: mdg
license: other
pipeline_tag: image-segmentation
tags: [rgb-thermal, semantic-segmentation, mdg]
---
"""
LICENCE = (
    "The licence of these weights is for whoever trained them to say (`license` above). Encoders that started from the "
    "MiT weights of SegFormer's authors fall under NVIDIA's licence for those."
)


def model_card(
    name: str,
    described: Mapping[str, Any],
    results: Sequence[Result],
    weights: Mapping[str, Tensor],
    size: int,
    sha256: str,
) -> str:
    """The card.

    Args:
        name: Of the file of weights, without its ending.
        described: What the file says, see :func:`mdg.engine.export.export_weights`.
        results: Scores of these weights before rounding.
        weights: The tensors, for their number.
        size, sha256: Bytes and digest of the file.
    """
    config = parse_yaml(described["config"], "the configuration").values
    numbers = sum(value.numel() for value in weights.values()) / 1e6
    parts = [
        HEAD + f"# {name}\n",
        f"{_network(config)}, {len(described['classes'])} classes, {numbers:.2f} M numbers. "
        f"Trained with mdg {described['mdg_version']} on {_frames(described.get('trained_on'))}.\n",
        _use(name, config),
        _input(config),
        _scores(results, described),
        _classes(described),
        _training(config, described),
        f"## File\n\n`{name}.safetensors`: {size:,} bytes, SHA-256 `{sha256}`.\n\n{LICENCE}\n",
    ]
    return "\n".join(parts)


def _network(config: Mapping[str, Any]) -> str:
    model = config.get("model") or {}
    encoders = [_part(model.get(key)) for key in ("rgb_backbone", "thermal_backbone", "backbone") if model.get(key)]
    return f"{model.get('type', 'MDG')} ({' + '.join(encoders)})" if encoders else str(model.get("type", "MDG"))


def _part(value: Any) -> str:
    if isinstance(value, Mapping):
        return str(value.get("variant") or value.get("name") or value.get("type"))
    return str(value)


def _frames(frames: Mapping[str, Any] | None) -> str:
    if frames is None:
        return "frames that are not known"
    return f"{frames['dataset']} {frames['split']} ({len(frames['identities'])} frames, {frames['sha256'][:8]})"


def _sees_rgb_alone(config: Mapping[str, Any]) -> bool:
    model = config.get("model") or {}
    return model.get("type") == "SingleStream" and model.get("input", "rgb") == "rgb"


def _use(name: str, config: Mapping[str, Any]) -> str:
    alone = _sees_rgb_alone(config)
    heat, view = ("none", "") if alone else ("heat.png", "Both images must show the same view. ")
    return (
        "## Use\n\n```bash\n"
        f"python tools/infer_mm.py --checkpoint {name}.safetensors --rgb photo.png --thermal {heat} --out masks\n"
        f"python tools/val_mm.py --checkpoint {name}.safetensors --split test --out results\n"
        f"bash tools/train_ddp.sh CONFIG --opts train.init_from={name}.safetensors\n"
        f"```\n\n{view}`data.root` in `config.yaml` is where the data set lies; "
        "`--opts data.root=...` names another place.\n"
    )


def _input(config: Mapping[str, Any]) -> str:
    normalize = (config.get("model") or {}).get("normalize")
    images = (
        "RGB of 3 channels, 8 bits" if _sees_rgb_alone(config) else "RGB of 3 channels and thermal of 1, 8 bits each"
    )
    lines = ["## Input", "", f"{images}, any size."]
    if isinstance(normalize, Mapping):
        shown = ", ".join(f"{key} {value}" for key, value in normalize.items())
        lines.append(f"Normalised inside the network, as fractions of full scale: {shown}.")
    elif normalize:
        lines.append(f"Normalised inside the network: `{normalize}`, the statistics of its encoder.")
    scaling = (config.get("data") or {}).get("thermal_scaling")
    if isinstance(scaling, Mapping):
        lines.append("Thermal scaling: " + ", ".join(f"{key} {value}" for key, value in scaling.items()) + ".")
    return "\n".join(lines) + "\n"


def _scores(results: Sequence[Result], described: Mapping[str, Any]) -> str:
    lines = ["## Scores", ""]
    if not results:
        return "\n".join([*lines, "None were measured with this tool before the weights were written.", ""])
    if described.get("rounded"):
        lines += [
            f"Measured before the weights were {described['rounded']}; `val_mm.py` measures them as they are.",
            "",
        ]
    for result in results:
        protocol, scores = result.protocol, result.content["scores"]
        lines += [f"### {protocol.dataset} {protocol.split}" + ("" if protocol.honest else " (no honest test)"), ""]
        lines += [
            markdown.table(["metric", "per cent"], [[metric, _number(value)] for metric, value in scores.items()])
        ]
        rows = [[row["class"], _number(row["iou"]), f"{row['pixels']:,}"] for row in result.content["per_class"]]
        lines += ["", markdown.table(["class", "IoU", "pixels"], rows)]
        lines += ["", f"Protocol: {protocol.summary()}.", ""]
    return "\n".join(lines)


def _classes(described: Mapping[str, Any]) -> str:
    rows = [
        [str(index), name, css_colour(colour)]
        for index, (name, colour) in enumerate(zip(described["classes"], described["palette"], strict=True))
    ]
    return "\n".join(["## Classes", "", markdown.table(["id", "name", "colour"], rows, left=3), ""])


def _training(config: Mapping[str, Any], described: Mapping[str, Any]) -> str:
    train, optimizer = config.get("train") or {}, config.get("optimizer") or {}
    progress = described["progress"]
    rows = [
        ["epochs, steps", f"{progress['epoch']}, {progress.get('step', 0)}"],
        ["batch size", str(train.get("batch_size"))],
        ["processes", str(described.get("world_size") or "not known")],
        ["learning rate", str(optimizer.get("lr"))],
        ["precision", str(train.get("precision"))],
        ["seed", str(config.get("seed"))],
        ["moving average of weights", str(train.get("ema_decay") or "none")],
        ["chosen on", _frames(described["selected_on"]) if described.get("selected_on") else "nothing"],
    ]
    rows += [["started from weights that saw", _frames(frames)] for frames in described.get("ancestors", [])]
    rows += [["changed on resume", change] for change in described.get("changes", [])]
    return "\n".join(
        ["## Training", "", markdown.table(["", ""], rows, left=2), "", "All settings: `config.yaml`.", ""]
    )


def _number(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.2f}"
