from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mdg.errors import NonFiniteError, WeightsError
from mdg.models import build_model
from mdg.models.weights import load_encoder
from mdg.registry import BACKBONES

STEM = "patch_embed1.proj.weight"
SMALL = {"type": "MDG", "rgb_backbone": "b0", "thermal_backbone": "b0"}


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def b0() -> nn.Module:
    """A new encoder of RGB."""
    return BACKBONES.create("b0", in_channels=3)


@pytest.fixture
def tensors() -> dict[str, Tensor]:
    """Random tensors in the layout of the published `mit_b0.pth`, with its classifier."""
    generator = torch.Generator().manual_seed(0)
    state = b0().state_dict()
    tensors = {name: torch.randn(value.shape, generator=generator) for name, value in state.items()}
    return {**tensors, "head.weight": torch.zeros(1000, 256), "head.bias": torch.zeros(1000)}


@pytest.fixture
def save(tmp_path):
    def write(content) -> Path:
        torch.save(content, tmp_path / "mit_b0.pth")
        return tmp_path / "mit_b0.pth"

    return write


@pytest.fixture
def log(caplog, monkeypatch):
    """Log lines of mdg, whatever an earlier test did to its loggers."""
    monkeypatch.setattr(logging.getLogger("mdg"), "propagate", True)
    caplog.set_level(logging.INFO, "mdg")
    return caplog


def error_of(backbone, file, stream: str = "rgb") -> str:
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    with pytest.raises(WeightsError) as caught:
        load_encoder(backbone, file, stream)
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())
    return str(caught.value)


def test_both_streams_load_and_report(tensors, save, log):
    file = save(tensors)
    model = build_model({**SMALL, "pretrained": {"rgb": str(file), "thermal": str(file)}}, 3)
    for stream, backbone in (("rgb", model.rgb_backbone), ("thermal", model.thermal_backbone)):
        own = backbone.state_dict()
        for name, value in own.items():
            expected = tensors[name]
            if stream == "thermal" and name == STEM:
                assert value.shape == (32, 1, 7, 7)
                expected = expected[:, 0:1] + expected[:, 1:2] + expected[:, 2:3]
            torch.testing.assert_close(value, expected, rtol=0, atol=1e-6)
        counts = f"{len(own)} tensors matched, 0 missing, 0 unexpected"
        line = f"{stream} encoder from {file} (layout of SegFormer's authors): {counts}"
        assert sum(line in message for message in log.messages) == 1


@pytest.mark.parametrize("stream", ["rgb", "thermal"])
def test_a_null_stream_starts_from_scratch(tensors, save, stream):
    other = {"rgb": "thermal", "thermal": "rgb"}[stream]
    model = build_model({**SMALL, "pretrained": {other: str(save(tensors))}}, 3)
    name = "block1.0.attn.q.weight"
    assert not torch.equal(getattr(model, f"{stream}_backbone").get_parameter(name), tensors[name])
    assert torch.equal(getattr(model, f"{other}_backbone").get_parameter(name), tensors[name])


def test_files_are_not_opened_where_a_checkpoint_follows():
    options = {**SMALL, "pretrained": {"rgb": "nowhere.pth", "thermal": "nowhere.pth"}}
    build_model(options, 3, load_pretrained=False)
    with pytest.raises(WeightsError):
        build_model(options, 3)


def test_state_dict_inside_a_checkpoint(tensors, save):
    report = load_encoder(b0(), save({"state_dict": tensors, "epoch": 3}), "rgb")
    assert not report.missing and not report.unexpected and STEM in report.matched


def test_one_channel_file_into_the_thermal_stem(tensors, save):
    tensors[STEM] = tensors[STEM][:, :1]
    backbone = BACKBONES.create("b0", in_channels=1)
    load_encoder(backbone, save(tensors), "thermal")
    assert torch.equal(backbone.get_parameter(STEM), tensors[STEM])


def test_extra_tensors_are_reported(tensors, save, log):
    report = load_encoder(b0(), save({**tensors, "block9.weight": torch.zeros(1)}), "rgb")
    assert report.unexpected == ["block9.weight"] and not report.missing
    warnings = [record for record in log.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1 and "block9.weight" in warnings[0].getMessage()


def test_a_missing_tensor_is_an_error(tensors, save):
    del tensors["block2.0.attn.sr.weight"]
    message = error_of(b0(), save(tensors))
    assert "mit_b0.pth" in message and "block2.0.attn.sr.weight" in message and "1 missing" in message


@pytest.mark.parametrize("prefix", ["backbone.", "module.", "encoder.", "rgb_backbone."])
def test_an_encoder_is_found_behind_a_prefix(tensors, save, prefix):
    content = {f"{prefix}{name}": value for name, value in tensors.items()}
    report = load_encoder(b0(), save({**content, "decode_head.conv.weight": torch.zeros(1)}), "rgb")
    assert not report.missing and not report.unexpected


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("rgb_backbone.blocks.0.weight", "a whole network of mdg"),
        ("layer1.0.conv1.weight", "ResNet"),
        ("stages.0.blocks.0.weight", "a network of timm"),
        ("blocks.0.attn.qkv.weight", "a network of timm"),
        ("something.weight", "begin with something.weight"),
    ],
)
def test_other_networks_are_named(save, name, words):
    message = error_of(b0(), save({name: torch.zeros(1)}))
    assert (
        words in message and "no encoder found in it" in message and "Hugging Face" in message and "\n" not in message
    )


