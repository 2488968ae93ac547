"""Samples are what their titles say, the same every time, and no scenes of any training."""

from __future__ import annotations

import numpy as np
import pytest
import yaml

from mdg.config import load_config
from mdg.data.datasets.mfnet import CLASSES
from mdg.data.synthetic import render_scene
from mdg.metrics.visibility import visibility
from mdg.options.datasets import RANGES
from mdg.web.samples import make_samples, size_of
from tests.engine.conftest import TINY


@pytest.fixture
def config(tmp_path):
    def make(data: dict, **changes: object):
        (tmp_path / "c.yaml").write_text(yaml.safe_dump({**TINY, "data": data, **changes}))
        return load_config(tmp_path / "c.yaml")

    return make


@pytest.mark.parametrize(("size", "seed"), [((40, 48), 0), ((96, 128), 7), ((120, 160), 3)])
def test_samples_are_what_they_say(config, size, seed):
    made = config({"type": "Synthetic", "height": size[0], "width": size[1], "seed": seed})
    samples = make_samples(made)
    assert [sample.title for sample in samples[:2]] == ["Day", "Night"] and len(samples) == 4
    assert [sample.scene % 2 for sample in samples[:2]] == [0, 1]
    assert len({sample.scene for sample in samples}) == 4
    first, count = RANGES["test"]
    for sample, kind in zip(samples, (None, None, 1, 0), strict=True):
        assert sample.rgb.shape == (*size, 3) and sample.thermal.shape == size and first <= sample.scene < first + count
        scene = render_scene(seed, sample.scene, *size)
        assert np.array_equal(scene.rgb, sample.rgb) and np.array_equal(scene.thermal, sample.thermal)
        if kind is not None:
            camera, name = ("RGB", "Thermal")[kind], sample.title.rpartition(" ")[2]
            assert sample.title.startswith(f"{camera} alone shows a ")
            alone = visibility(scene.rgb, scene.thermal, scene.label) == kind
            assert (alone & (scene.label == CLASSES.index(name))).mean() >= 0.01


def test_the_same_samples_every_time(config):
    made = config({"type": "Synthetic", "height": 40, "width": 48})
    one, other = make_samples(made), make_samples(made)
    assert all(np.array_equal(a.rgb, b.rgb) and a.scene == b.scene for a, b in zip(one, other, strict=True))


def test_the_size_is_that_of_the_network(config):
    assert size_of(config({"type": "Synthetic", "height": 40, "width": 48})) == (40, 48)
    mfnet = {"type": "MFNet", "root": "data/mfnet"}
    assert size_of(config(mfnet)) == (480, 640)
    assert size_of(config(mfnet, pipeline={"eval_size": [64, 80]})) == (64, 80)
    crop = {"train": [{"type": "RandomResizedCrop", "size": [48, 64]}]}
    assert size_of(config(mfnet, pipeline=crop)) == (48, 64)
