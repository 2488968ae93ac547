"""The range test for a learning rate."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from mdg.commands import find_lr
from mdg.engine.optim import RangeTest
from mdg.engine.rate_finder import analyse
from mdg.errors import ConfigError
from mdg.options.optim import RangeTestOptions


def test_the_rate_grows_by_the_same_factor():
    schedule = RangeTest(RangeTestOptions(lowest_ratio=1e-4, steps=5), steps_per_epoch=3, epochs=9)
    assert [schedule.factor(step) for step in range(7)] == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1, 1, 1, 1])


def bowl(rates: np.ndarray) -> np.ndarray:
    """Falls fastest at 1e-3, is lowest at about 1e-2, and explodes behind that."""
    return 2 - 1 / (1 + (1e-3 / rates) ** 2) + (rates / 0.05) ** 4


def test_the_steepest_fall_and_the_lowest_loss_are_found():
    rates = np.geomspace(1e-6, 1, 400)
    found = analyse(rates, bowl(rates))
    assert 5e-4 < found.steepest < 3e-3  # smoothing over steps lags behind
    assert 5e-3 < found.lowest < 4e-2
    assert found.suggested == pytest.approx(min(found.steepest, found.lowest / 3), rel=0.06)
    assert len(found.smoothed) < 400  # what comes behind is not looked at


def test_the_noise_of_the_first_batches_is_no_loss_of_the_training():
    """A hundred steps of a real test: the loss wavers by a thousandth before it falls."""
    rates = np.geomspace(1e-6, 1, 100)
    losses = bowl(rates)
    losses[:6] += [0.0, 0.003, -0.004, -0.006, 0.001, 0.004]
    found = analyse(rates, losses)
    assert 5e-4 < found.steepest < 1e-2 and 5e-3 < found.lowest < 0.1


def test_a_loss_that_doubles_at_once_never_fell():
    with pytest.raises(ConfigError, match="never fell"):
        analyse(np.geomspace(1e-6, 1, 60), np.geomspace(1, 1e6, 60))


def test_a_loss_that_becomes_nan_ends_the_test():
    rates = np.geomspace(1e-6, 1, 400)
    losses = bowl(rates)
    losses[300:] = np.nan
    assert analyse(rates, losses).steepest == analyse(rates, bowl(rates)).steepest


@pytest.mark.parametrize("losses", [np.linspace(1, 2, 50), np.full(50, np.nan), np.array([1.0, 0.5])])
def test_a_loss_that_never_fell_is_a_message(losses):
    with pytest.raises(ConfigError, match="never fell"):
        analyse(np.geomspace(1e-6, 1, len(losses)), losses)


def test_the_command_trains_draws_and_keeps_no_run(tiny_yaml, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "rates.png"
    find_lr.main([str(tiny_yaml), "--steps", "40", "--highest", "10", "--out", str(out)])
    printed = capsys.readouterr().out
    assert "steepest fall at" in printed and "--opts optimizer.lr=" in printed
    assert cv2.imread(str(out)).shape[1] == 910 and not (tmp_path / "exp").exists()
    with pytest.raises(SystemExit):
        find_lr.main([str(tiny_yaml), "--lowest", "2", "--highest", "1"])
    assert "expected 0 < lowest < highest" in capsys.readouterr().err
    assert json.dumps(sorted(path.name for path in tmp_path.iterdir())) == '["rates.png", "tiny.yaml"]'
