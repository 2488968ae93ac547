"""What a check counts, against numpy."""

from __future__ import annotations

import math
import threading

import cv2
import numpy as np
import pytest

from mdg.data.check import numbers
from mdg.data.check.numbers import ValueCounts, count_levels, digest, is_constant, mean_and_std
from mdg.data.check.run import one_thread_each
from mdg.utils.threads import AHEAD, in_order


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.mark.parametrize("exact", [1 << 24, 100])  # the second counts two or three rows at a time
def test_levels_are_those_of_bincount(exact, rng, monkeypatch):
    monkeypatch.setattr(numbers, "EXACT", exact)
    rgb_HW3 = rng.integers(0, 256, (37, 41, 3), np.uint8)
    counts = count_levels(rgb_HW3)
    assert counts.dtype == np.int64 and counts.shape == (3, 256)
    for channel in range(3):
        np.testing.assert_array_equal(counts[channel], np.bincount(rgb_HW3[..., channel].ravel(), minlength=256))
    np.testing.assert_array_equal(count_levels(rgb_HW3[..., 1]), counts[1])
    np.testing.assert_array_equal(count_levels(rgb_HW3[:, ::-1]), counts)


def test_mean_and_std(rng):
    values = rng.integers(0, 256, 100_000)
    mean, std = mean_and_std(np.bincount(values, minlength=256))
    assert (mean, std) == pytest.approx((values.mean() / 255, values.std() / 255), rel=1e-12)
    assert mean_and_std(np.bincount([9] * 5, minlength=256)) == (9 / 255, 0)
    assert all(math.isnan(number) for number in mean_and_std(np.zeros(256, np.int64)))


def test_sums_stay_exact_beyond_float64():
    counts = np.zeros(256, np.int64)
    counts[[0, 255]] = 10**17, 10**17 + 2  # float64 loses the 2 in the variance, and with it nothing else
    mean, std = mean_and_std(counts)
    assert mean == (10**17 + 2) / (2 * 10**17 + 2) and std == pytest.approx(0.5, rel=1e-15)


def test_constant_means_every_channel():
    image_HW3 = np.full((4, 5, 3), (1, 2, 3), np.uint8)
    assert is_constant(count_levels(image_HW3)) and is_constant(count_levels(image_HW3[..., 0]))
    image_HW3[0, 0, 2] = 4
    assert not is_constant(count_levels(image_HW3))


def test_digests_tell_pixels_sizes_and_mirror_images(rng):
    image_HW3 = rng.integers(0, 256, (6, 8, 3), np.uint8)
    one = digest(image_HW3)
    encoded = cv2.imencode(".png", image_HW3)[1]
    assert digest(cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED)) == one
    assert digest(np.ascontiguousarray(image_HW3[:, ::-1])) == (one.mirrored, one.straight)
    assert digest(image_HW3[:, ::-1]) == (one.mirrored, one.straight)
    assert digest(image_HW3.reshape(8, 6, 3)).straight != one.straight
    image_HW3[0, 0, 0] ^= 1
    assert digest(image_HW3).straight != one.straight


@pytest.mark.parametrize("dtype, high", [(np.uint8, 256), (np.uint16, 65536), (np.int32, 10**6)])
def test_percentiles_of_integers_are_exact(dtype, high, rng):
    images = [rng.integers(0, high, (20, 30)).astype(dtype) for _ in range(4)]
    counts = ValueCounts()
    for image in images:
        counts.add(ValueCounts.of(image))
    everything = np.concatenate([image.ravel() for image in images])
    assert (counts.total, counts.lowest, counts.highest) == (2400, everything.min(), everything.max())
    for per_cent in (0, 0.1, 1, 37.5, 50, 99.9, 100):
        assert counts.percentile(per_cent) == np.percentile(everything, per_cent, method="inverted_cdf"), per_cent


def test_percentiles_of_temperatures_are_close(rng):
    images = [rng.normal(300, 8, (40, 50)).astype(np.float32) for _ in range(3)]
    images.append(-images[0])
    counts = ValueCounts()
    for image in images:
        counts.add(ValueCounts.of(image))
    everything = np.concatenate([image.ravel() for image in images])
    assert (counts.lowest, counts.highest) == (everything.min(), everything.max())
    assert len(counts.values_N) < counts.total
    for per_cent in (0, 0.1, 20, 60, 99.9, 100):
        exact = np.percentile(everything, per_cent, method="inverted_cdf")
        assert counts.percentile(per_cent) == pytest.approx(exact, rel=2**-12), per_cent


def test_levels_and_pixels_count_alike(rng):
    image_HW = rng.integers(20, 90, (9, 9), np.uint8)
    one, other = ValueCounts.of(image_HW), ValueCounts.of_levels(count_levels(image_HW))
    np.testing.assert_array_equal(one.values_N, other.values_N)
    np.testing.assert_array_equal(one.counts_N, other.counts_N)
    assert (one.lowest, one.highest) == (other.lowest, other.highest)


def test_no_values_and_one_value():
    counts = ValueCounts()
    assert math.isnan(counts.percentile(50)) and counts.suggested_range() is None
    counts.add(ValueCounts.of(np.full((3, 3), 5, np.uint16)))
    counts.add(ValueCounts())
    assert (counts.lowest, counts.percentile(50)) == (5, 5) and counts.suggested_range() is None


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_results_come_in_order(workers):
    assert list(in_order(lambda index: index * index, range(50), workers)) == [index * index for index in range(50)]


def test_stopping_early_begins_nothing_else():
    begun, lock = [], threading.Lock()

    def work(index: int) -> int:
        with lock:
            begun.append(index)
        return index

    results = in_order(work, range(10_000), 2)
    assert next(results) == 0
    results.close()
    assert len(begun) <= AHEAD * 2


def test_opencv_gets_its_threads_back():
    before = cv2.getNumThreads()
    with pytest.raises(RuntimeError), one_thread_each():
        assert cv2.getNumThreads() == 1
        raise RuntimeError
    assert cv2.getNumThreads() == before
