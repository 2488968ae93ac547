"""Corruptions as transforms of a configuration.

Shape suffixes: H, W are height and width in pixels, 3 the channels R, G, B.
"""

from __future__ import annotations

import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from mdg import load_config
from mdg.data import build_transforms
from mdg.data.base import Frame
from mdg.data.corruptions import CORRUPTIONS, Images
from mdg.data.synthetic import render_scene
from mdg.data.transforms.chain import apply_transforms, as_image, as_mask, to_array, to_sample, uniform
from mdg.errors import ConfigError
from mdg.options.transforms import CameraCorruptionOptions
from mdg.registry import TRANSFORMS

REPOSITORY = Path(__file__).resolve().parents[3]
NAMES = [name for name in CORRUPTIONS if name != "Frozen"]
EITHER = [name for name in NAMES if len(CORRUPTIONS[name].cameras) == 2]
EVERY = [(name, camera) for name in NAMES for camera in CORRUPTIONS[name].cameras]
PARTS = {"rgb": as_image, "thermal": as_image, "label": as_mask}
every = pytest.mark.parametrize(("name", "camera"), EVERY)


def frame() -> Frame:
    scene = render_scene(0, 4, 60, 80)
    return Frame(scene.rgb, scene.thermal, scene.label, "scene")


def options_of(name: str, camera: str, **options) -> dict:
    return {"type": name, **({"camera": camera} if name in EITHER else {}), **options}


def run(name: str, camera: str, seed: int = 0, **options) -> dict:
    torch.manual_seed(seed)
    return apply_transforms(to_sample(frame()), build_transforms([options_of(name, camera, p=1, **options)]))


def same(one: dict, two: dict) -> bool:
    return all(torch.equal(one[key], two[key]) for key in PARTS)


@every
def test_one_camera_changes_and_the_same_seed_gives_the_same(name, camera):
    before, after = to_sample(frame()), run(name, camera, 3, severity=[5, 5])
    other = "thermal" if camera == "rgb" else "rgb"
    assert not torch.equal(before[camera], after[camera])
    assert torch.equal(before[other], after[other]) and torch.equal(before["label"], after["label"])
    assert same(after, run(name, camera, 3, severity=[5, 5]))


@every
def test_it_is_the_corruption_at_a_severity_of_the_range(name, camera):
    after = run(name, camera, 3, severity=[2, 4])
    torch.manual_seed(3)
    torch.rand(1)  # whether
    severity = uniform(2, 4)
    generator = np.random.default_rng(int(torch.randint(2**62, (1,))))
    images = Images(frame().rgb_HW3, frame().thermal_HW, frame().label_HW)
    expected = CORRUPTIONS[name](camera).corrupt(images, severity, generator).of(camera)
    np.testing.assert_array_equal(to_array(after[camera]).squeeze(), expected)


@every
def test_neither_at_probability_nor_at_severity_zero(name, camera):
    assert same(run(name, camera, severity=[0, 0]), to_sample(frame()))
    (never,) = build_transforms([options_of(name, camera, p=0)])
    assert same(never(to_sample(frame())), to_sample(frame()))


@every
def test_the_sample_and_its_order_in_memory(name, camera):
    """A transform leaves its argument alone, and planes and threads give what interleaved pixels give."""
    (transform,) = build_transforms([options_of(name, camera, p=1, severity=[4, 4])])
    interleaved = to_sample(frame())
    planes = {key: kind(interleaved[key].contiguous()) for key, kind in PARTS.items()}
    before, results = cv2.getNumThreads(), []
    try:
        for sample, threads in ((interleaved, 0), (planes, 0), (interleaved, 3)):
            cv2.setNumThreads(threads)
            torch.manual_seed(5)
            results.append(transform(sample))
            assert same(sample, to_sample(frame()))
    finally:
        cv2.setNumThreads(before)
    assert same(results[0], results[1]) and same(results[0], results[2])


def test_severities_are_drawn_from_the_range():
    (offset,) = build_transforms([{"type": "ThermalOffset", "p": 1, "severity": [1, 3]}])
    grey = Frame(np.zeros((4, 4, 3), np.uint8), np.full((4, 4), 128, np.uint8), np.zeros((4, 4), np.uint8), "grey")
    torch.manual_seed(0)
    shifts = [abs(int(offset(to_sample(grey))["thermal"][0, 0, 0]) - 128) for _ in range(300)]
    assert 12 <= min(shifts) <= 13 and 37 <= max(shifts) <= 38 and len(set(shifts)) > 20


def test_default_probability_and_severity():
    (offset,) = build_transforms(["ThermalOffset"])
    torch.manual_seed(0)
    before = to_sample(frame())
    changed = np.mean([not torch.equal(offset(before)["thermal"], before["thermal"]) for _ in range(400)])
    assert abs(changed - 0.2) < 0.08  # four standard deviations
    assert offset.severity == (1, 3) and TRANSFORMS.parse("ReversedPolarity").severity == (5, 5)


def test_the_chain_goes_on_with_geometry():
    names = [options_of(name, CORRUPTIONS[name].cameras[-1], p=1) for name in NAMES]
    chain = build_transforms([{"type": "HorizontalFlip", "p": 1}, *names, {"type": "Resize", "size": [30, 40]}])
    assert apply_transforms(to_sample(frame()), chain)["thermal"].shape == (1, 30, 40)


def test_what_a_spawned_loader_is_given():
    transforms = build_transforms([options_of(name, CORRUPTIONS[name].cameras[-1]) for name in NAMES])
    again = pickle.loads(pickle.dumps(transforms))
    assert [vars(one) for one in again] == [vars(one) for one in transforms]
    assert [type(one).__name__ for one in again] == NAMES


def test_the_options_that_are_declared_are_those_of_the_kind():
    for name in NAMES:
        declared = TRANSFORMS.declared()[name]
        assert issubclass(declared, CameraCorruptionOptions) == (name in EITHER)
        assert TRANSFORMS.get(name).kind is CORRUPTIONS[name]


def test_in_a_configuration(tmp_path):
    text = (
        f"_base_: {REPOSITORY / 'configs' / 'demo.yaml'}\npipeline:\n  train:\n"
        "    - {type: ThermalDrift, p: 0.2}\n    - {type: MissingBlack, camera: thermal, severity: [5, 5]}\n"
    )
    (tmp_path / "run.yaml").write_text(text)
    drift, missing = load_config(tmp_path / "run.yaml").pipeline.train
    assert (drift.type, drift.p, drift.severity) == ("ThermalDrift", 0.2, (1, 3))
    assert (missing.camera, missing.severity) == ("thermal", (5, 5))
    assert [type(one).__name__ for one in build_transforms([drift, missing])] == ["ThermalDrift", "MissingBlack"]


@pytest.mark.parametrize(
    "options",
    [
        {"type": "Fog", "severity": [3, 2]},
        {"type": "Fog", "severity": [0, 6]},
        {"type": "Fog", "severity": [-1, 2]},
        {"type": "Fog", "severity": 3},
        {"type": "Fog", "camera": "rgb"},
        {"type": "JPEG", "camera": "both"},
        {"type": "ThermalDrift", "p": 2},
    ],
)
def test_options_are_checked(options):
    with pytest.raises(ValueError):
        TRANSFORMS.parse(options)


def test_a_frozen_camera_cannot_be_trained_with():
    with pytest.raises(ConfigError, match="unknown transform 'Frozen'"):
        TRANSFORMS.parse({"type": "Frozen"})
