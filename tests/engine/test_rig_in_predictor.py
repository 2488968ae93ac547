"""``mdg.load`` and ``infer_mm`` with a rig: thermal arrives warped, and a rig that is missing is said at once."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

import mdg
from mdg.data.registration.rig_file import write_rig
from mdg.engine.predict import predict
from mdg.errors import UserError
from mdg.options.rig import Rig

SIZE = (40, 48)


def test_a_network_sees_what_the_rig_brings_together(tiny_run, tiny_yaml, tmp_path):
    run = tiny_run("run", "train.epochs=1")
    matrix = [[1, 0, 4], [0, 1, 2], [0, 0, 1]]
    rig = tmp_path / "rig.yaml"
    write_rig(rig, Rig.model_validate({"thermal_to_rgb": matrix, "thermal_size": SIZE, "rgb_size": SIZE}))
    rng = np.random.default_rng(0)
    rgb, thermal = rng.integers(0, 256, (*SIZE, 3), np.uint8), rng.integers(1, 256, SIZE, np.uint8)
    moved = np.zeros_like(thermal)
    moved[2:, 4:] = thermal[:-2, :-4]
    with_rig = mdg.load(run.best, tiny_yaml, device="cpu", align=rig)(rgb, thermal)
    plain = mdg.load(run.best, tiny_yaml, device="cpu")(rgb, moved)
    np.testing.assert_array_equal(with_rig.thermal, moved)
    np.testing.assert_array_equal(with_rig.rgb, rgb)
    np.testing.assert_array_equal(with_rig.mask, plain.mask)

    for name, image in (("rgb", rgb[..., ::-1]), ("thermal", thermal)):
        cv2.imwrite(str(tmp_path / f"{name}.png"), image)
    align = f"{{mode: rig, file: {rig}}}"
    files = (tmp_path / "rgb.png", tmp_path / "thermal.png")
    masks = predict(*files, run.best, tiny_yaml, out_dir=tmp_path / "masks", align=align)
    np.testing.assert_array_equal(cv2.imread(str(masks[0]), cv2.IMREAD_UNCHANGED), plain.mask)
    with pytest.raises(UserError, match=r"gone\.yaml: No such file"):
        mdg.load(run.best, tiny_yaml, device="cpu", align="gone.yaml")
