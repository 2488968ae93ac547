"""How exact registration is on real pairs: thermal images of registered sets, warped by maps that are known.

``pytest -s`` prints the table. Published sets are themselves registered to a few pixels only. What a source is off by
is found from other pairs of it, which are not warped, and the error against both truths is told: the published one, and
the one that this offset corrects.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from mdg.data.registration import geometry
from mdg.data.registration.joint import Estimate, register
from mdg.data.registration.run import require_evidence
from mdg.errors import DataError

DATA = Path(__file__).resolve().parents[4] / "shared" / "data"
PARTS = {
    "MSRS": ("msrs_unlabelled/visible", "msrs_unlabelled/infrared"),
    "VIFB": ("samples/pairs/vifb/visible", "samples/pairs/vifb/infrared"),
    "FMB": ("samples/fmb/Visible", "samples/fmb/Infrared"),
    "M3FD": ("samples/pairs/m3fd_pairs/visible", "samples/pairs/m3fd_pairs/infrared"),
}
SCENES = ["MFNet"] * 4 + ["MSRS"] * 4 + ["VIFB", "FMB", "M3FD"]
OTHERS = ("MFNet", "MSRS")  # of which there are other pairs; the few of the rest stand for themselves
GOAL = 3.0  # pixels of an image 640 wide
Pair = tuple[np.ndarray, np.ndarray]

pytestmark = pytest.mark.slow  # a scene takes some seconds of every core


def pairs_of(source: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Grey images of all pairs of the most frequent size."""
    if source == "MFNet":
        files = sorted((DATA / "mfnet_mini" / "images").glob("*.png"))
        images = [cv2.imread(str(file), cv2.IMREAD_UNCHANGED) for file in files]
        return [(cv2.cvtColor(image[..., :3], cv2.COLOR_BGR2GRAY), image[..., 3].copy()) for image in images]
    visible, infrared = (DATA / part for part in PARTS[source])
    files = [(file, next(infrared.glob(f"{file.stem}.*"))) for file in sorted(visible.glob("*"))]
    pairs = [tuple(cv2.imread(str(file), cv2.IMREAD_GRAYSCALE) for file in pair) for pair in files]
    sizes = [pair[0].shape for pair in pairs]
    return [pair for pair in pairs if pair[0].shape == max(sizes, key=sizes.count)]


def random_map(size: geometry.Size, rng: np.random.Generator) -> np.ndarray:
    """Thermal to RGB: scale 0.6..1.6, turn within 5 degrees, shift within 80 pixels, half of them with a lean."""
    scale, degrees, shift = np.exp(rng.uniform(*np.log([0.6, 1.6]))), rng.uniform(-5, 5), rng.uniform(-80, 80, 2)
    matrix = geometry.similarity(float(scale), float(degrees), tuple(shift), *[geometry.centre(size)] * 2)
    lean = np.eye(3)
    lean[2, :2] = rng.uniform(-0.05, 0.05, 2) / size[1] * rng.integers(0, 2)
    to_centre = np.eye(3)
    to_centre[:2, 2] = -np.array(geometry.centre(size))
    return matrix @ np.linalg.inv(to_centre) @ lean @ to_centre


def warped(pairs: list[Pair], matrix: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The images as two cameras would have taken them, of which the second is mapped to the first by ``matrix``."""
    height, width = pairs[0][0].shape
    moved = [cv2.warpPerspective(thermal, np.linalg.inv(matrix), (width, height)) for _, thermal in pairs]
    return [rgb for rgb, _ in pairs], moved


def verdict(found: Estimate) -> str:
    try:
        require_evidence(found)
    except DataError:
        return "refused"
    return "taken"


def line(name: str, found: Estimate, errors: list[float]) -> str:
    shown = " ".join(f"{error:7.1f}" for error in errors)
    return (
        f"{name:24s} {shown} {found.error:8.1f} {found.score:6.2f} {found.peak:6.1f} {100 * found.halves:6.0f} %   "
        f"{verdict(found)}"
    )


def scenes() -> Iterator[tuple[str, list[Pair], list[Pair], np.random.Generator]]:
    """Source, the pairs of a scene, and others for what the source is off by."""
    for number, source in enumerate(SCENES):
        rng = np.random.default_rng(number)
        pairs = pairs_of(source)
        others = range(0, len(pairs), len(pairs) // 12) if source in OTHERS else range(len(pairs))
        free = [place for place in range(len(pairs)) if source not in OTHERS or place not in others]
        chosen = rng.permutation(free)[: int(rng.integers(5, 9))]
        yield source, [pairs[place] for place in chosen], [pairs[place] for place in others], rng


@pytest.mark.skipif(not (DATA / "msrs_unlabelled").is_dir(), reason=f"the real pairs are absent: {DATA}")
def test_known_maps_are_found_or_refused():
    print("\nscene                  published corrected expected  score   peak  halves")
    offsets: dict[str, np.ndarray] = {}
    wrong, good = [], 0
    for source, pairs, others, rng in scenes():
        truth = random_map(pairs[0][0].shape, rng)
        found = register(*warped(pairs, truth))
        if source not in offsets:
            offsets[source] = register(*map(list, zip(*others, strict=True))).matrix
        truths = [truth, offsets[source] @ truth]
        errors = [geometry.distance(one, found.matrix, *found.sizes) for one in truths]
        print(line(f"{source}, {len(pairs)} pairs", found, errors), flush=True)
        if verdict(found) == "taken":
            right = errors[1] <= GOAL * max(found.sizes[1]) / 640
            good += right
            wrong += [] if right else [source]
    assert len(wrong) <= len(SCENES) // 10, wrong
    assert good >= 0.8 * len(SCENES)


@pytest.mark.skipif(not (DATA / "msrs_unlabelled").is_dir(), reason=f"the real pairs are absent: {DATA}")
@pytest.mark.parametrize("source", ["MFNet", "MSRS"])
def test_thermal_images_of_other_places_are_refused(source):
    rng = np.random.default_rng(7)
    pairs = pairs_of(source)
    order = rng.permutation(len(pairs))[:12]
    mixed = [(pairs[one][0], pairs[other][1]) for one, other in zip(order[:6], order[6:], strict=True)]
    found = register(*warped(mixed, random_map(mixed[0][0].shape, rng)))
    print(line(f"{source}, mixed up", found, []))
    assert verdict(found) == "refused"
