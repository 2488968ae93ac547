"""Small data sets in the layouts of the real ones, written from generated scenes."""

from __future__ import annotations

from pathlib import Path

import pytest
from layouts import (
    SIZE,
    mfnet_name,
    write_custom,
    write_fmb,
    write_mfnet_folders,
    write_mfnet_packed,
    write_pst900,
)

from mdg.data.synthetic import render_scene

MFNET_SCENES = range(13)  # train 6, val 3, test 4


@pytest.fixture(scope="session")
def scenes() -> dict:
    """The scenes of the MFNet fixtures by name."""
    return {mfnet_name(scene): render_scene(0, scene, *SIZE) for scene in MFNET_SCENES}


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """MFNet as published: 4-channel PNGs."""
    return write_mfnet_packed(tmp_path / "packed")


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """MFNet as copies of it come: one folder per modality."""
    return write_mfnet_folders(tmp_path / "folders")


@pytest.fixture
def title_folders(tmp_path: Path) -> Path:
    """The same under other names."""
    return write_mfnet_folders(tmp_path / "title", folders=("RGB", "Thermal", "Label"))


@pytest.fixture
def pst900(tmp_path: Path) -> Path:
    """PST900: six frames in train, three in test."""
    return write_pst900(tmp_path / "PST900")


@pytest.fixture
def fmb(tmp_path: Path) -> Path:
    """FMB: six frames in train, three in test."""
    return write_fmb(tmp_path / "FMB")


@pytest.fixture
def custom(tmp_path: Path) -> Path:
    """What ``layouts.custom_options`` describes: six frames in train, three in test."""
    return write_custom(tmp_path / "custom")
