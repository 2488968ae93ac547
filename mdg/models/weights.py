"""Pretrained encoder weights: the one place that knows other people's key layouts."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mdg.errors import NonFiniteError, WeightsError
from mdg.models.finite import first_non_finite
from mdg.models.weight_files import read_tensors

logger = logging.getLogger("mdg.weights")

STEM = "patch_embed1.proj.weight"
SOURCE = (
    "the ImageNet-1k encoder weights that the SegFormer authors publish (NVlabs/SegFormer, folder "
    "`pretrained_models`: mit_b0.pth .. mit_b5.pth)"
)
# Names of tensors by which other people's files are recognised. None of them can be converted yet.
LAYOUTS = (
    (r"segformer\.encoder\.|encoder\.patch_embeddings\.", "a SegFormer of Hugging Face transformers"),
    (r"backbone\.layers\.|layers\.\d+\.\d+\.\d+\.attn\.attn\.", "a SegFormer of mmsegmentation"),
    (r"encoder\.(patch_embed|block)\d", "a SegFormer of segmentation_models.pytorch"),
    (r"(module\.)?backbone\.(patch_embed|block)\d", "a whole SegFormer of its authors, encoder and head"),
    (r"module\.(patch_embed|block)\d", "an encoder that was saved inside of DataParallel (`module.`)"),
    (r"(rgb|thermal)_backbone\.", "a whole network of mdg"),
    (r"(module\.|backbone\.|encoder\.)?(conv1\.weight|layer1\.0\.)", "a ResNet of torchvision or timm"),
    (
        r"(module\.|backbone\.|encoder\.)?(cls_token|blocks\.\d|stages[._]\d|layers\.\d|patch_embed\.)",
        "a network of timm",
    ),
)


@dataclass(frozen=True)
class LoadReport:
    """What a file of weights covered: names of the tensors loaded, of those left as they were, of those left over."""

    matched: list[str]
    missing: list[str]
    unexpected: list[str]

    def __str__(self) -> str:
        return f"{len(self.matched)} tensors matched, {len(self.missing)} missing, {len(self.unexpected)} unexpected"


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
        WeightsError: Missing or unreadable file, tensors of other shapes or kinds, or a tensor of the encoder left
            uncovered.
        NonFiniteError: A tensor holds NaN or infinity.
    """
    file = Path(file).expanduser()
    if not file.exists():
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
    if isinstance(content, dict) and {"format", "model", "config"} <= content.keys():
        raise WeightsError(
            f"{file}: a checkpoint of mdg, a whole network; expected weights of one encoder ({SOURCE}). A run cannot "
            "start from the weights of another one yet; tools/train.py --resume continues a run"
        )
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        found = f"a mapping with {_some([str(key)[:40] for key in content])}" if isinstance(content, dict) else None
        raise WeightsError(
            f"{file}: expected a state dict of tensors named as in SegFormer ({STEM}, ...), got "
            f"{found or type(content).__name__}"
        )
    return {str(name): value for name, value in content.items()}


def misfits(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> list[str]:
    """What keeps the tensors that both sides name from being loaded: another shape, kind of number or layout."""
    problems = []
    for name, mine in own.items():
        value = tensors.get(name, mine)
        if value.shape != mine.shape:
            problems.append(f"{name} is {tuple(value.shape)}, needs {tuple(mine.shape)}")
        elif _kind(value) != _kind(mine):
            problems.append(f"{name} holds {_kind(value)} numbers ({value.dtype}), needs {_kind(mine)} ones")
    return problems


def _kind(tensor: Tensor) -> str:
    if tensor.is_quantized or tensor.layout != torch.strided:
        return "quantized or sparse"
    if tensor.is_complex():
        return "complex"
    return "floating" if tensor.is_floating_point() else "whole"


def _check(report: LoadReport, own: dict[str, Tensor], tensors: dict[str, Tensor], file: Path, stream: str) -> None:
    if report.missing:
        raise WeightsError(
            f"{file}: does not cover the {stream} encoder ({report}); without a value: "
            f"{_some(report.missing)}; not used: {_some(report.unexpected)}. {_layout(tensors)}"
        )
    wrong = misfits(own, tensors)
    if wrong:
        raise WeightsError(
            f"{file}: {len(wrong)} tensors do not fit the {stream} encoder: {_some(wrong)}. Is it the "
            "file for this variant?"
        )
    if (name := first_non_finite({name: tensors[name] for name in report.matched})) is not None:
        raise NonFiniteError(f"{file}: {name} holds NaN or infinity; download or convert the file again")
    if report.unexpected:
        logger.warning("%s: tensors that the %s encoder does not have: %s", file, stream, _some(report.unexpected))


def _layout(tensors: Mapping[str, Tensor]) -> str:
    for pattern, what in LAYOUTS:
        if any(re.match(pattern, name) for name in tensors):
            return (
                f"Its names are those of {what}; expected the public SegFormer layout ({STEM}, ...): {SOURCE}. Other "
                "layouts cannot be converted yet"
            )
    return "Is it the file for this variant, in the public SegFormer layout?"


def _some(names: list[str], limit: int = 4) -> str:
    shown = ", ".join(names[:limit]) or "none"
    return shown + (f" and {len(names) - limit} more" if len(names) > limit else "")
