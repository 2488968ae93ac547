"""The benchmark counts what was made in the time it took. The clock is the test's own; nothing real is timed."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import cv2
import pytest
import torch
from listed_frames import ListedFrames

from mdg.benchmark import throughput
from mdg.benchmark.timing import ROUNDS, Stopwatch, count_images
from mdg.commands import benchmark_data
from mdg.config import RunConfig, load_config
from mdg.data import build_dataset, build_transforms
from mdg.data.base import Frame
from mdg.errors import ConfigError, DataError

TINY = """
data: {type: Synthetic, height: 32, width: 40, train_images: 5}
model: {type: MDG, rgb_backbone: b0, thermal_backbone: b0}
pipeline:
  train:
    - {type: HorizontalFlip, p: 0.5}
    - {type: RandomResizedCrop, size: [32, 40]}
    - {type: RandomResizedCrop, size: [16, 24]}
  workers: 0
train: {batch_size: 3}
"""


class Clock:
    """Moves on only when something is made."""

    def __init__(self):
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def stream(self, images: int, seconds: float):
        while True:
            self.now += seconds
            yield images


@pytest.fixture
def tiny_yaml(tmp_path) -> Path:
    file = tmp_path / "tiny.yaml"
    file.write_text(TINY)
    return file


@pytest.fixture
def config(tiny_yaml) -> RunConfig:
    return load_config(tiny_yaml)


def test_rate_is_images_per_second_of_each_clock():
    clock = Clock()
    rate = count_images(clock.stream(images=3, seconds=0.5), 10, clock=clock, cpu_clock=lambda: clock.now / 4)
    assert rate.images == [12] * 5 and rate.seconds == [2.0] * 5 and rate.cpu_seconds == [0.5] * 5
    assert rate.summary() == {"best": 6.0, "median": 6.0, "per_cpu_second": pytest.approx(24.0), "images": 60}
    assert rate.cpu_ms() == pytest.approx(1000 / 24) and rate.summary(in_process=False)["per_cpu_second"] is None


def test_a_round_that_was_slow_is_not_the_best_one():
    clock = Clock()
    steps = itertools.chain([1.0], [2.0, 4.0, 1.0, 8.0, 2.5], itertools.repeat(1.0))

    def stream():
        for seconds in steps:
            clock.now += seconds
            yield 10

    rate = count_images(stream(), 5, clock=clock, cpu_clock=clock)
    assert rate.images == [10] * 5 and rate.seconds == [2.0, 4.0, 1.0, 8.0, 2.5]
    summary = rate.summary()
    assert (summary["best"], summary["median"], summary["images"]) == (10.0, 4.0, 50)


def test_what_was_ready_before_the_clock_started_does_not_count():
    clock = Clock()
    stream = itertools.chain(itertools.islice(clock.stream(images=3, seconds=0), 4), clock.stream(images=3, seconds=1))
    rate = count_images(stream, 15, warm_up=4, clock=clock)
    assert rate.images == [9] * 5 and rate.seconds == [3.0] * 5


def test_streams_yield_the_images_they_made(config):
    dataset, transforms = build_dataset(config.data, "train"), build_transforms(config.pipeline.train)
    assert list(itertools.islice(throughput.read_frames(dataset), 12)) == [1] * 12
    loaded = list(itertools.islice(throughput.load_batches(config, dataset, transforms, 0), 5))
    assert loaded == [3] * 5  # two full batches an epoch, epoch after epoch
    made = []
    transforms.append(lambda sample: (made.append(sample), sample)[1])
    frames = [dataset[index] for index in range(4)]
    assert list(itertools.islice(throughput.augment_frames(frames, transforms, 3, seed=0), 6)) == [3] * 6
    assert len(made) == 18 and {sample["rgb"].shape for sample in made} == {(3, 16, 24)}
    assert len({sample["rgb"].contiguous().numpy().tobytes() for sample in made}) == 18  # a frame drawn again is new


def test_reading_reads_every_frame_anew(config):
    frame = build_dataset(config.data, "train")[0]
    dataset = ListedFrames(3, lambda index: Frame(frame.rgb_HW3, frame.thermal_HW, frame.label_HW, str(index)))
    list(itertools.islice(throughput.read_frames(dataset), 7))
    assert dataset.reads == [0, 1, 2, 0, 1, 2, 0]


def test_stopwatch_keeps_the_time_of_each_call():
    clock = Clock()

    def slow(sample):
        clock.now += 0.004 if sample["turn"] else 0.0
        return sample

    watch = Stopwatch(slow, cpu_clock=clock)
    for turn in (0, 1, 0, 1):
        assert watch({"turn": turn}) == {"turn": turn}
        clock.now += 1.0
    assert watch.cpu_ms() == pytest.approx(2.0)


def test_threads_are_given_back():
    before = torch.get_num_threads(), cv2.getNumThreads()
    with pytest.raises(KeyError), throughput.one_thread():
        assert (torch.get_num_threads(), cv2.getNumThreads()) == (1, 1)
        raise KeyError
    assert (torch.get_num_threads(), cv2.getNumThreads()) == before


def test_an_error_in_the_data_is_the_users(config):
    def broken(index):
        raise DataError("images/0.png: broken")

    frame = build_dataset(config.data, "train")[0]
    with pytest.raises(DataError, match="broken"):
        next(throughput.load_batches(config, ListedFrames(3, broken), [], 0))
    with pytest.raises(DataError, match="'rgb' as"):
        next(throughput.augment_frames([frame], [lambda sample: {**sample, "rgb": None}], 2, seed=0))


@pytest.mark.parametrize("seconds, workers", [(0, [0]), (-1, [0]), (float("nan"), [0]), (1, [-1])])
def test_durations_and_processes_are_checked(config, seconds, workers):
    with pytest.raises(ConfigError, match="expected more than 0 seconds"):
        throughput.measure(config, seconds, workers)


@pytest.mark.parametrize("cache", ["none", "ram"])
def test_the_tool_reports_every_step(cache, tiny_yaml, tmp_path, capsys):
    file = tmp_path / "out" / "rates.json"
    arguments = ["--config", tiny_yaml, "--seconds", 0.1, "--workers", 0, 1, "--json", file]
    benchmark_data.main([*map(str, arguments), "--opts", f"data.cache={cache}"])
    printed, written = capsys.readouterr().out, json.loads(file.read_text())
    names = ["reading", "augmentation", "loader, 0 workers", "loader, 1 workers"]
    assert list(written["images_per_second"]) == names
    for rate in written["images_per_second"].values():
        assert rate["best"] >= rate["median"] > 0 and rate["images"] >= ROUNDS
    assert written["images_per_second"]["loader, 0 workers"]["per_cpu_second"] > 0
    assert written["images_per_second"]["loader, 1 workers"]["per_cpu_second"] is None
    steps = [step["step"] for step in written["cpu_ms_per_image"]]
    assert steps == ["HorizontalFlip", "RandomResizedCrop", "RandomResizedCrop", "copying and batching"]
    assert written["config"]["data"]["cache"] == cache and written["environment"]["processor"]
    assert all(name in printed for name in [*names, *steps])
