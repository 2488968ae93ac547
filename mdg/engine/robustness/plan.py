"""What is measured: which corruptions, at which severities, and how they are grouped."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mdg.data.base import RGBTDataset
from mdg.data.corruptions import CORRUPTIONS, MOST_SEVERE, Corruption, every_corruption
from mdg.errors import ConfigError, nearest

GROUPS = {
    "light": ("Darkness", "Overexposure", "Glare"),
    "weather": ("Fog", "Rain", "Snow"),
    "lens": ("MotionBlur", "Defocus"),
    "sensor": (
        "SensorNoise",
        "JPEG",
        "LowContrast",
        "ThermalNoise",
        "ThermalOffset",
        "ThermalDrift",
        "FixedPattern",
        "DeadPixels",
        "DeadRows",
        "ShutterFrame",
        "ReversedPolarity",
        "OtherScaling",
    ),
    "rig": ("TimeLag", "ThermalShift", "ThermalRotation", "ThermalScale", "Parallax"),
    "missing": ("MissingBlack", "MissingMean", "Frozen"),
}
CAMERAS = ("rgb", "thermal")
SEVERITIES = (1.0, 2.0, 3.0, 4.0, 5.0)


def group_of(kind: str) -> str:
    """The group of a type of corruption."""
    return next(group for group, kinds in GROUPS.items() if kind in kinds)


def chosen_corruptions(names: Sequence[str] | None = None) -> list[Corruption]:
    """The corruptions to measure, each with each camera that it can befall, by groups.

    Args:
        names: Types (``Fog``), types with a camera (``"JPEG of thermal"``) or groups (``weather``); None takes all.

    Raises:
        ConfigError: A name that is none of them.
    """
    every = sorted(every_corruption(), key=lambda corruption: list(GROUPS).index(group_of(type(corruption).__name__)))
    if names is None:
        return every
    wanted: set[str] = set()
    for name in names:
        found = {one.name for one in every if name in (one.name, type(one).__name__, group_of(type(one).__name__))}
        if not found:
            kind = name.partition(" of ")[0]
            known = [one.name for one in every if type(one).__name__ == kind]  # the camera is none of its own
            known = known or [*CORRUPTIONS, *(one.name for one in every), *GROUPS]
            raise ConfigError(
                f"--corruptions {name}: no such corruption; expected one of {', '.join(CORRUPTIONS)}, with or without "
                f"a camera ('JPEG of thermal'), or a group ({', '.join(GROUPS)}).{nearest(name, known)}"
            )
        wanted |= found
    return [corruption for corruption in every if corruption.name in wanted]


def befalling(corruptions: Sequence[Corruption], dataset: RGBTDataset) -> list[Corruption]:
    """Those of the cameras that a data set has.

    Raises:
        ConfigError: None of them is.
    """
    found = [corruption for corruption in corruptions if corruption.camera in dataset.cameras]
    if not found:
        raise ConfigError(
            f"--corruptions: {dataset.dataset_name} has no {corruptions[0].camera} camera; name corruptions of "
            f"{' and '.join(dataset.cameras)}"
        )
    return found


def chosen_severities(severities: Sequence[float]) -> list[float]:
    """The severities, rising, each once.

    Raises:
        ConfigError: One that is not above 0 and at most 5, or none at all.
    """
    for severity in severities:
        if not (math.isfinite(severity) and 0 < severity <= MOST_SEVERE):
            raise ConfigError(
                f"--severities {severity:g}: expected numbers above 0 and up to {MOST_SEVERE}; 0 is the clean score, "
                "which is measured anyway"
            )
    if not severities:
        raise ConfigError("--severities: got none, expected one at least, as in --severities 1 3 5")
    return sorted({float(severity) for severity in severities})
