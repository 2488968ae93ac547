"""What ``mdg.load`` gives: one answer for every way to hand over a pair, alone, in a list and from several threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import mdg
from mdg.engine.export import export_weights
from mdg.engine.predict import predict
from mdg.engine.predictor import Predictor
from mdg.errors import ConfigError, DataError

CUSTOM = "custom_imports=[reliability.tiny]"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of the tiny network, and its configuration."""
    import yaml

    from mdg.engine import train
    from tests.engine.conftest import TINY

    folder = tmp_path_factory.mktemp("trained")
    (folder / "tiny.yaml").write_text(yaml.safe_dump({**TINY, "exp_dir": str(folder / "exp")}))
    return train(folder / "tiny.yaml", ["train.epochs=1"], run_dir=folder / "run"), folder / "tiny.yaml"


@pytest.fixture(scope="module")
def predictor(trained) -> Predictor:
    run, config = trained
    return mdg.load(run.best, config, device="cpu", thermal_scaling={"mode": "minmax"}, opts=["threads=1"])


def pair(seed: int = 0, size: tuple[int, int] = (40, 48)) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (*size, 3), np.uint8), rng.integers(0, 256, size, np.uint8)


def same(one, other) -> bool:
    return np.array_equal(one.mask, other.mask) and np.array_equal(one.probabilities, other.probabilities)


def test_an_answer(predictor):
    rgb, thermal = pair()
    result = predictor(rgb, thermal)
    assert result.mask.shape == (40, 48) and result.mask.dtype == np.uint8 and result.mask.max() < 9
    assert result.probabilities.shape == (9, 40, 48) and result.probabilities.dtype == np.float32
    np.testing.assert_allclose(result.probabilities.sum(0), 1, atol=1e-5)
    assert np.array_equal(result.probabilities.argmax(0), result.mask)
    assert np.array_equal(result.rgb, rgb) and result.classes == predictor.classes and len(result.classes) == 9
    areas = result.areas()
    assert sum(areas.values()) == pytest.approx(1) and list(areas) == list(predictor.classes)
    assert areas[result.classes[int(result.mask[0, 0])]] > 0


def test_every_way_to_hand_over_a_pair(predictor, tmp_path):
    rgb, thermal = pair()
    expected = predictor(rgb, thermal)
    cv2.imwrite(str(tmp_path / "rgb.png"), rgb[..., ::-1])
    cv2.imwrite(str(tmp_path / "thermal.png"), thermal)
    cv2.imwrite(str(tmp_path / "both.png"), np.dstack([rgb[..., ::-1], thermal]))
    ways = {
        "paths": (tmp_path / "rgb.png", str(tmp_path / "thermal.png")),
        "PIL": (Image.fromarray(rgb), Image.fromarray(thermal)),
        "opaque PIL": (Image.fromarray(rgb).convert("RGBA"), Image.fromarray(thermal).convert("RGB")),
        "tensors": (torch.from_numpy(rgb).permute(2, 0, 1), torch.from_numpy(thermal)[None]),
        "a batch of one": (torch.from_numpy(rgb).permute(2, 0, 1)[None], torch.from_numpy(thermal)[None, None]),
        "fractions": (rgb.astype(np.float32) / 255, thermal),
        "three equal channels": (rgb, np.dstack([thermal] * 3)),
        "whole numbers": (rgb, thermal.astype(np.int64)),
        "16 bits": (rgb, thermal.astype(np.uint16) * 100 + 7000),
        "degrees": (rgb, thermal.astype(np.float64) / 10 - 5),
        "turned memory": (np.asfortranarray(rgb), np.asfortranarray(thermal)),
        "four channels": (np.dstack([rgb, thermal]), None),
        "four channels in a file": (tmp_path / "both.png", None),
    }
    for name, way in ways.items():
        # Stretched to the extremes, counts and degrees are the levels that they were made from.
        assert same(predictor(*way), expected), name


def test_an_image_is_turned_as_it_says(predictor, tmp_path):
    rgb, thermal = pair()
    picture = Image.fromarray(np.rot90(rgb).copy())
    exif = picture.getexif()
    exif[0x0112] = 6  # turn it a quarter to the right
    picture.save(tmp_path / "turned.png", exif=exif)
    expected = predictor(rgb, thermal)
    assert same(predictor(Image.open(tmp_path / "turned.png"), thermal), expected)
    assert same(predictor(tmp_path / "turned.png", thermal), expected)


def test_lists_go_through_in_batches(predictor):
    pairs = [pair(0), pair(1), pair(2), pair(3, (32, 64)), pair(4)]
    alone = [predictor(*one) for one in pairs]
    together = predictor(*zip(*pairs, strict=True), batch_size=2)
    streamed = list(predictor.stream(iter(pairs), batch_size=3))
    for one, other, third in zip(alone, together, streamed, strict=True):
        for found in (other, third):
            assert np.array_equal(one.mask, found.mask)
            np.testing.assert_allclose(one.probabilities, found.probabilities, atol=1e-5)
    assert predictor([], []) == []


def test_a_stream_answers_before_its_end(predictor):
    def pairs():
        yield pair(0)
        yield pair(1)
        raise RuntimeError("the camera is gone")

    stream = predictor.stream(pairs())
    assert same(next(stream), predictor(*pair(0)))
    with pytest.raises(RuntimeError, match="the camera is gone"):
        next(stream)


def test_threads_take_turns(predictor):
    pairs = [pair(seed) for seed in range(6)]
    expected = [predictor(*one) for one in pairs]
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda one: predictor(*one), pairs * 3))
    assert all(same(one, other) for one, other in zip(found, expected * 3, strict=True))


