"""Scores, masks and pictures come from one and the same inference, whatever the batches and processes."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from known_models import SLIDE, HeightIsClass, images, make, tiny

from mdg.config import load_config
from mdg.data.base import Frame, RGBTDataset, palette
from mdg.engine import evaluate
from mdg.engine.distributed import World
from mdg.engine.evaluation.evaluate import _shown
from mdg.engine.evaluation.evaluator import evaluate_model, make_eval_loader
from mdg.engine.evaluation.pictures import predict_panels
from mdg.engine.predictor import images_of
from mdg.models.segmentor import SegmentationOutput
from mdg.options.files import DatasetOptions


class Mixed(RGBTDataset):
    """Seeded noise in three sizes, one after the other and at random."""

    dataset_name = "Mixed"
    classes = ("a", "b", "c", "d", "e")
    palette_K3 = palette([(0, 0, 0), (9, 0, 0), (0, 9, 0), (0, 0, 9), (9, 9, 0)])

    def __init__(self, count: int):
        super().__init__(DatasetOptions(), role="val")
        self.names = [f"frame{index}" for index in range(count)]

    def read(self, index: int) -> Frame:
        random = np.random.default_rng(index)
        H, W = [(24, 30), (37, 33), (24, 31)][random.integers(3)]
        noise_HW5 = random.integers(0, 256, (H, W, 5), dtype=np.uint8)
        return Frame(noise_HW5[..., :3], noise_HW5[..., 3], noise_HW5[..., 4] % 5, self.names[index])


@pytest.mark.parametrize(
    "opts",
    [[], ["pipeline.eval_size=[32, 32]"], ["eval={mode: slide, window: [16, 16], scales: [0.5, 1], flip: true}"]],
)
def test_scores_do_not_depend_on_batches_or_processes(tiny_yaml, opts):
    dataset = Mixed(11)

    def count(batch_size: int, rank: int = 0, size: int = 1) -> np.ndarray:
        config = load_config(tiny_yaml, [*opts, f"eval.batch_size={batch_size}"])
        loader = make_eval_loader(config, dataset, World(rank=rank, size=size))
        return evaluate_model(tiny(), loader, dataset, config, World()).confusion.counts

    alone = count(1)
    assert alone.sum() == sum(dataset.read(index).label_HW.size for index in range(11))
    assert np.array_equal(count(4), alone) and np.array_equal(count(11), alone)
    assert np.array_equal(count(4, 0, 2) + count(4, 1, 2), alone)


def test_a_frame_is_scored_as_the_mode_says(tiny_yaml):
    dataset = Mixed(6)

    def predicted(*opts: str) -> list[int]:
        config = load_config(tiny_yaml, ["eval.batch_size=2", *opts])
        loader = make_eval_loader(config, dataset, World())
        counts = evaluate_model(HeightIsClass(), loader, dataset, config, World()).confusion.counts
        return [int(pixels > 0) for pixels in counts.sum(axis=0)[:2]]

    assert predicted() == [1, 0]
    assert predicted("eval={mode: slide, window: [16, 20]}") == [0, 1]


def test_progress_counts_images(tiny_yaml, capsys, monkeypatch):
    monkeypatch.setattr("mdg.utils.progress.EVERY", 0.0)
    config = load_config(tiny_yaml, ["eval.batch_size=2"])
    loader, done = make_eval_loader(config, Mixed(9), World()), 0
    with _shown(loader, World()) as report:
        for batch in loader:
            done += len(batch.indices)
            report(done)
    assert done == 9
    with _shown(loader, World(rank=1, size=2)) as report:
        assert report is None


@pytest.mark.parametrize(
    "options, eval_size, value",
    [({}, None, 0), ({}, (16, 48), 1), (SLIDE, None, 1), (SLIDE, (32, 48), 1), (SLIDE, (15, 48), 0)],
)
def test_masks_and_pictures_show_what_is_scored(options, eval_size, value):
    dataset, inference = Mixed(3), make(HeightIsClass(), **options)
    frame = dataset.read(0)
    pair = frame.rgb_HW3, frame.thermal_HW
    mask_HW = inference(*images_of([pair], eval_size), frame.label_HW.shape)[0].to(torch.uint8).numpy()
    assert mask_HW.dtype == np.uint8 and mask_HW.shape == frame.label_HW.shape and set(mask_HW.flat) == {value}
    (name, picture), *_ = predict_panels(inference, dataset, [0, 2], eval_size)
    H, W = eval_size or frame.label_HW.shape
    column = 3 * round(W * 160 / H) + 50  # in the fourth of RGB, thermal, prediction over RGB, prediction, label
    assert name == "frame0" and (picture[100, column] == dataset.palette_K3[value]).all()


@pytest.mark.parametrize("options", [{}, SLIDE, {"flip": True}, {"scales": [0.5]}, {**SLIDE, "scales": [1, 2]}])
def test_what_is_shown_is_what_is_scored(options):
    inference, pair = make(tiny(), **options), images(2, 37, 51)
    assert torch.equal(inference.explain(*pair, (40, 44))[0], inference(*pair, (40, 44)))


def test_pictures_keep_the_divergence_of_the_whole_image():
    seen = []

    def model(rgb, thermal):
        seen.append(rgb.shape[-2:])
        return SegmentationOutput(torch.zeros(len(rgb), 2, *rgb.shape[-2:]), divergence=(SimpleNamespace(of=rgb),))

    pair = images(1, 37, 51)
    prediction, output = make(model, **SLIDE).explain(*pair, (37, 51))
    assert torch.equal(output.divergence[0].of, pair[0]) and prediction.shape == (1, 37, 51)
    assert seen[0] == (37, 51) and set(seen[1:]) == {(16, 20)}
    seen.clear()
    make(model).explain(*pair, (37, 51))
    assert seen == [(37, 51)]  # once is enough where the whole image is what is scored


def test_a_mask_equals_the_prediction_of_the_evaluation():
    dataset, inference = Mixed(4), make(tiny(), scales=[0.5, 1], flip=True)
    for index in range(4):
        frame = dataset.read(index)
        rgb = torch.from_numpy(frame.rgb_HW3.transpose(2, 0, 1).copy())[None]
        scored = inference(rgb, torch.from_numpy(frame.thermal_HW)[None, None], frame.label_HW.shape)
        alone = inference(*images_of([(frame.rgb_HW3, frame.thermal_HW)], None), frame.label_HW.shape)
        assert np.array_equal(alone[0].numpy(), scored[0].numpy())


def test_a_run_validates_and_draws_with_windows_and_views(tiny_run, tiny_yaml, tmp_path):
    rules = "eval={mode: slide, window: [32, 32], scales: [0.5, 1], flip: true, batch_size: 3, pictures: 2}"
    run = tiny_run("run", "train.epochs=1", rules, "log.trackers=[tensorboard]")
    assert list((run.path / "tensorboard").iterdir())
    result = evaluate(run.best, tiny_yaml, opts=[rules], out_dir=tmp_path / "out")
    plain = evaluate(run.best, tiny_yaml, opts=["eval.pictures=0"], out_dir=tmp_path / "plain")
    assert result.evaluation.confusion.counts.sum() == plain.evaluation.confusion.counts.sum() == 5 * 40 * 48
    assert not np.array_equal(result.evaluation.confusion.counts, plain.evaluation.confusion.counts)
    assert len(list((tmp_path / "out" / "pictures").iterdir())) == 3


@pytest.mark.gpu
@pytest.mark.parametrize("rules", ["{}", "{mode: slide, window: [16, 16], scales: [0.5, 1], flip: true}"])
def test_a_gpu_scores_like_the_cpu(tiny_yaml, rules):
    """Pinned batches of several sizes; resized pixels and convolutions may differ in their last digit."""
    dataset, right = Mixed(20), {}
    for device in ("cpu", "cuda"):
        config = load_config(tiny_yaml, [f"eval={rules}", "eval.batch_size=4", "pipeline.workers=1"])
        world = World(device=torch.device(device))
        loader = make_eval_loader(config, dataset, world)
        counts = evaluate_model(tiny().to(device), loader, dataset, config, world).confusion.counts
        right[device] = counts / counts.sum()
    assert np.abs(right["cpu"] - right["cuda"]).sum() < 0.02
