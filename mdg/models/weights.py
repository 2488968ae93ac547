"""Weights from files: read with suspicion, and pretrained encoders in other people's key layouts.

Files are verified before they are unpickled, code in them is never run, what is none is recognised by its first bytes,
and weights that are not finite are refused. This is the one place that knows other people's key layouts.
"""

from __future__ import annotations

import logging
import re
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mdg.errors import NonFiniteError, WeightsError
from mdg.utils.files import explained
from mdg.utils.sealed import LOCAL_MAGIC, MARK, Damaged, verify_archive


@torch.no_grad()
def first_non_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """The name of the first tensor that holds NaN or infinity; None where all are finite. Whole numbers always are.

    A sum is not finite where one of its terms is not, and it is the fastest thing to ask of a tensor. It may also
    overflow, so what it points at is looked at again number by number.
    """
    sums: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    for value in tensors.values():
        total = _sum(value)
        if total is not None:
            sums.setdefault((total.device, total.dtype), []).append(total)
    if all(bool(torch.stack(found).isfinite().all()) for found in sums.values()):
        return None
    return next((name for name, value in tensors.items() if not _real(value).isfinite().all()), None)


def _sum(value: Tensor) -> Tensor | None:
    kind = value.dtype
    if kind == torch.float32:  # nearly all of them, and there are thousands
        return value.sum()
    if kind.is_floating_point or kind.is_complex:
        return _real(value).sum(dtype=None if kind in (torch.float64, torch.complex128) else torch.float32)
    return None


def _real(value: Tensor) -> Tensor:
    """As real numbers that operators know: complex ones in pairs, those of eight bits in 32."""
    if value.is_complex():
        return torch.view_as_real(value)
    return value.float() if value.dtype.is_floating_point and value.element_size() == 1 else value


ADVICE = "copy or download it again, or take another checkpoint"
# First bytes of files that are taken for weights now and then.
KINDS = (
    (rb"\s*<(!doctype|html|\?xml)", "a web page: the link asked for a login or has moved; download the file itself"),
    (rb"version https://git-lfs", "a pointer of Git LFS, not the file it stands for; get it with `git lfs pull`"),
    (rb"\x89HDF\r\n", "an HDF5 file (Keras), which cannot be converted yet"),
    (rb"\x1f\x8b|BZh|\xfd7zXZ|7z\xbc\xaf|Rar!", "a compressed archive; unpack it first"),
    (rb"[\s\S]{8}\s*\{\s*\"", "a .safetensors file, which cannot be read yet; use the .pth or .bin file of the model"),
)


def read_tensors(file: Path, archive: bool = False) -> Any:
    """Reads a file of tensors and plain values without running code in it, after :func:`verify_weights`.

    ``archive`` refuses the format that torch.save wrote before 2020, in which nothing can be verified.

    Raises:
        WeightsError: Missing, damaged, no such file, or holding objects that only unpickling code could restore.
    """
    verify_weights(file, archive)
    try:
        with explained(file), open(file, "rb") as stream:
            return torch.load(stream, map_location="cpu", weights_only=True)
    except WeightsError:
        raise
    except MemoryError:
        raise
    except Exception as error:  # torch raises UnpicklingError, RuntimeError, EOFError, KeyError, ... by what it meets
        raise WeightsError(f"{file}: not a readable file of weights: {_reason(error)}") from None


def verify_weights(file: Path, archive: bool = False) -> None:
    """Notices a file that is damaged or no file of weights, without unpickling it.

    Raises:
        WeightsError: The message says what the file is and what to do.
    """
    if file.is_dir():
        raise WeightsError(f"{file}: a folder; name the file of weights in it")
    if not file.is_file():
        raise WeightsError(f"{file}: no such file of weights. Check the path.")
    with explained(file):
        if not _is_archive(file):
            _refuse_strangers(file)
            if archive:
                raise WeightsError(f"{file}: damaged, or no checkpoint: it does not begin like one; {ADVICE}")
            return
        try:
            verify_archive(file)
        except Damaged as error:
            raise WeightsError(f"{file}: {_other_archive(file) or f'damaged: {error}; {ADVICE}'}") from None
        if other := _other_archive(file):
            raise WeightsError(f"{file}: {other}")


def _is_archive(file: Path) -> bool:
    """Whether it is what torch.save writes today; its first bytes may be the ones that are damaged."""
    with open(file, "rb") as stream:
        start = stream.read(len(LOCAL_MAGIC))
        stream.seek(max(0, stream.seek(0, 2) - 1024))
        return start == LOCAL_MAGIC or MARK in stream.read()


def _other_archive(file: Path) -> str | None:
    """What a ZIP is that torch.save did not write; None where it may be one of its own."""
    try:
        with zipfile.ZipFile(file) as archive:
            names, comment = archive.namelist(), archive.comment
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError, ArithmeticError, struct.error):
        return None
    if comment:  # a damaged one of ours, if anything
        return None
    if any(name.endswith("/constants.pkl") for name in names):
        return "a TorchScript archive, whose code is not run; save the state_dict() of the model instead"
    if not any(name.endswith("/data.pkl") for name in names):
        listed = ", ".join(name[:40] for name in names[:3]) or "nothing"
        return f"an archive of other files ({listed}); expected a file of torch.save: unpack it first"
    return None


def _refuse_strangers(file: Path) -> None:
    with open(file, "rb") as stream:
        start = stream.read(512)
    if not start:
        raise WeightsError(f"{file}: an empty file; {ADVICE}")
    for pattern, what in KINDS:
        if re.match(pattern, start, re.IGNORECASE):
            raise WeightsError(f"{file}: this is {what}")


def _reason(error: Exception) -> str:
    text = str(error)
    named = re.search(r"GLOBAL ([\w.]+)", text) or re.search(r"unsupported (?:class|global) ([\w.]+)", text, re.I)
    if named:
        return (
            f"it holds an object of {named[1]}, which only code from the file could restore, so it is refused; save "
            "its state_dict() alone, tensors and plain values"
        )
    if isinstance(error, RecursionError):
        return "its values are nested too deeply, so it is refused"
    return f"it is cut off, damaged, or holds more than tensors and plain values, which is refused; {ADVICE}"


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
            f"{file}: a checkpoint of mdg, a whole network; expected weights of one encoder ({SOURCE}). "
            "train.init_from starts a run from a whole network, --resume continues a run"
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
