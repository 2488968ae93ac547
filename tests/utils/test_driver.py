"""A GPU that is there and not used is explained, with the driver that is needed."""

from __future__ import annotations

import logging
import subprocess

import pytest
import torch

from mdg.engine.distributed import pick_device
from mdg.errors import ConfigError
from mdg.utils import driver

LOADED = """\
NVRM version: NVIDIA UNIX {open}x86_64 Kernel Module  {version}  Tue Sep  2 17:13:00 UTC 2025
GCC version:  gcc version 12.2.0 (Debian 12.2.0-14)
"""


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Sets the driver and the CUDA of PyTorch; no GPU can be used."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(driver.shutil, "which", lambda name: None)

    def make(version: str | None, cuda: str | None = "13.0", kind: str = "") -> None:
        monkeypatch.setattr(torch.version, "cuda", cuda)
        monkeypatch.setattr(driver, "LOADED", tmp_path / "version")
        if version is not None:
            driver.LOADED.write_text(LOADED.format(version=version, open=kind))

    return make


def test_nothing_is_said_where_there_is_no_gpu_or_it_works(machine, monkeypatch):
    machine(None)
    assert driver.unused_gpu() is None
    machine("535.104.05")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert driver.unused_gpu() is None


@pytest.mark.parametrize(
    ("version", "build"), [("535.104.05", "cu126"), ("525.60.13", "cu126"), ("580.65.06", "cu130"), ("610.1", "cu130")]
)
@pytest.mark.parametrize("kind", ["", "Open "])
def test_the_driver_is_read_and_a_build_found_for_it(machine, version, build, kind):
    machine(version, kind=kind)
    major, minor = version.split(".")[:2]
    assert driver.driver_version() == (int(major), int(minor))
    assert driver.fitting_build(driver.driver_version()) == build


def test_an_old_driver(machine):
    machine("535.104.05")
    assert driver.unused_gpu() == (
        "the GPU is not used: its driver is 535.104, and PyTorch built for CUDA 13.0 needs 580.65 or newer; update the "
        "driver, or `make clean-venv && make TORCH=cu126` installs a build for this driver"
    )
    machine("470.57.02", "12.8")
    assert driver.unused_gpu().endswith("no build of today's PyTorch runs on so old a driver: install a newer one")


def test_a_build_without_cuda_and_a_hidden_gpu(machine):
    machine("580.65.06", None)
    assert "a build without CUDA; `make clean-venv && make TORCH=cu130`" in driver.unused_gpu()
    machine("580.65.06")
    assert "is it hidden (CUDA_VISIBLE_DEVICES)" in driver.unused_gpu()


def test_the_driver_is_asked_where_the_system_does_not_show_it(machine, monkeypatch):
    machine(None)
    monkeypatch.setattr(driver.shutil, "which", lambda name: "/bin/nvidia-smi")
    done = subprocess.CompletedProcess([], 0, stdout="551.23\n551.23\n")
    monkeypatch.setattr(driver.subprocess, "run", lambda *_, **__: done)
    assert driver.driver_version() == (551, 23)

    def hang(*_, **__):
        raise subprocess.TimeoutExpired("nvidia-smi", 20)

    monkeypatch.setattr(driver.subprocess, "run", hang)
    assert driver.driver_version() is None


def test_a_run_says_so(machine, caplog):
    machine("535.104.05")
    with caplog.at_level(logging.WARNING):
        assert pick_device("auto").type == "cpu"
    assert "its driver is 535.104" in caplog.text
    with pytest.raises(ConfigError, match="its driver is 535.104"):
        pick_device("cuda")
