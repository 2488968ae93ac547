"""Run lengths against texts that pycocotools 2.0.11 wrote, and what is no run length."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from mdg.data.annotations.rle import decode_counts, encode_counts, mask_to_runs, runs_to_mask


def disk() -> np.ndarray:
    y, x = np.mgrid[:9, :11]
    return (x - 5) ** 2 + (y - 4) ** 2 <= 12


def stripes() -> np.ndarray:
    y, x = np.mgrid[:9, :11]
    return (x * 7 + y * 5) % 4 == 0


KNOWN = [  # mask, run lengths, text of pycocotools
    (np.array([[0, 1, 1], [0, 1, 0]]), [2, 3, 1], "231"),
    (np.ones((2, 2)), [0, 4], "04"),
    (np.zeros((3, 4)), [12], "<"),
    (disk(), [21, 3, 5, 5, 3, 7, 2, 7, 2, 7, 3, 5, 5, 3, 21], "e0352N2O0001N2N`0"),
    (stripes(), None, "013000N02020N020N0N02000N02020N020N0N02000N02020N0O"),
]


@pytest.mark.parametrize(("mask", "runs", "text"), KNOWN)
def test_known_answers(mask, runs, text):
    if runs is not None:
        assert mask_to_runs(mask) == runs
    assert encode_counts(mask_to_runs(mask)) == text
    assert np.array_equal(runs_to_mask(decode_counts(text), *mask.shape), mask)


def test_large_numbers_as_pycocotools_writes_them():
    mask = np.zeros((480, 640), bool)
    mask[100:300, 200:500] = True
    mask[150:250, 250:400] = False
    text = encode_counts(mask_to_runs(mask))
    assert len(text) == 1211 and text.startswith("Tkm2X6h8000")
    assert hashlib.sha256(text.encode()).hexdigest().startswith("f59b2b15eab040351b42acb7a85989ce")
    assert np.array_equal(runs_to_mask(decode_counts(text), 480, 640), mask)


def test_rows_as_cvat_counts_them():
    mask = np.array([[0, 1, 1], [0, 1, 0]], bool)
    assert mask_to_runs(mask, columns=False) == [1, 2, 1, 1, 1]
    assert np.array_equal(runs_to_mask([1, 2, 1, 1, 1], 2, 3, columns=False), mask)


@pytest.mark.parametrize("columns", [True, False])
def test_there_and_back(columns):
    rng = np.random.default_rng(0)
    for share in (0.0, 0.02, 0.5, 0.98, 1.0):
        mask = rng.random((31, 17)) < share
        runs = mask_to_runs(mask, columns)
        assert decode_counts(encode_counts(runs)) == runs
        assert np.array_equal(runs_to_mask(runs, 31, 17, columns), mask)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("23\x01", "character 2"),
        ("23é", "character 2"),
        ("2P", "ends within a number"),
        ("P" * 9, "character 7"),
    ],
)
def test_texts_that_are_none(text, message):
    with pytest.raises(ValueError, match=message):
        decode_counts(text)


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ([2, 3], "5 pixels, expected 6"),
        ([2, -1, 5], "whole numbers"),
        ([2.0, 4], "whole numbers"),
        ([True, 5], "whole numbers"),
        ([10**30], "pixels, expected 6"),
    ],
)
def test_runs_that_do_not_fit(runs, message):
    with pytest.raises(ValueError, match=message):
        runs_to_mask(runs, 2, 3)
