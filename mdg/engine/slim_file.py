"""Weights to pass on: a ``.safetensors`` file with what scoring and predicting need and nothing else.

Beside the tensors it holds one text in its header: what a checkpoint says (configuration, classes, palette, the frames
behind the weights) as JSON, with the scores that were measured. A digest over that text and all tensors makes every
changed byte an error.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mdg.errors import WeightsError
from mdg.models.weight_files import ADVICE, read_safetensors
from mdg.utils.files import explained, plain, write_bytes

TEXT, DIGEST = "mdg", "mdg_sha256"  # keys of the header


def write_slim(file: Path, description: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Writes the file, at once.

    Args:
        file: Where to.
        description: Plain values: what :class:`~mdg.engine.checkpoint.CheckpointState` lists, without tensors.
        tensors: The weights.
    """
    from safetensors.torch import save

    text = json.dumps(plain(dict(description)), allow_nan=False, ensure_ascii=True, sort_keys=True)
    whole = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    write_bytes(file, save(whole, metadata={"format": "pt", TEXT: text, DIGEST: _digest(text, whole)}))


def read_slim(file: Path) -> dict[str, Any]:
    """The content as that of a checkpoint, ``model`` in the precision of training (float32).

    Raises:
        WeightsError: Damaged, or no such file but one of other tensors.
    """
    header = _header(file)
    if TEXT not in header:
        raise WeightsError(
            f"{file}: tensors without a description of mdg; expected a checkpoint, or what tools/export_weights.py "
            "writes. Encoder weights go under model.pretrained instead."
        )
    tensors = read_safetensors(file)
    if _digest(header[TEXT], tensors) != header.get(DIGEST):
        raise WeightsError(f"{file}: damaged: its content is not the one that was written; {ADVICE}")
    content = json.loads(header[TEXT])
    if not isinstance(content, dict):
        raise WeightsError(f"{file}: its description is no mapping; {ADVICE}")
    return {**content, "model": {name: _full(value) for name, value in tensors.items()}}


def rounded(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Matrices and kernels in bfloat16; vectors (norms, biases, statistics) and ``A_log``, from which the scan takes
    exponentials, stay as they are."""
    return {
        name: value.bfloat16() if _is_matrix(value) and not name.endswith("A_log") else value
        for name, value in tensors.items()
    }


def _is_matrix(value: Tensor) -> bool:
    return value.is_floating_point() and value.dim() > 1


def _full(value: Tensor) -> Tensor:
    return value.float() if value.dtype == torch.bfloat16 else value


def _header(file: Path) -> dict[str, str]:
    from safetensors import SafetensorError, safe_open

    try:
        with explained(file), safe_open(file, framework="pt") as stored:
            return stored.metadata() or {}
    except SafetensorError:
        raise WeightsError(f"{file}: not a readable .safetensors file; {ADVICE}") from None


def _digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    found = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        value = tensors[name]
        found.update(f"\0{name}\0{value.dtype}\0{tuple(value.shape)}\0".encode("utf-8", "surrogateescape"))
        found.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()
