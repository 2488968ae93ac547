"""What is done with a student of tri-training on Cityscapes, which has no thermal camera, by the commands: its data are
checked, it is scored, asked about photographs, and written for other runtimes."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import yaml
from layouts import write_cityscapes

from mdg.commands import check_data, export_network, infer, val
from mdg.data import build_dataset
from mdg.engine import train
from tests.engine.conftest import TINY

timm = pytest.importorskip("timm", reason="timm is not installed")
DECODER = {"type": "DualFrequencyDecoder", "level_widths": [8, 8, 8, 8], "embed_dim": 8}


def network(**backbone) -> dict:
    return {"type": "SingleStream", "input": "rgb", "backbone": backbone, "decoder": DECODER}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two steps on six images of 64x128, of which two have a label."""
    folder = tmp_path_factory.mktemp("run")
    root = write_cityscapes(folder / "cityscapes", train=6, val=2)
    method = {
        "type": "ArchitectureTriTraining",
        "cnn_view": network(type="Timm", name="resnet10t"),
        "vit_view": network(type="PlainViT", name="vit_tiny_patch16_224", blocks=[1, 2, 3, 4], width=8),
    }
    settings = {
        **TINY,
        "custom_imports": [],
        "data": {"type": "Cityscapes", "root": str(root), "labelled": {"fraction": "1/3"}},
        "pipeline": {"train": [{"type": "RandomResizedCrop", "size": [64, 64], "scale": [1.0, 2.0]}], "workers": 0},
        "model": network(type="Timm", name="tiny_vit_5m_224", global_last_block=True),
        "train": {"epochs": 1, "batch_size": 2, "method": method},
        "eval": {"selection": "last", "mode": "slide", "window": [64, 64], "stride": [43, 43]},
        "exp_dir": str(folder),
    }
    (folder / "small.yaml").write_text(yaml.safe_dump(settings))
    return train(folder / "small.yaml", run_dir=folder / "run")


def call(command, *arguments: object) -> None:
    command.main([str(argument) for argument in arguments])


def test_its_data_are_checked(run, tmp_path, capsys):
    call(check_data, run.config, "--json", tmp_path / "data.json", "--workers", 1)
    told = [line for line in capsys.readouterr().out.splitlines() if "thermal" in line]
    assert len(told) == 1 and "nothing is said of thermal" in told[0]
    assert json.loads((tmp_path / "data.json").read_text())


@pytest.mark.parametrize("checkpoint", ["best", "last"])
def test_it_is_scored(run, tmp_path, checkpoint):
    file = tmp_path / "score.json"
    call(val, "--checkpoint", run.path / "checkpoints" / f"{checkpoint}.pt", "--json", file, "--out", tmp_path / "out")
    protocol = json.loads(file.read_text())["protocol"]
    assert protocol["mode"] == "sliding window 64x64, stride 43x43, RGB alone" and protocol["images"] == 2
    assert "1/3 (seed 0) with labels (2 frames" in protocol["trained_on"] and "(4 frames" in protocol["trained_on"]


def test_it_is_asked_about_photographs(run, tmp_path):
    photos = build_dataset(yaml.safe_load(run.config.read_text())["data"], "test").sources(0)[0].parent
    call(infer, "--rgb", photos, "--thermal", "none", "--checkpoint", run.best, "--out", tmp_path, "--save", "mask")
    masks = [cv2.imread(str(file), cv2.IMREAD_UNCHANGED) for file in sorted(tmp_path.rglob("*_mask.png"))]
    assert masks and all(mask.shape == (64, 128) and mask.max() < 19 for mask in masks)


def test_it_is_written_for_other_runtimes(run, tmp_path):
    """The file gives the network's own mask, whatever it is shown as thermal, or without being shown any."""
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    call(export_network, "--checkpoint", run.best, "--out", tmp_path / "student.onnx", "--size", "64x64")
    session = onnxruntime.InferenceSession(str(tmp_path / "student.onnx"), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (1, 3, 64, 64)).astype(np.float32)
    given = {"rgb": rgb, "thermal": rng.integers(0, 256, (1, 1, 64, 64)).astype(np.float32)}
    names = {entry.name for entry in session.get_inputs()}
    assert "rgb" in names
    masks = []
    for thermal in (given["thermal"], 0 * given["thermal"]):
        shown = {name: value for name, value in {**given, "thermal": thermal}.items() if name in names}
        masks.append(session.run(["mask"], shown)[0])
    assert masks[0].shape == (1, 64, 64) and np.array_equal(*masks)
