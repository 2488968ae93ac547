"""Whether a network is right as often as it says: reliability and the expected calibration error, in integers.

Legend: N pixels, B bins of confidence, K classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

BINS = 15  # as in Guo et al. (2017)
UNITS = 1 << 24  # of confidence: what is added up is whole, so that the order of images and processes changes nothing
PARTS = ("pixels", "right", "confidence")


class Reliability:
    """Pixels by the probability of the class that was predicted (Guo et al., "On Calibration of Modern Neural
    Networks", ICML 2017), in bins of equal width; exact up to 5e11 pixels a bin.

    Args:
        bins: ``B``.
        temperature: At which the probabilities are.
        counts: int64 ``[B, 3]`` of another one: pixels, those that are right, and their confidence in units of 2^-24.
    """

    def __init__(self, bins: int = BINS, temperature: float = 1.0, counts: np.ndarray | None = None):
        self.temperature = temperature
        self.counts_B3 = np.zeros((bins, len(PARTS)), np.int64) if counts is None else counts.astype(np.int64)

    @property
    def bins(self) -> int:
        """``B``."""
        return len(self.counts_B3)

    def update(self, confidence: Tensor, prediction: Tensor, label: Tensor, ignored: Tensor) -> None:
        """Adds pixels.

        Args:
            confidence: Probability of the predicted class, float32 in 0..1, of any shape.
            prediction, label: Class ids of that shape.
            ignored: bool, True where a pixel does not count.
        """
        counted = ~ignored
        confidence_N, right_N = confidence[counted].float(), (prediction == label)[counted]
        units_N = (confidence_N.clamp(0, 1) * UNITS).round().long()
        bin_N = (units_N * self.bins // UNITS).clamp_(max=self.bins - 1)
        for part, value_N in enumerate((torch.ones_like(units_N), right_N.long(), units_N)):
            sums_B = torch.zeros(self.bins, dtype=torch.long, device=bin_N.device).index_add_(0, bin_N, value_N)
            self.counts_B3[:, part] += sums_B.cpu().numpy()

    @property
    def pixels(self) -> int:
        """Pixels counted."""
        return int(self.counts_B3[:, 0].sum())

    def accuracy(self) -> np.ndarray:
        """The share of each bin that is right, ``[B]``; NaN for an empty one."""
        return _quotient(self.counts_B3[:, 1], self.counts_B3[:, 0])

    def confidence(self) -> np.ndarray:
        """The mean confidence of each bin, ``[B]``; NaN for an empty one."""
        return _quotient(self.counts_B3[:, 2] / UNITS, self.counts_B3[:, 0])

    def expected_error(self) -> float:
        """ECE: the mean over the pixels of the distance of confidence and accuracy of their bin; NaN without pixels."""
        if not self.pixels:
            return float("nan")
        gap_B = np.abs(self.counts_B3[:, 2] / UNITS - self.counts_B3[:, 1])
        return float(gap_B.sum() / self.pixels)

    def overconfidence(self) -> float:
        """Mean confidence less accuracy: positive where the network says more than it knows; NaN without pixels."""
        if not self.pixels:
            return float("nan")
        return float((self.counts_B3[:, 2].sum() / UNITS - self.counts_B3[:, 1].sum()) / self.pixels)

    def as_dict(self) -> dict[str, Any]:
        """ECE and overconfidence in per cent, and the counts, as plain values."""
        rows = [(int(n), int(right), int(total)) for n, right, total in zip(*self.counts_B3.T, strict=True)]
        return {
            "expected_calibration_error": 100 * self.expected_error(),
            "overconfidence": 100 * self.overconfidence(),
            "temperature": self.temperature,
            "bins": [dict(zip(PARTS, (n, right, total / UNITS), strict=True)) for n, right, total in rows],
        }


def _quotient(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(below > 0, above / below, np.nan)
