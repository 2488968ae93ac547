"""Pretrained encoder weights: the one place that knows other people's key layouts."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mdg.errors import WeightsError

logger = logging.getLogger("mdg.weights")

STEM = "patch_embed1.proj.weight"
SOURCE = (
    "the ImageNet-1k encoder weights that the SegFormer authors publish (NVlabs/SegFormer, folder "
    "`pretrained_models`: mit_b0.pth .. mit_b5.pth)"
)


@dataclass(frozen=True)
class LoadReport:
    """What a file of weights covered: names of the tensors loaded, of those left as they were, of those left over."""

    matched: list[str]
    missing: list[str]
    unexpected: list[str]

    def __str__(self) -> str:
        return f"{len(self.matched)} tensors matched, {len(self.missing)} missing, {len(self.unexpected)} unexpected"


def read_tensors(file: Path) -> dict[str, Any]:
    """Reads a file of tensors and plain values without running code in it.

    Raises:
        WeightsError: Missing, truncated, or holding objects that only unpickling code could restore.
    """
    if not file.is_file():
        raise WeightsError(f"{file}: no such file of weights. Check the path.")
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises UnpicklingError, RuntimeError, EOFError, ... by torch version
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise WeightsError(
            f"{file}: not a readable file of weights ({first_line[:160]}). It must hold tensors and plain "
            "values only; a truncated download or a pickled model object is refused."
        ) from None


def load_encoder(backbone: nn.Module, file: str | Path, stream: str) -> LoadReport:
    """Loads public SegFormer encoder weights into a :class:`~mdg.models.backbones.MixTransformer`.

    A three-channel stem is summed over its input channels for a one-channel encoder, which equals feeding it the same
    image three times. ``head.*`` (the ImageNet classifier) is left out.

    Args:
        backbone: The encoder, changed in place.
        file: The weights, such as ``pretrained/mit_b2.pth``.
        stream: Name of the stream ("rgb", "thermal"), for messages.

    Returns:
        The report, also logged.

    Raises:
        WeightsError: Missing or unreadable file, tensors of other shapes, or a tensor of the encoder left uncovered.
    """
    file = Path(file)
    if not file.is_file():
        raise WeightsError(
            f"{file}: no such file (model.pretrained.{stream}). It is one of {SOURCE}: put it there, or "
            f"train from scratch with --opts model.pretrained=null"
        )
    tensors = _plain_state_dict(read_tensors(file), file)
    own = backbone.state_dict()
    tensors = {name: value for name, value in tensors.items() if not name.startswith("head.")}
    if STEM in tensors and STEM in own and own[STEM].shape[1] == 1 and tensors[STEM].shape[1] == 3:
        tensors[STEM] = tensors[STEM].sum(dim=1, keepdim=True)
    report = LoadReport(
        matched=[name for name in own if name in tensors],
        missing=[name for name in own if name not in tensors],
        unexpected=[name for name in tensors if name not in own],
    )
    _check(report, own, tensors, file, stream)
    backbone.load_state_dict({name: tensors[name] for name in report.matched})
    logger.info("%s encoder from %s: %s", stream, file, report)
    return report


def _plain_state_dict(content: Any, file: Path) -> dict[str, Tensor]:
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise WeightsError(
            f"{file}: expected a state dict of tensors named as in SegFormer (patch_embed1.proj.weight, "
            f"...), got {type(content).__name__}"
        )
    return content


def _check(report: LoadReport, own: dict[str, Tensor], tensors: dict[str, Tensor], file: Path, stream: str) -> None:
    if report.missing:
        raise WeightsError(
            f"{file}: does not cover the {stream} encoder ({report}); without a value: "
            f"{_some(report.missing)}; not used: {_some(report.unexpected)}. Is it the file for this "
            "variant, in the public SegFormer layout?"
        )
    wrong = [
        f"{name} is {tuple(tensors[name].shape)}, needs {tuple(own[name].shape)}"
        for name in report.matched
        if tensors[name].shape != own[name].shape
    ]
    if wrong:
        raise WeightsError(
            f"{file}: {len(wrong)} tensors do not fit the {stream} encoder: {_some(wrong)}. Is it the "
            "file for this variant?"
        )
    if report.unexpected:
        logger.warning("%s: tensors that the %s encoder does not have: %s", file, stream, _some(report.unexpected))


def _some(names: list[str], limit: int = 4) -> str:
    shown = ", ".join(names[:limit]) or "none"
    return shown + (f" and {len(names) - limit} more" if len(names) > limit else "")