def test_what_is_saved_is_what_the_tool_writes(trained, predictor, tmp_path):
    run, config = trained
    rgb, thermal = pair()
    for part, image in (("rgb", rgb[..., ::-1]), ("thermal", thermal)):
        (tmp_path / part).mkdir()
        cv2.imwrite(str(tmp_path / part / "a.png"), image)
    choice = "{mode: minmax}"
    predict(tmp_path / "rgb", tmp_path / "thermal", run.best, config, out_dir=tmp_path / "o", thermal_scaling=choice)
    files = predictor(rgb, thermal).save(tmp_path / "saved", "a")
    assert [file.name for file in files] == ["a_mask.png", "a_overlay.png"]
    for file in files:
        assert file.read_bytes() == (tmp_path / "o" / file.name).read_bytes()


def test_pictures(predictor):
    result = predictor(*pair())
    assert np.array_equal(result.coloured(), result.palette[result.mask])
    background = result.mask == 0
    assert background.any() and np.array_equal(result.overlay()[background], result.rgb[background])
    with_legend = result.overlay(legend=True)
    assert with_legend.shape[0] > 40 and with_legend.shape[1] == 48


def test_several_views_are_probabilities_too(trained):
    run, config = trained
    predictor = mdg.load(run.best, config, opts=["eval.flip=true", "threads=1"], device="cpu")
    result = predictor(*pair())
    np.testing.assert_allclose(result.probabilities.sum(0), 1, atol=1e-5)
    assert np.array_equal(result.probabilities.argmax(0), result.mask)


def test_exported_weights_answer_alike(trained, tmp_path):
    run, config = trained
    done = export_weights(run.best, tmp_path)
    one, other = (mdg.load(file, config, device="cpu", opts=["threads=1"]) for file in (run.best, done.file))
    assert same(one(*pair()), other(*pair()))


def test_divergence_of_a_network_that_measures_it(tmp_path):
    from mdg.engine.train import train

    opts = [
        "data={type: Synthetic, height: 64, width: 96, train_images: 2, val_images: 1, test_images: 1}",
        "train.epochs=1", "train.batch_size=2", "threads=1", "device=cpu", "pipeline.workers=0", "eval.pictures=0",
        "log.trackers=[]",
    ]  # fmt: skip
    run = train("configs/demo.yaml", opts, run_dir=tmp_path / "run")
    result = mdg.load(run.best, device="cpu", opts=["threads=1"])(*pair(0, (64, 96)))
    assert [stage.shape for stage in result.divergence] == [(16, 24), (8, 12), (4, 6), (2, 3)]
    assert all(stage.dtype == np.float32 and 0 <= stage.min() <= stage.max() <= 2.001 for stage in result.divergence)


RGB, THERMAL = pair()
BAD = {
    "neither": (("x", 3), "expected a path|no such|cannot be read"),
    "number": ((RGB, 3), r"thermal\[0\]: got int, expected a path, a numpy array, a tensor or a PIL image"),
    "grey": ((THERMAL, THERMAL), "got a grey image .*, expected .*; grey_rgb='repeat' repeats it"),
    "counts as colours": ((RGB.astype(np.uint16), THERMAL), "got values of type uint16, expected uint8, or floating"),
    "wild fractions": ((RGB.astype(np.float32), THERMAL), r"got floating-point values 0\.\.255, expected 0\.\.1"),
    "coloured thermal": ((RGB, RGB), "got a colour image, expected a thermal image"),
    "NaN": ((RGB, np.full((40, 48), np.nan)), "values that are not finite"),
    "truth values": ((RGB, THERMAL > 9), "got values of type bool"),
    "sizes": ((RGB, THERMAL[:20]), r"sizes \(height x width\) differ: rgb\[0\] is 40x48, thermal\[0\] is 20x48"),
    "no thermal": ((RGB, None), r"got shape \(40, 48, 3\), expected \[H, W, 4\]"),
    "a list of one": (([RGB], THERMAL), "got 1 RGB images in a list, and ndarray as thermal"),
    "five channels": ((np.zeros((40, 48, 5), np.uint8), THERMAL), "got 5 channels, expected 3"),
    "nothing": ((np.zeros((0, 48, 3), np.uint8), THERMAL), r"got shape \(0, 48, 3\)"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_images(predictor, name):
    images, message = BAD[name]
    with pytest.raises(DataError, match=message):
        predictor(*images)


def test_counts_need_a_scaling(trained):
    run, config = trained
    plain = mdg.load(run.best, config, device="cpu", opts=["threads=1"])
    with pytest.raises(DataError, match=r"thermal\[0\]: got uint16 values .* Set thermal_scaling='\{mode: fixed"):
        plain(RGB, THERMAL.astype(np.uint16))
    with pytest.raises(ConfigError, match="^thermal_scaling: mode: got 'nonsense'"):
        mdg.load(run.best, config, thermal_scaling="nonsense")


def test_windows_see_no_whole_image_unless_divergence_is_asked_for(trained, monkeypatch):
    """What tiles are for: a large image never goes through the network as a whole."""
    run, config = trained
    opts = ["eval.mode=slide", "eval.window=[32, 32]", "threads=1"]
    predictor, seen = mdg.load(run.best, config, device="cpu", opts=opts), []
    forward = predictor.inference.forward
    monkeypatch.setattr(predictor.inference, "forward", lambda *x: seen.append(tuple(x[0].shape[-2:])) or forward(*x))
    (masked,) = predictor.predict([pair()], divergence=False, probabilities=False)
    assert set(seen) == {(32, 32)} and masked.probabilities is None and masked.divergence == ()
    (whole,) = predictor.predict([pair()])
    assert (40, 48) in seen and np.array_equal(whole.mask, masked.mask)
