"""How sure a difference between two configurations is: the paired bootstrap over images.

The same images are drawn, with replacement, for both configurations, and the difference of their mIoU is looked at over
many draws (Efron and Tibshirani, 1993). It says how the difference depends on which images were scored; how it depends
on the seeds of training is what the deviation over seeds says.

Legend: N images, S draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mdg.engine.evaluation.image_counts import ImageCounts
from mdg.errors import ConfigError

DRAWS = 2000


@dataclass(frozen=True)
class Difference:
    """mIoU of one configuration minus that of another, in points (per cent of mIoU), with its 95 % interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:+.2f} [{self.low:+.2f}, {self.high:+.2f}]"


def paired_difference(
    groups: Sequence[tuple[Sequence[ImageCounts], Sequence[ImageCounts]]], *, draws: int = DRAWS, seed: int = 0
) -> Difference:
    """The difference between two configurations.

    Args:
        groups: Per split the results of the first and of the other configuration, one per seed each; all results of a
            split are of the same images. The mean over the seeds of a split counts, and every split counts alike.
        draws: Number of draws.
        seed: Of the draws.

    Raises:
        ConfigError: Results of a split that are of different images.
    """
    rng = np.random.default_rng(seed)
    differences_S = np.zeros(draws + 1)  # the first is of the images as they are
    for first, other in groups:
        images = first[0].names
        for counts in [*first, *other]:
            if counts.names != images:
                raise ConfigError("results of different images have no paired difference; expected one split")
        weight_SN = np.ones((draws + 1, len(images)), np.int64)
        weight_SN[1:] = rng.multinomial(len(images), np.full(len(images), 1 / len(images)), size=draws)
        one, two = (np.mean([counts.miou(weight_SN) for counts in results], axis=0) for results in (first, other))
        differences_S += (two - one) / len(groups)
    low, high = np.percentile(differences_S[1:], (2.5, 97.5))
    return Difference(100 * float(differences_S[0]), 100 * float(low), 100 * float(high))
