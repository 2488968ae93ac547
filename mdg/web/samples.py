"""Pairs to begin with: generated scenes, by day, by night, and with things that one camera alone shows.

Legend: H W image size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from mdg.config import RunConfig
from mdg.data.datasets.mfnet import CLASSES
from mdg.data.synthetic import render_scene
from mdg.data.synthetic.scene import Scene
from mdg.metrics.visibility import SHOWN_IN, visibility
from mdg.options.datasets import RANGES, SyntheticOptions

SIZE = (480, 640)  # of networks that say none: that of MFNet
MOST_TRIED = 400  # scenes
SMALLEST = 0.01  # share of the image that a thing must cover to be pointed at
FEWEST_CLASSES = 4  # beside the background that a scene must show to stand for its time of day
IN_RGB, IN_THERMAL = SHOWN_IN.index("objects in RGB only"), SHOWN_IN.index("objects in thermal only")
ALIVE = ("person", "bike")


class Sample(NamedTuple):
    """A pair: what it shows, its scene, RGB ``[H, W, 3]`` and thermal ``[H, W]``, uint8."""

    title: str
    scene: int
    rgb: np.ndarray
    thermal: np.ndarray


def size_of(config: RunConfig) -> tuple[int, int]:
    """(height, width) of the images that a network was made for, as far as its configuration says it."""
    if isinstance(config.data, SyntheticOptions):
        return config.data.height, config.data.width
    if config.pipeline.eval_size is not None:
        return config.pipeline.eval_size
    sizes = [size for transform in config.pipeline.train if (size := getattr(transform, "size", None)) is not None]
    return sizes[-1] if sizes else SIZE


def make_samples(config: RunConfig) -> list[Sample]:
    """One sample for every wish, of scenes that no network was trained on; the same ones every time.

    Args:
        config: Of the network, for the size and, where it knows generated scenes, for its world.
    """
    seed = config.data.seed if isinstance(config.data, SyntheticOptions) else 0
    height, width = size_of(config)
    first = RANGES["test"][0]
    wishes: dict[int, Callable[[Scene], str | None]] = dict(enumerate((_by_day, _by_night, _in_thermal, _in_rgb)))
    found: dict[int, Sample] = {}
    for number in range(first, first + MOST_TRIED):
        scene = render_scene(seed, number, height, width)
        for place, wish in wishes.items():
            if place not in found and (title := wish(scene)) is not None:
                found[place] = Sample(title, number, scene.rgb, scene.thermal)
                break  # another scene for every wish
        if len(found) == len(wishes):
            break
    return [found[place] for place in sorted(found)]


def _by_day(scene: Scene) -> str | None:
    return "Day" if not scene.night and _rich(scene) else None


def _by_night(scene: Scene) -> str | None:
    return "Night" if scene.night and _rich(scene) else None


def _rich(scene: Scene) -> bool:
    return not scene.glare and len(np.unique(scene.label)) > FEWEST_CLASSES


def _in_thermal(scene: Scene) -> str | None:
    return _alone(scene, IN_THERMAL, "Thermal")


def _in_rgb(scene: Scene) -> str | None:
    return _alone(scene, IN_RGB, "RGB")


def _alone(scene: Scene, kind: int, camera: str) -> str | None:
    shown_HW = visibility(scene.rgb, scene.thermal, scene.label) == kind
    for name in ALIVE:
        if ((scene.label == CLASSES.index(name)) & shown_HW).mean() >= SMALLEST:
            return f"{camera} alone shows a {name}"
    return None
