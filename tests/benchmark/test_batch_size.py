"""The largest batch that fits into memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from mdg.benchmark import batch_size
from mdg.benchmark.batch_size import Fit, advise, crop_size, largest
from mdg.commands import find_batch_size
from mdg.config import load_config
from mdg.errors import UserError


@pytest.fixture
def tiny_yaml(tmp_path: Path) -> Path:
    file = tmp_path / "tiny.yaml"
    data = "{type: Synthetic, height: 40, width: 48, train_images: 4, val_images: 2, test_images: 2}"
    file.write_text(f"data: {data}\nmodel: {{type: MDG, rgb_backbone: b0, thermal_backbone: b0}}\n")
    return file


def linear(base: float, per_image: float, breaks: int = 10**9):
    """A step of so many MB; more than ``breaks`` images are killed. ``asked`` lists what was measured."""
    asked = []

    def measure(batch: int) -> float:
        asked.append(batch)
        if batch > breaks:
            raise UserError("killed")
        return base + per_image * batch

    return measure, asked


@pytest.mark.parametrize(("allowed", "images"), [(110, 1), (119, 1), (120, 2), (155, 5), (1100, 100)])
def test_the_largest_that_is_allowed(allowed, images):
    measure, asked = linear(100, 10)
    assert largest(measure, allowed) == (images, 100 + 10 * images)
    assert len(asked) <= 3


def test_what_grows_faster_than_predicted_is_measured_again():
    """Quadratic memory: the line through one and two images promises too much."""
    assert largest(lambda batch: 100 + batch**2, 150) == (6, 136)  # 16 by the line, then 12, 9, 7, 5


def test_a_batch_that_is_killed_is_too_large():
    measure, _ = linear(100, 10, breaks=7)
    images, _ = largest(measure, 300)
    assert 5 <= images <= 7
    assert largest(linear(100, 10, breaks=1)[0], 300) == (1, 110)


def test_one_image_that_does_not_fit_is_a_message():
    with pytest.raises(UserError, match="one image takes 110 MB, and 90 MB may be taken.*smaller crops"):
        largest(linear(100, 10)[0], 90)


@pytest.mark.parametrize(
    ("fits", "batch", "accumulate", "advice"),
    [(8, 8, 1, (8, 1)), (5, 8, 1, (4, 2)), (3, 6, 2, (3, 4)), (64, 4, 4, (16, 1)), (1, 7, 1, (1, 7))],
)
def test_a_step_sees_as_many_images_as_configured(tiny_yaml, fits, batch, accumulate, advice):
    config = load_config(tiny_yaml, [f"train.batch_size={batch}", f"train.accumulate={accumulate}"])
    assert tuple(advise(Fit(fits, 1.0, 1.0, (1, 1)), config).values()) == advice


def test_crops_are_those_of_the_pipeline_else_frames(tiny_yaml):
    crops = "pipeline.train=[{type: RandomResizedCrop, size: [33, 65]}, {type: HorizontalFlip}]"
    assert crop_size(load_config(tiny_yaml, [crops])) == (33, 65)
    assert crop_size(load_config(tiny_yaml, ["pipeline.train=[]"])) == (40, 48)


def test_free_memory_is_that_of_machine_and_container(tmp_path: Path):
    (tmp_path / "meminfo").write_text("MemTotal: 4096 kB\nMemAvailable:    2048 kB\n")
    assert batch_size._available(tmp_path / "meminfo") == 2.0
    assert batch_size._available(tmp_path / "none") is None and batch_size._container(tmp_path) is None
    (tmp_path / "memory.current").write_text(f"{2**20}\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert batch_size._container(tmp_path) is None
    (tmp_path / "memory.max").write_text(f"{4 * 2**20}\n")
    assert batch_size._container(tmp_path) == 3.0


@pytest.mark.slow  # a process that trains, as tests/benchmark/test_benchmark_tool.py has one
def test_the_command_measures_real_steps(tiny_yaml, monkeypatch, capsys):
    monkeypatch.setattr(batch_size, "largest", lambda measure, allowed_mb: (3, measure(3)))  # one of its processes
    find_batch_size.main([str(tiny_yaml), "--share", "0.5"])
    printed = capsys.readouterr().out
    assert "largest batch of 40x48 that fits: 3 images" in printed and "--opts train.batch_size=" in printed
    with pytest.raises(SystemExit):
        find_batch_size.main([str(tiny_yaml), "--share", "0"])
    assert "--share 0: expected more than 0 and at most 1" in capsys.readouterr().err
