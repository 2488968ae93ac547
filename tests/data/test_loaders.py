"""Loaders: what a batch is, and that it depends on seed, epoch and image only.

Shape suffixes: H, W are height and width in pixels.
"""

from __future__ import annotations

import gc
import os
import signal
import time
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from listed_frames import ListedFrames

from mdg.config import RunConfig
from mdg.config.schema import PipelineConfig
from mdg.data import (
    Batch,
    EvalLoader,
    TrainLoader,
    build_dataset,
    build_transforms,
    read_batch,
    waiting,
)
from mdg.data.base import Frame
from mdg.data.batches import hash_seed
from mdg.data.waiting import NoBatch
from mdg.errors import DataError, MachineError


@pytest.fixture(scope="module", autouse=True)
def loader_processes_that_hang_are_given_up_soon():
    """PyTorch waits five seconds for each of them before it ends it, whenever its loader is collected."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.utils.data._utils, "MP_STATUS_CHECK_INTERVAL", 0.2)
        yield
        gc.collect()


SIZE = [32, 40]
HEIGHTS = [32, 34, 32, 32, 34, 36, 34, 32, 36]
CHAIN = [
    {"type": "ColorJitter", "p": 0.5},
    {"type": "HorizontalFlip"},
    {"type": "Rotation", "p": 0.5},
    {"type": "RandomResizedCrop", "size": SIZE},
]


def frame_of(index: int, height: int = 32, width: int = 40) -> Frame:
    """A frame that says which one it is: every pixel holds the index."""
    return Frame(
        np.full((height, width, 3), index, np.uint8),
        np.full((height, width), index, np.uint8),
        np.full((height, width), index % 9, np.uint8),
        f"frame{index}",
    )


def growing_frame(index: int) -> Frame:
    return frame_of(index, height=32 + 2 * index)


def mixed_frame(index: int) -> Frame:
    return frame_of(index, height=HEIGHTS[index])


def failing_frame(index: int, bad: int, make: Callable[[int], Frame] = frame_of) -> Frame:
    if index == bad:
        raise DataError(f"images/{index}.png: broken")
    return make(index)


def make_train(dataset, transforms=(), **options) -> TrainLoader:
    return TrainLoader(dataset, transforms, **{"batch_size": 2, "seed": 7, "workers": 0, "prefetch": 2, **options})


def make_eval(dataset, **options) -> EvalLoader:
    return EvalLoader(dataset, **{"batch_size": 2, "eval_size": None, "workers": 0, "prefetch": 2, **options})


def indices_of(batches) -> list[int]:
    return [index for batch in batches for index in batch.indices]


def assert_equal(first: list[Batch], second: list[Batch]) -> None:
    assert len(first) == len(second) > 0
    for one, other in zip(first, second, strict=True):
        assert one.names == other.names and one.indices == other.indices
        assert all(torch.equal(a, b) for a, b in zip(one[:3], other[:3], strict=True))


# --- training ----------------------------------------------------------------------------------------------------


def test_batch_is_uint8_of_the_frames_it_names(packed):
    dataset = build_dataset({"type": "MFNet", "root": packed}, "train")
    for batch in make_train(dataset).epoch(0):
        assert batch.rgb_B3HW.shape == (2, 3, 48, 64) and batch.rgb_B3HW.is_contiguous()
        assert batch.thermal_B1HW.shape == (2, 1, 48, 64) and batch.label_BHW.shape == (2, 48, 64)
        assert {(type(part), part.dtype) for part in batch[:3]} == {(torch.Tensor, torch.uint8)}
        for place, index in enumerate(batch.indices):
            frame = dataset[index]
            assert batch.names[place] == frame.name
            np.testing.assert_array_equal(batch.rgb_B3HW[place].permute(1, 2, 0).numpy(), frame.rgb_HW3)
            np.testing.assert_array_equal(batch.thermal_B1HW[place, 0].numpy(), frame.thermal_HW)
            np.testing.assert_array_equal(batch.label_BHW[place].numpy(), frame.label_HW)


@pytest.mark.parametrize(
    "count, batch_size, world_size, batches", [(10, 2, 1, 5), (10, 3, 1, 4), (10, 3, 2, 2), (3, 4, 2, 1), (1, 2, 3, 1)]
)
def test_epoch_is_full_and_sees_everything(count, batch_size, world_size, batches):
    seen = []
    for rank in range(world_size):
        loader = make_train(ListedFrames(count, frame_of), batch_size=batch_size, rank=rank, world_size=world_size)
        epoch = list(loader.epoch(0))
        assert len(epoch) == len(loader) == batches
        assert all(len(batch.indices) == batch_size for batch in epoch)
        seen += indices_of(epoch)
    draws = np.bincount(seen, minlength=count)
    assert len(draws) == count and draws.min() >= 1 and draws.max() - draws.min() <= 1


def test_processes_share_out_one_order():
    alone = list(make_train(ListedFrames(12, frame_of), batch_size=4).epoch(3))
    pair = [list(make_train(ListedFrames(12, frame_of), rank=rank, world_size=2).epoch(3)) for rank in range(2)]
    assert [batch.indices for batch in alone] == [one.indices + two.indices for one, two in zip(*pair, strict=True)]


def test_wrap_augments_an_image_anew(packed):
    one = build_dataset({"type": "MFNet", "root": packed, "limit": 1}, "train")
    loader = make_train(one, build_transforms(CHAIN), batch_size=4)
    (batch,) = loader.epoch(0)
    assert batch.indices == [0, 0, 0, 0]
    assert len({part.numpy().tobytes() for part in batch.rgb_B3HW}) == 4


def test_order_changes_with_epoch_and_seed():
    dataset = ListedFrames(20, frame_of)
    pairs = ((0, 0), (0, 1), (1, 0), (0, 0))
    orders = [indices_of(make_train(dataset, seed=seed).epoch(epoch)) for seed, epoch in pairs]
    assert orders[0] != orders[1] and orders[0] != orders[2] and orders[1] != orders[2] and orders[0] == orders[3]


def test_augmentation_changes_with_epoch(packed):
    loader = make_train(build_dataset({"type": "MFNet", "root": packed}, "train"), build_transforms(CHAIN))
    pictures = [
        {
            name: part.numpy().tobytes()
            for batch in loader.epoch(epoch)
            for name, part in zip(batch.names, batch.rgb_B3HW, strict=True)
        }
        for epoch in range(2)
    ]
    assert all(pictures[0][name] != pictures[1][name] for name in pictures[0])


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_do_not_depend_on_the_number_of_workers(packed, workers):
    dataset, chain = build_dataset({"type": "MFNet", "root": packed}, "train"), build_transforms(CHAIN)
    alone, many = make_train(dataset, chain), make_train(dataset, chain, workers=workers)
    for epoch in range(2):
        assert_equal(list(alone.epoch(epoch)), list(many.epoch(epoch)))
    assert_equal(list(make_eval(dataset)), list(make_eval(dataset, workers=workers)))


@pytest.mark.parametrize("workers", [0, 2])
def test_start_within_an_epoch(packed, workers):
    dataset, chain = build_dataset({"type": "MFNet", "root": packed}, "train"), build_transforms(CHAIN)
    loader = make_train(dataset, chain, batch_size=1, workers=workers)
    whole = list(loader.epoch(1))
    assert_equal(list(loader.epoch(1, start=4)), whole[4:])
    assert list(loader.epoch(1, start=6)) == []


def test_start_does_not_read_what_it_skips():
    dataset = ListedFrames(10, frame_of)
    batches = list(make_train(dataset).epoch(0, start=3))
    assert dataset.reads == indices_of(batches) and len(dataset.reads) == 4


def test_start_beyond_the_epoch():
    with pytest.raises(DataError, match="batch 6 of an epoch of 5 batches.*number of processes"):
        make_train(ListedFrames(10, frame_of)).epoch(0, start=6)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_epoch_left_early_does_not_leak_into_the_next(workers):
    loader = make_train(ListedFrames(12, frame_of), workers=workers)
    for _ in zip(loader.epoch(0), range(2), strict=False):
        pass
    fresh = make_train(ListedFrames(12, frame_of))
    assert_equal(list(loader.epoch(1)), list(fresh.epoch(1)))


def test_workers_outlive_the_epoch():
    loader = make_train(ListedFrames(4, process_frame), workers=1)
    processes = {int(part[0, 0, 0]) for epoch in range(3) for batch in loader.epoch(epoch) for part in batch.rgb_B3HW}
    assert len(processes) == 1


def process_frame(index: int) -> Frame:
    import os

    return frame_of(os.getpid() % 251)


def test_workers_use_one_thread():
    loader = make_train(ListedFrames(2, thread_frame), workers=1)
    (batch,) = loader.epoch(0)
    assert batch.rgb_B3HW.unique().tolist() == [1]


def thread_frame(index: int) -> Frame:
    return frame_of(max(torch.get_num_threads(), cv2.getNumThreads()))


@pytest.mark.parametrize("workers", [0, 1])
def test_global_random_numbers_are_left_alone(packed, workers):
    dataset = build_dataset({"type": "MFNet", "root": packed}, "train")
    torch.manual_seed(1)
    before = torch.get_rng_state()
    loader = make_train(dataset, build_transforms(CHAIN), workers=workers)
    for epoch in range(2):
        list(loader.epoch(epoch))
    list(make_eval(dataset, workers=workers))
    assert torch.equal(torch.get_rng_state(), before)


def test_augmentation_does_not_depend_on_global_random_numbers(packed):
    loader = make_train(build_dataset({"type": "MFNet", "root": packed}, "train"), build_transforms(CHAIN))
    torch.manual_seed(1)
    first = list(loader.epoch(0))
    torch.manual_seed(2)
    assert_equal(first, list(loader.epoch(0)))


def test_seeds_of_neighbours_differ():
    seeds = {
        hash_seed(seed, epoch, index, repeat)
        for seed in range(4)
        for epoch in range(4)
        for index in range(20)
        for repeat in range(2)
    }
    assert len(seeds) == 640


# --- evaluation --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count, batch_size, world_size", [(7, 2, 1), (7, 2, 2), (7, 3, 3), (2, 4, 2)])
def test_every_image_once_over_all_processes(count, batch_size, world_size):
    dataset = ListedFrames(count, frame_of)
    loaders = [
        make_eval(dataset, batch_size=batch_size, rank=rank, world_size=world_size) for rank in range(world_size)
    ]
    shares = [list(loader) for loader in loaders]
    assert [len(share) for share in shares] == [len(loader) for loader in loaders]
    assert sorted(index for share in shares for index in indices_of(share)) == list(range(count))
    assert all(batch.names == [f"frame{index}" for index in batch.indices] for share in shares for batch in share)


def test_evaluation_can_be_repeated():
    loader = make_eval(ListedFrames(5, frame_of), workers=1)
    assert_equal(list(loader), list(loader))


def test_more_processes_than_images():
    with pytest.raises(DataError, match=r"more processes \(3\) than images \(2\).*at most 2"):
        make_eval(ListedFrames(2, frame_of), rank=0, world_size=3)


def test_eval_size_resizes_images_and_leaves_labels(packed):
    dataset = build_dataset({"type": "MFNet", "root": packed}, "val")
    batch = next(iter(make_eval(dataset, eval_size=(24, 96))))
    assert batch.rgb_B3HW.shape == (2, 3, 24, 96) and batch.thermal_B1HW.shape == (2, 1, 24, 96)
    np.testing.assert_array_equal(batch.label_BHW[1].numpy(), dataset[1].label_HW)
    assert abs(batch.rgb_B3HW[0].float().mean() - dataset[0].rgb_HW3.mean()) < 2


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("eval_size", [None, (24, 32)])
@pytest.mark.parametrize("batch_size", [1, 4, 9])
def test_sizes_that_differ_in_evaluation_never_share_a_batch(batch_size, eval_size, workers):
    batches = list(make_eval(ListedFrames(9, mixed_frame), batch_size=batch_size, eval_size=eval_size, workers=workers))
    assert sorted(indices_of(batches)) == list(range(9))
    for batch in batches:
        assert batch.names == [f"frame{index}" for index in batch.indices]
        assert {HEIGHTS[index] for index in batch.indices} == {batch.label_BHW.shape[1]}
        assert batch.rgb_B3HW.shape[2:] == batch.thermal_B1HW.shape[2:] == (eval_size or (batch.label_BHW.shape[1], 40))
        assert [int(part[0, 0]) for part in batch.label_BHW] == batch.indices  # nothing changed places
    for height in set(HEIGHTS):
        expected = [index for index in range(9) if HEIGHTS[index] == height]
        assert [index for index in indices_of(batches) if HEIGHTS[index] == height] == expected


def narrow_frame(index: int) -> Frame:
    """Images of two widths under labels of one."""
    images, label = frame_of(index, width=40 - 4 * (index % 2)), frame_of(index)
    return Frame(images.rgb_HW3, images.thermal_HW, label.label_HW, label.name)


def test_images_that_differ_under_equal_labels():
    assert [batch.indices for batch in make_eval(ListedFrames(4, narrow_frame), batch_size=4)] == [[0, 2], [1, 3]]


def test_groups_of_sizes_are_as_large_as_the_batch_allows():
    batches = list(make_eval(ListedFrames(9, mixed_frame), batch_size=4))
    assert [batch.indices for batch in batches] == [[0, 2, 3], [1], [4, 6], [5], [7], [8]]


def test_processes_share_out_images_of_several_sizes():
    loaders = [make_eval(ListedFrames(9, mixed_frame), batch_size=4, rank=rank, world_size=2) for rank in range(2)]
    assert [loader.images for loader in loaders] == [5, 4]
    assert sorted(index for loader in loaders for index in indices_of(loader)) == list(range(9))


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_among_images_of_several_sizes(workers):
    loader = make_eval(
        ListedFrames(4, partial(failing_frame, bad=3, make=growing_frame)), batch_size=4, workers=workers
    )
    with pytest.raises(DataError, match="images/3.png: broken"):
        list(loader)


def test_sizes_that_differ_in_training():
    with pytest.raises(DataError, match="end pipeline.train with Resize or RandomResizedCrop"):
        list(make_train(ListedFrames(4, growing_frame)).epoch(0))
    resize = build_transforms([{"type": "Resize", "size": SIZE}])
    assert len(list(make_train(ListedFrames(4, growing_frame), resize).epoch(0))) == 2


def test_one_frame_as_the_evaluation_prepares_it(packed):
    dataset = build_dataset({"type": "MFNet", "root": packed}, "val")
    loaded = list(make_eval(dataset, batch_size=1, eval_size=(24, 32)))
    assert_equal([read_batch(dataset, index, (24, 32)) for index in range(3)], loaded)
    with pytest.raises(DataError, match="images/3.png: broken"):
        read_batch(ListedFrames(6, partial(failing_frame, bad=3)), 3, None)


# --- errors from loader processes --------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_data_error_arrives_as_it_was(workers):
    dataset = ListedFrames(6, partial(failing_frame, bad=3))
    for loader in (make_train(dataset, workers=workers), make_eval(dataset, workers=workers)):
        with pytest.raises(DataError) as caught:
            list(loader.epoch(0) if isinstance(loader, TrainLoader) else loader)
        assert type(caught.value) is DataError and str(caught.value) == "images/3.png: broken"


# --- loader processes that fail ----------------------------------------------------------------------------------


def dying_frame(index: int) -> Frame:
    if index == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return frame_of(index)


def hanging_frame(index: int) -> Frame:
    if index == 3:
        time.sleep(100)
    return frame_of(index)


def test_a_killed_loader_process_is_named_and_disturbs_nothing_else():
    before = signal.getsignal(signal.SIGCHLD)
    with pytest.raises(NoBatch, match=r"process \d+: killed by SIGKILL.*memory is short.*pipeline.workers=0"):
        list(make_train(ListedFrames(6, dying_frame), batch_size=1, workers=1, timeout=60).epoch(0))
    assert signal.getsignal(signal.SIGCHLD) is before  # torch would raise out of its handler, wherever the program is


def test_a_loader_that_hangs_ends_the_run():
    with pytest.raises(NoBatch, match=r"within 0.6 s \(pipeline.timeout\).*pipeline.workers=0.*--shm-size"):
        list(make_eval(ListedFrames(6, hanging_frame), batch_size=1, workers=1, timeout=0.6))


def test_a_stop_ends_a_loader_that_hangs(monkeypatch):
    monkeypatch.setattr(waiting, "SECONDS_AFTER_STOP", 0.0)
    loader = make_eval(ListedFrames(6, hanging_frame), batch_size=1, workers=1, stop=lambda: True)
    seen = []
    with pytest.raises(NoBatch, match="asked to stop while no batch came"):
        seen.extend(batch.indices[0] for batch in loader)


def test_a_batch_that_is_late_is_waited_for():
    answers = iter([RuntimeError("DataLoader timed out after 0.5 seconds")] * 3)

    def take():
        for error in answers:
            raise error
        return "batch"

    assert waiting.wait_for(take, timeout=60) == "batch"


@pytest.mark.parametrize("error", [RuntimeError("Caught RuntimeError in DataLoader worker process 0."), KeyError("x")])
def test_other_errors_of_a_loader_are_left_alone(error):
    def take():
        raise error

    with pytest.raises(type(error)) as caught:
        waiting.wait_for(take)
    assert caught.value is error


def full(tensor: torch.Tensor) -> None:
    raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")


@pytest.mark.parametrize("kind", [make_train, make_eval])
def test_no_room_in_shared_memory_is_a_message_and_no_hang(monkeypatch, kind):
    monkeypatch.setattr(torch.Tensor, "share_memory_", full)
    loader = kind(ListedFrames(4, frame_of), workers=1)
    with pytest.raises(MachineError, match=r"no room in shared memory for a batch of 0.0 MiB.*--shm-size"):
        list(loader.epoch(0) if isinstance(loader, TrainLoader) else loader)


def test_more_batches_than_shared_memory_holds_are_refused_at_the_first(monkeypatch):
    """Each of two processes works two batches ahead, one is in use: 5 batches of 2 images of 5 bytes a pixel."""
    need = 5 * 2 * 32 * 40 * 5
    room = {"total": need}
    monkeypatch.setattr(waiting.shutil, "disk_usage", lambda path: SimpleNamespace(**room))
    monkeypatch.setattr(waiting.os.path, "isdir", lambda path: True)
    assert len(list(make_train(ListedFrames(4, frame_of), workers=2).epoch(0))) == 2
    room["total"] -= 1
    with pytest.raises(MachineError, match=r"2 loader processes that hold 2 batches each need .* pipeline.workers=0"):
        next(make_train(ListedFrames(4, frame_of), workers=2).epoch(0))


def test_loader_processes_that_are_busy_are_replaced():
    """A pass left early leaves work behind, for which the next one does not wait."""
    loader = make_eval(ListedFrames(6, hanging_frame), batch_size=1, workers=1, timeout=60)
    assert next(iter(loader)).indices == [0]
    assert next(iter(loader)).indices == [0]


# --- configuration -----------------------------------------------------------------------------------------------


def test_pipeline_options():
    assert PipelineConfig().train == [] and PipelineConfig().eval_size is None
    config = PipelineConfig(train=CHAIN, eval_size=[480, 640], workers=0)
    assert [item.type for item in config.train] == [item["type"] for item in CHAIN] and config.eval_size == (480, 640)
    assert PipelineConfig.model_validate(config.model_dump(mode="json")) == config
    assert len(build_transforms(config.train)) == 4
    assert "pipeline" in RunConfig.model_fields


@pytest.mark.parametrize(
    "options",
    [
        {"workers": -1},
        {"prefetch": 0},
        {"eval_size": [480]},
        {"eval_size": [0, 640]},
        {"train": [{"type": "Blur"}]},
        {"train": [{"type": "HorizontalFlip", "p": 2}]},
        {"worker": 2},
    ],
)
def test_pipeline_options_are_checked(options):
    with pytest.raises(ValueError):
        PipelineConfig(**options)


def test_real_frames_through_the_published_chain(mfnet_mini):
    dataset = build_dataset({"type": "MFNet", "root": mfnet_mini, "limit": 6}, "train")
    chain = [
        "ColorJitter",
        "GaussianBlur",
        "Sharpness",
        "AutoContrast",
        "HorizontalFlip",
        "Rotation",
        {"type": "RandomResizedCrop", "size": [480, 640], "scale": [0.5, 2.0]},
    ]
    for batch in make_train(dataset, build_transforms(chain), batch_size=3, workers=1).epoch(0):
        assert batch.rgb_B3HW.shape == (3, 3, 480, 640) and batch.label_BHW.shape == (3, 480, 640)
        assert set(batch.label_BHW.unique().tolist()) <= {*range(9), 255}


def test_images_are_drawn_by_their_chances():
    dataset = ListedFrames(4, frame_of)
    loader = make_train(dataset, chances=np.array([0.0, 0.1, 0.2, 0.7]), batch_size=4)
    drawn = [index for epoch in range(300) for index in indices_of(loader.epoch(epoch))]
    share = np.bincount(drawn, minlength=4) / len(drawn)
    assert share[0] == 0 and np.abs(share - [0, 0.1, 0.2, 0.7]).max() < 0.05
    assert indices_of(loader.epoch(7)) == indices_of(loader.epoch(7))
    halves = [
        make_train(dataset, chances=loader.chances.numpy(), batch_size=2, rank=rank, world_size=2) for rank in range(2)
    ]
    assert [*indices_of(halves[0].epoch(7)), *indices_of(halves[1].epoch(7))] == indices_of(loader.epoch(7))
