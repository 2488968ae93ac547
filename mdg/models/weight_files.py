"""Weights from files, read with suspicion: files are verified before they are unpickled, code in them is never run, and
what is none is recognised by its first bytes."""

from __future__ import annotations

import re
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mdg.errors import WeightsError, nearest
from mdg.utils.files import explained
from mdg.utils.sealed import LOCAL_MAGIC, MARK, Damaged, verify_archive

SUFFIXES = {".pt", ".pth", ".bin", ".safetensors"}  # of the files that a mistyped name may have meant


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
)


def read_tensors(file: Path, archive: bool = False) -> Any:
    """Reads a file of tensors and plain values without running code in it, after :func:`verify_weights`.

    ``archive`` refuses the format that torch.save wrote before 2020, in which nothing can be verified.

    Raises:
        WeightsError: Missing, damaged, no such file, or holding objects that only unpickling code could restore.
    """
    if not archive and is_safetensors(file):
        return read_safetensors(file)
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


SAFETENSORS = re.compile(rb"[\s\S]{8}\s*\{")  # the length of a header, and the header, which is JSON


def is_safetensors(file: Path) -> bool:
    """Whether a file begins like one of safetensors."""
    if not file.is_file():
        return False
    with explained(file), open(file, "rb") as stream:
        return SAFETENSORS.match(stream.read(512)) is not None


def read_safetensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a ``.safetensors`` file, which holds nothing else.

    Raises:
        WeightsError: Damaged or cut off.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        with explained(file):
            return load_file(file)
    except (SafetensorError, KeyError, ValueError) as error:  # a type of number that torch does not have is a KeyError
        raise WeightsError(f"{file}: not a readable .safetensors file ({error}); {ADVICE}") from None


def verify_weights(file: Path, archive: bool = False) -> None:
    """Notices a file that is damaged or no file of weights, without unpickling it.

    Raises:
        WeightsError: The message says what the file is and what to do.
    """
    if file.is_dir():
        raise WeightsError(f"{file}: a folder; name the file of weights in it")
    if not file.is_file():
        there = [path.name for path in file.parent.glob("*.*") if path.suffix in SUFFIXES]
        raise WeightsError(f"{file}: no such file of weights. Check the path.{nearest(file.name, there)}")
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
