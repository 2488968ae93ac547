"""What a result depends on besides its configuration: versions, machine, code."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import mdg
from mdg.utils.launched import command_line

PACKAGES = ("torch", "torchvision", "timm", "mmengine", "numpy", "opencv-python", "pydantic", "natten", "mamba-ssm")
VECTORS = (("avx512f", "AVX-512"), ("avx2", "AVX2"), ("asimd", "NEON"))  # flag of the system, name; the widest first


def describe_environment() -> dict[str, Any]:
    """Versions of Python and the packages, processor, GPUs, and the commit of the code, as plain values."""
    return {
        "mdg": mdg.__version__,
        "code": code_version(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": processor(),
        "cpu_threads": torch.get_num_threads(),
        "packages": {name: package_version(name) for name in PACKAGES},
        "cuda": torch.version.cuda,
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        if torch.cuda.is_available()
        else [],
        "command": command_line(),
    }


@cache
def package_version(name: str) -> str | None:
    """Installed version of a distribution, or None; read once, as a process runs the packages it began with."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


@cache
def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Name of the processor as people know it and, where the system tells, its widest vectors: makers sell processors
    that differ by a factor of two under one name."""
    told: dict[str, str] = {}
    for line in cpuinfo.read_text(errors="replace").splitlines() if cpuinfo.is_file() else ():
        key, _, value = line.partition(":")
        told.setdefault(key.strip(), value.strip())
    name = told.get("model name") or platform.processor() or platform.machine()
    flags = told.get("flags", told.get("Features", "")).split()
    vectors = next((f" ({label})" for flag, label in VECTORS if flag in flags), "")
    return f"{name}{vectors} x {os.cpu_count()}"


@cache
def code_fingerprint(modules: tuple[str, ...] = (), room: str = "") -> str:
    """A hash of the source of this package, or of one ``room`` of it, and of further imported modules: equal where the
    code is equal, whether or not it was committed, and whatever else lies in the repository. Read once: a process runs
    the code it began with."""
    root = Path(mdg.__file__).parent
    files = {file.relative_to(root).as_posix(): file for file in sorted((root / room).rglob("*.py"))}
    for name in modules:
        source = getattr(sys.modules.get(name), "__file__", None)
        if source is not None:
            files[name] = Path(source)
    digest = hashlib.sha256()
    for name, file in files.items():
        digest.update(name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def code_version() -> str:
    """Commit of the source tree, marked where it has uncommitted changes; "unknown" outside a git checkout."""
    root = Path(mdg.__file__).parent.parent
    try:
        commit = _git(root, "rev-parse", "HEAD")
        return commit + ("+changes" if _git(root, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()
