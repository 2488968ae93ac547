"""Training that loses cameras, and predictions of a network that has one: in Python and on the command line."""

from __future__ import annotations

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
import yaml

import mdg
from mdg.commands import infer, val
from mdg.data.reading.video import VideoFile
from mdg.engine import train
from mdg.errors import ConfigError, DataError
from tests.engine.conftest import TINY

MODEL = {
    "type": "MDG",
    "rgb_backbone": "b0",
    "thermal_backbone": "b0",
    "interaction": None,
    "fusion": {"type": "AddFusion"},
    "decoder": {"type": "SegFormerDecoder", "embed_dim": 16},
    "auxiliary_heads": False,
    "stand_ins": "learned",
}


@pytest.fixture(scope="module")
def best(tmp_path_factory):
    """The checkpoint of two steps in which images lose cameras."""
    folder = tmp_path_factory.mktemp("one")
    settings = {**TINY, "model": MODEL, "custom_imports": [], "exp_dir": str(folder)}
    settings["train"] = {"epochs": 1, "batch_size": 4, "modality_dropout": {"rgb": 0.3, "thermal": 0.3}}
    (folder / "one.yaml").write_text(yaml.safe_dump(settings))
    return train(folder / "one.yaml", run_dir=folder / "run").best


@pytest.fixture
def photo(tmp_path):
    """An RGB file and a thermal one of the same size."""
    rng = np.random.default_rng(0)
    cv2.imwrite(str(tmp_path / "photo.png"), rng.integers(0, 256, (40, 48, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "heat.png"), rng.integers(0, 256, (40, 48), np.uint8))
    return tmp_path / "photo.png"


def test_a_photograph_or_a_thermal_image_alone(best, photo):
    heat = photo.with_name("heat.png")
    by_rgb = mdg.load(best, device="cpu", cameras="rgb")
    by_thermal = mdg.load(best, device="cpu", cameras="thermal")
    both = mdg.load(best, device="cpu")(photo, heat)
    one, other = by_rgb(photo), by_thermal(thermal=heat)
    assert not one.thermal.any() and not other.rgb.any() and one.rgb.any() and other.thermal.any()
    assert not np.array_equal(one.probabilities, both.probabilities)
    alike = replace(other, mask=np.zeros_like(other.mask))  # nothing to paint
    assert np.array_equal(alike.overlay(), np.repeat(other.thermal[..., None], 3, axis=2))
    assert np.array_equal(by_rgb(photo, heat).probabilities, one.probabilities)  # what is left out is not looked at
    assert [p.mask.shape for p in by_thermal(thermal=[heat, heat])] == [(40, 48)] * 2
    with pytest.raises(DataError, match=r"thermal\[0\]: got none, expected an image \(eval.cameras: thermal\)"):
        by_thermal(photo)
    with pytest.raises(DataError, match=r"rgb\[0\]: got none.*eval.cameras=thermal leaves RGB out"):
        mdg.load(best, device="cpu")(thermal=heat)


@pytest.mark.parametrize("given", [["photo.png", "none"], ["none", "heat.png"]])
def test_the_command_takes_none_for_a_camera(given, best, photo, tmp_path):
    paths = [name if name == "none" else photo.with_name(name) for name in given]
    arguments = ["--rgb", paths[0], "--thermal", paths[1], "--checkpoint", best, "--out", tmp_path / "out"]
    infer.main([str(argument) for argument in arguments])
    seen = next(name for name in given if name != "none")
    mask = cv2.imread(str(tmp_path / "out" / seen.replace(".png", "_mask.png")), cv2.IMREAD_UNCHANGED)
    assert mask.shape == (40, 48) and mask.max() < 9


@pytest.mark.parametrize("absent", ["rgb", "thermal"])
def test_a_video_of_one_camera(absent, best, tmp_path):
    with VideoFile(tmp_path / "seen.mp4", 10, (64, 64)) as video:
        for level in (40, 90, 140):
            video.write(np.full((64, 64, 3), level, np.uint8))
    seen = "thermal" if absent == "rgb" else "rgb"
    arguments = [f"--{seen}", tmp_path / "seen.mp4", f"--{absent}", "none", "--checkpoint", best, "--save", "areas"]
    infer.main([*map(str, arguments), "--out", str(tmp_path / "out")])
    areas = (tmp_path / "out" / "areas.jsonl").read_text().splitlines()
    assert len(areas) == 3


def test_what_has_no_camera_at_all_is_refused(best, photo, capsys):
    for arguments, words in (
        (["--rgb", "none", "--thermal", "none"], "a video of one camera"),
        (["--rgb", "none"], "expected --thermal"),
    ):
        with pytest.raises(SystemExit) as stop:
            infer.main([*arguments, "--checkpoint", str(best)])
        assert stop.value.code == 2 and words in capsys.readouterr().err


def test_a_score_says_which_camera_it_saw(best, tmp_path, capsys):
    for cameras in ("rgb", "both"):
        file = tmp_path / f"{cameras}.json"
        arguments = ["--checkpoint", best, "--split", "val", "--json", file, "--opts", f"eval.cameras={cameras}"]
        val.main([str(argument) for argument in arguments])
    texts = {cameras: json.loads((tmp_path / f"{cameras}.json").read_text()) for cameras in ("rgb", "both")}
    modes = {cameras: result["protocol"]["mode"] for cameras, result in texts.items()}
    assert modes == {"rgb": "whole image, RGB alone", "both": "whole image"}
    assert capsys.readouterr().out.count("whole image, RGB alone") == 1


def test_a_network_that_needs_both_says_so(tiny_yaml, tiny_run):
    run = tiny_run("both", "train.epochs=1")
    with pytest.raises(ConfigError, match="eval.cameras: rgb: thermal is absent, and this network needs it"):
        mdg.load(run.best, tiny_yaml, cameras="rgb")
    with pytest.raises(ConfigError, match="nothing to stand in"):
        train(tiny_yaml, ["train.modality_dropout={rgb: 0.1}"], run_dir=run.path.with_name("lost"))