def test_a_checkpoint_of_mdg_is_named(save):
    message = error_of(b0(), save({"format": 1, "model": {}, "config": "seed: 1"}))
    assert "a checkpoint of mdg" in message and "train.init_from" in message and "--resume" in message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "an empty file"),
        (b"\n<!DOCTYPE html><html>", "a web page"),
        (b"<HTML><body>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab", "Git LFS"),
        (
            (500).to_bytes(8, "little") + b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
            "not a readable .safeten",
        ),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"\x1f\x8b\x08" + bytes(50), "unpack it first"),
        (b"PK\x03\x04" + bytes(200), "its end is missing"),
        (b"\x80\x02}q\x00.", "cut off, damaged, or holds more"),
        (bytes(range(256)), "cut off, damaged, or holds more"),
    ],
)
def test_files_that_are_no_weights_are_said_to_be_what_they_are(tmp_path, content, words):
    file = tmp_path / "mit_b0.pth"
    file.write_bytes(content)
    message = error_of(b0(), file)
    assert message.startswith(str(file)) and words in message and "\n" not in message
    assert "torch." not in message and "weights_only" not in message  # none of PyTorch's own advice


def test_an_archive_of_something_else_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", a=np.zeros(3))
    torch.jit.script(torch.nn.ReLU()).save(str(tmp_path / "script.pt"))
    for name, words in (("a.npz", "an archive of other files (a.npy)"), ("script.pt", "TorchScript")):
        assert words in error_of(b0(), tmp_path / name)


def test_the_kind_of_a_refused_object_is_named(tensors, save, tmp_path):
    message = error_of(b0(), save({**tensors, "extra": Bomb(tmp_path / "marker")}))
    assert "an object of posix.mkdir" in message and "state_dict()" in message


def test_the_file_format_of_before_2020_is_read(tensors, tmp_path):
    torch.save(tensors, tmp_path / "mit_b0.pth", _use_new_zipfile_serialization=False)
    assert not load_encoder(b0(), tmp_path / "mit_b0.pth", "rgb").missing


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(tensors, save, value):
    tensors["block2.0.attn.q.bias"][3] = value
    with pytest.raises(NonFiniteError, match=r"mit_b0\.pth: block2\.0\.attn\.q\.bias holds NaN or infinity"):
        load_encoder(b0(), save(tensors), "rgb")


def test_whole_numbers_are_no_weights(tensors, save):
    tensors["block2.0.attn.q.bias"] = torch.ones(64, dtype=torch.int64)
    assert "q.bias holds whole numbers" in error_of(b0(), save(tensors))


def test_a_flipped_bit_in_a_published_file_is_noticed(tensors, save):
    file = save(tensors)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert "damaged: its member" in error_of(b0(), file)


def test_a_path_may_begin_with_the_home_folder(tensors, save, monkeypatch):
    monkeypatch.setenv("HOME", str(save(tensors).parent))
    assert not load_encoder(b0(), "~/mit_b0.pth", "rgb").missing


@pytest.mark.parametrize(
    ("own", "words"), [("b1", ["(32, 3, 7, 7), needs (64, 3, 7, 7)", "variant"]), ("b2", ["block1.2"])]
)
def test_file_of_another_variant_is_an_error(tensors, save, own, words):
    message = error_of(BACKBONES.create(own, in_channels=3), save(tensors), "rgb")
    assert "mit_b0.pth" in message and "rgb" in message and all(word in message for word in words)


def test_a_missing_file_says_which_file_from_where(tmp_path):
    message = error_of(b0(), tmp_path / "mit_b0.pth", "thermal")
    for words in (
        str(tmp_path / "mit_b0.pth"),
        "model.pretrained.thermal",
        "fetch_weights.py mit_b0",
        "model.pretrained=null",
    ):
        assert words in message


def test_a_pickled_object_is_refused_without_running_it(tensors, save, tmp_path):
    marker = tmp_path / "marker"
    message = error_of(b0(), save({**tensors, "extra": Bomb(marker)}))
    assert "mit_b0.pth" in message and "refused" in message
    assert not marker.exists()


@pytest.mark.parametrize(
    "content", [[1, 2], {"epoch": 3}, {1: 2, "x": 3}, {"state_dict": {"a": 1}}, torch.zeros(3)], ids=str
)
def test_content_that_is_no_state_dict(save, content):
    assert "expected a state dict of tensors" in error_of(b0(), save(content))


@pytest.mark.parametrize("keep", [0, 100, 5000])
def test_a_truncated_file(tensors, save, keep):
    file = save(tensors)
    file.write_bytes(file.read_bytes()[:keep])
    assert "mit_b0.pth" in error_of(b0(), file)
