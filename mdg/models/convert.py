"""Files of encoder weights from one layout to another."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import NamedTuple

import torch

from mdg.errors import ConfigError
from mdg.models.layouts import LAYOUTS
from mdg.models.weights import read_encoder
from mdg.utils.files import require_writable, write_bytes


class Converted(NamedTuple):
    """What was converted: layout and number of tensors of the source, how many were left out, digest of the target."""

    layout: str
    tensors: int
    left_out: int
    sha256: str


def convert_weights(source: Path, target: Path, to: str = "public") -> Converted:
    """Writes the encoder of a file in another layout.

    Args:
        source: A file of weights in any layout of :mod:`mdg.models.layouts`.
        target: ``.safetensors``, or anything else for a file of torch.save.
        to: A key of :data:`mdg.models.layouts.LAYOUTS`.

    Raises:
        WeightsError: No such file, or no single encoder in it. ConfigError: An unknown layout, or one file twice.
    """
    if to not in LAYOUTS:
        raise ConfigError(f"--to {to}: expected one of {', '.join(LAYOUTS)}")
    if target.exists() and source.exists() and target.samefile(source):
        raise ConfigError(f"{target}: this is the file that is read; name another one")
    require_writable(target, "target")
    encoder = read_encoder(source)
    tensors = {name: value.contiguous() for name, value in LAYOUTS[to].tensors(encoder.atoms).items()}
    if target.suffix == ".safetensors":
        from safetensors.torch import save

        content = save(tensors, metadata={"format": "pt"})
    else:
        stream = io.BytesIO()
        torch.save(tensors, stream)
        content = stream.getvalue()
    write_bytes(target, content)
    digest = hashlib.sha256(content).hexdigest()
    return Converted(encoder.layout, encoder.tensors, encoder.left_out, digest)
