"""Checkpoints: tensors and plain values only, written so that a crash never leaves half a file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mdg.errors import WeightsError
from mdg.models.weights import read_tensors

FORMAT = 1


def save_checkpoint(file: Path, content: dict[str, Any]) -> None:
    """Writes ``content`` beside ``file`` and renames it there, so that readers see the old file or the new one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(file.name + ".partial")
    with open(partial, "wb") as stream:
        torch.save({"format": FORMAT, **content}, stream)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(partial, file)


def load_checkpoint(file: str | Path) -> dict[str, Any]:
    """Reads a checkpoint of this project; code in it is never run.

    Raises:
        WeightsError: Missing or unreadable file, or one that another program wrote.
    """
    file = Path(file)
    content = read_tensors(file)
    if not isinstance(content, dict) or "format" not in content or "model" not in content:
        raise WeightsError(
            f"{file}: not a checkpoint of mdg (it has no `format` and `model`). Encoder weights go under "
            "model.pretrained instead."
        )
    if content["format"] != FORMAT:
        raise WeightsError(
            f"{file}: checkpoint format {content['format']}, this version reads {FORMAT}; use the mdg "
            f"version that wrote it ({content.get('mdg_version', 'unknown')})"
        )
    return content


def load_weights(model: nn.Module, tensors: dict[str, Any], source: str | Path) -> None:
    """Loads a state dict whose names and shapes must be exactly those of the model.

    Raises:
        WeightsError: Names the tensors that are missing, left over or of another shape.
    """
    own = model.state_dict()
    problems = [f"{name} is missing" for name in own if name not in tensors]
    problems += [f"{name} is not in the model" for name in tensors if name not in own]
    problems += [
        f"{name} is {tuple(tensors[name].shape)}, needs {tuple(own[name].shape)}"
        for name in own
        if name in tensors and tensors[name].shape != own[name].shape
    ]
    if problems:
        shown = "; ".join(problems[:4]) + (f"; and {len(problems) - 4} more" if len(problems) > 4 else "")
        raise WeightsError(
            f"{source}: {len(problems)} tensors do not fit the model of the configuration: {shown}. "
            "Evaluate a checkpoint with the configuration it was trained with (leave --config out)."
        )
    model.load_state_dict(tensors)
