"""Pretrained encoders from other people's files."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from mdg.errors import NonFiniteError, WeightsError, first_few
from mdg.models.backbones.plain_vit import PlainViT
from mdg.models.backbones.timm_encoder import TimmEncoder
from mdg.models.layouts import LAYOUTS, PUBLIC, Atoms, find_encoders
from mdg.models.weight_files import first_non_finite, misfits, read_tensors

logger = logging.getLogger("mdg.weights")

STEM = "patch_embed1.proj.weight"
SOURCE = (
    "the ImageNet-1k encoder weights that the SegFormer authors publish (NVlabs/SegFormer, folder "
    "`pretrained_models`: mit_b0.pth .. mit_b5.pth)"
)
# Names of tensors by which other networks are recognised, for messages.
OTHERS = (
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


def load_encoder(backbone: nn.Module, file: str | Path, stream: str, key: str = "model") -> LoadReport:
    """Loads encoder weights: into a :class:`~mdg.models.backbones.MixTransformer` in any layout that
    :mod:`mdg.models.layouts` knows, of a file with more than an encoder that encoder; into an encoder of timm with the
    names of :meth:`~mdg.models.backbones.TimmEncoder.from_file`, or a plain ViT with those of its own, whose neck such
    files do not have and which is left as it is.

    A three-channel stem is summed over its input channels for a one-channel encoder, which equals feeding it the same
    image three times. The ImageNet classifier is left out.

    Args:
        backbone: The encoder, changed in place.
        file: The weights, such as ``pretrained/mit_b2.pth``: of torch.save, or ``.safetensors``.
        stream: Name of the stream ("rgb", "thermal"), or "backbone" where there is one alone, for messages.
        key: Of the configuration that holds the network, for messages.

    Returns:
        The report, also logged.

    Raises:
        WeightsError: Missing or unreadable file, tensors of other shapes or kinds, or a tensor of the encoder left
            uncovered.
        NonFiniteError: A tensor holds NaN or infinity.
    """
    file = Path(file).expanduser()
    if not file.exists():
        name = getattr(backbone, "name", file.stem)
        own_key = f"{key}.pretrained" if stream == "backbone" else f"{key}.pretrained.{stream}"
        raise WeightsError(
            f"{file}: no such file ({own_key}). `python scripts/fetch_weights.py {name}` gets it; or "
            f"train from scratch with --opts {key}.pretrained=null"
        )
    own = whole = backbone.state_dict()
    if isinstance(backbone, (TimmEncoder, PlainViT)):
        layout, tensors, unknown = backbone.from_file(plain_state_dict(read_tensors(file), file))
        own = {name: value for name, value in own.items() if not name.endswith("num_batches_tracked")}  # some lack it
        own = {name: value for name, value in own.items() if not name.startswith(getattr(backbone, "fresh", ()))}
    else:
        encoder = read_encoder(file)
        layout, tensors, unknown = encoder.layout, PUBLIC.tensors(encoder.atoms, ""), encoder.unknown
    if STEM in tensors and STEM in own and own[STEM].shape[1] == 1 and tensors[STEM].shape[1] == 3:
        tensors[STEM] = tensors[STEM].sum(dim=1, keepdim=True)
    report = LoadReport(
        matched=[name for name in own if name in tensors],
        missing=[name for name in own if name not in tensors],
        unexpected=[*(name for name in tensors if name not in whole), *unknown],
    )
    _check(report, own, tensors, file, stream)
    backbone.load_state_dict({**whole, **{name: tensors[name] for name in report.matched}})
    logger.info("%s encoder from %s (layout of %s): %s", stream, file, layout, report)
    return report


class Encoder(NamedTuple):
    """An encoder in a file: whose layout it has, its atoms, how many tensors it has, names behind its prefix that the
    layout does not know, and how many other tensors the file holds."""

    layout: str
    atoms: Atoms
    tensors: int
    unknown: list[str]
    left_out: int


def read_encoder(file: Path) -> Encoder:
    """Finds the encoder in a file of weights, whatever its layout and whatever else is in it.

    Raises:
        WeightsError: Missing or unreadable, without an encoder, or with several.
    """
    tensors = plain_state_dict(read_tensors(file), file)
    encoders = find_encoders(tensors)
    if not encoders:
        raise WeightsError(f"{file}: no encoder found in it. {_told(tensors)}")
    if len(encoders) > 1:
        where = ", ".join(repr(found.prefix) for found in encoders)
        raise WeightsError(
            f"{file}: several encoders in it (names begin with {where}); save the one that is meant alone"
        )
    layout, prefix = encoders[0]
    atoms, unknown = layout.atoms(tensors, prefix)
    kept = [name for name in unknown if not name.startswith(f"{prefix}head.")]
    behind = sum(name.startswith(prefix) for name in tensors)
    return Encoder(layout.title, atoms, behind - len(unknown), kept, len(tensors) - behind + len(unknown))


def plain_state_dict(content: Any, file: Path) -> dict[str, Tensor]:
    """The tensors of a file of weights by name, with or without `state_dict` around them; raises WeightsError."""
    if isinstance(content, dict) and {"format", "model", "config"} <= content.keys():
        raise WeightsError(
            f"{file}: a checkpoint of mdg, a whole network; expected weights of one encoder ({SOURCE}). "
            "train.init_from starts a run from a whole network, --resume continues a run"
        )
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        found = f"a mapping with {first_few([str(key)[:40] for key in content])}" if isinstance(content, dict) else None
        raise WeightsError(
            f"{file}: expected a state dict of tensors named as in SegFormer ({STEM}, ...), got "
            f"{found or type(content).__name__}"
        )
    return {str(name): value for name, value in content.items()}


def _check(report: LoadReport, own: dict[str, Tensor], tensors: dict[str, Tensor], file: Path, stream: str) -> None:
    if report.missing:
        raise WeightsError(
            f"{file}: does not cover the {stream} encoder ({report}); without a value: "
            f"{first_few(report.missing)}; not used: {first_few(report.unexpected)}. Is it the file for this variant?"
        )
    wrong = misfits(own, tensors)
    if wrong:
        raise WeightsError(
            f"{file}: {len(wrong)} tensors do not fit the {stream} encoder: {first_few(wrong)}. Is it the "
            "file for this variant?"
        )
    if (name := first_non_finite({name: tensors[name] for name in report.matched})) is not None:
        raise NonFiniteError(f"{file}: {name} holds NaN or infinity; download or convert the file again")
    if report.unexpected:
        logger.warning("%s: tensors that the %s encoder does not have: %s", file, stream, first_few(report.unexpected))


def _told(tensors: Mapping[str, Tensor]) -> str:
    known = f"expected a Mix Transformer in the layout of {', '.join(layout.title for layout in LAYOUTS.values())}"
    for pattern, what in OTHERS:
        if any(re.match(pattern, name) for name in tensors):
            return f"Its names are those of {what}; {known}: {SOURCE}"
    return f"Its names begin with {first_few(list(tensors))}; {known}: {SOURCE}"
