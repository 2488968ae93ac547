"""Files of tensors, read with suspicion: verified before they are unpickled, code in them never run, and what is none
recognised by its first bytes."""

from __future__ import annotations

import re
import struct
import zipfile
from pathlib import Path
from typing import Any

import torch

from mdg.errors import WeightsError
from mdg.utils.files import explained
from mdg.utils.sealed import LOCAL_MAGIC, MARK, Damaged, verify_archive

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
