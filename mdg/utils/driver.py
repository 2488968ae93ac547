"""Why the GPU of this machine is not used: the NVIDIA driver against the CUDA that the installed PyTorch was built for.

The oldest driver of each CUDA is that of NVIDIA's table of minor version compatibility (CUDA Toolkit release notes).
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import torch

LOADED = Path("/proc/driver/nvidia/version")
OLDEST = {11: (450, 80), 12: (525, 60), 13: (580, 65)}  # driver by the major version of CUDA
BUILDS = {13: "cu130", 12: "cu126"}  # of PyTorch, the newest CUDA first
TIMEOUT = 20  # seconds for a driver that hangs


def unused_gpu() -> str | None:
    """One sentence with what to do where there is an NVIDIA GPU that PyTorch cannot use; None where all is well, or
    where there is none."""
    if torch.cuda.is_available():
        return None
    driver = driver_version()
    if driver is None:
        return None
    number, build = ".".join(map(str, driver)), fitting_build(driver)
    remedy = (
        f"`make clean-venv && make TORCH={build}` installs a build for this driver"
        if build
        else "no build of today's PyTorch runs on so old a driver: install a newer one"
    )
    if torch.version.cuda is None:
        return f"this machine has an NVIDIA GPU (driver {number}), and PyTorch is a build without CUDA; {remedy}"
    major = int(torch.version.cuda.split(".")[0])
    if driver < OLDEST.get(major, (0, 0)):
        needed = ".".join(map(str, OLDEST[major]))
        return (
            f"the GPU is not used: its driver is {number}, and PyTorch built for CUDA {torch.version.cuda} needs "
            f"{needed} or newer; update the driver, or {remedy}"
        )
    return (
        f"the GPU is not used although its driver ({number}) is new enough for CUDA {torch.version.cuda}: is it hidden "
        "(CUDA_VISIBLE_DEVICES), is /dev/nvidia* there and readable, does `nvidia-smi` list it?"
    )


def driver_version() -> tuple[int, int] | None:
    """Major and minor number of the NVIDIA driver that runs here; None where there is none."""
    try:
        text = LOADED.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = _ask_driver()
    found = re.search(r"(?:Kernel Module[^\d\n]*|^)(\d{3,})\.(\d+)", text, re.MULTILINE)
    return (int(found[1]), int(found[2])) if found else None


def _ask_driver() -> str:
    """Where the system does not show its modules (Windows, and Linux inside of it)."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    command = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def fitting_build(driver: tuple[int, int]) -> str | None:
    """The newest build of PyTorch that runs on a driver, as `make TORCH=` takes it; None where there is none."""
    return next((build for major, build in BUILDS.items() if driver >= OLDEST[major]), None)
