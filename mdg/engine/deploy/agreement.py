"""Whether a file says what PyTorch says, how long each takes, and which images they are asked about.

Legend: B batch, K classes, H W size of the images.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from mdg.engine.deploy.runtimes import Arrays, Run
from mdg.errors import UserError

LEAST_SHARE = 0.999  # of the pixels that must get the class that PyTorch gives them

Images = tuple[np.ndarray, np.ndarray]  # RGB [B, 3, H, W] and thermal [B, 1, H, W], float32, 0..255


class Agreement(NamedTuple):
    """Over all pixels of all images: their number, those of the same class, and the largest difference of a
    probability (of a logit, where nothing else was asked for; None where the file gives masks only)."""

    pixels: int
    equal: int
    difference: float | None

    @property
    def share(self) -> float:
        """Of the pixels with the same class, 0..1."""
        return self.equal / self.pixels

    def text(self) -> str:
        """Such as "same class at 100.00 % of 12288 pixels, probabilities differ by 3.1e-06 at most"."""
        values = "" if self.difference is None else f", probabilities differ by {self.difference:.1e} at most"
        return f"same class at {100 * self.share:.3f} % of {self.pixels} pixels{values}"


def compare(file: Run, network: Run, images: Iterable[Images]) -> Agreement:
    """Asks both about the same images."""
    pixels = equal = 0
    difference: float | None = None
    for pair in images:
        got, expected = file(*pair), network(*pair)
        same = classes_of(got) == classes_of(expected)
        pixels, equal = pixels + same.size, equal + int(same.sum())
        values = [probabilities_of(arrays) for arrays in (got, expected)]
        if values[0] is not None and values[1] is not None:
            difference = max(difference or 0.0, float(np.abs(values[0] - values[1]).max()))
    return Agreement(pixels, equal, difference)


def require_agreement(found: Agreement, runtime: str) -> None:
    """Raises UserError where a file does not say what PyTorch says."""
    bad = found.difference is not None and not np.isfinite(found.difference)
    if found.share < LEAST_SHARE or bad:
        raise UserError(
            f"{runtime} does not agree with PyTorch ({found.text()}; expected {100 * LEAST_SHARE:g} %), so no file was "
            "kept; are these versions of torch, onnxscript and onnxruntime those of requirements.txt?"
        )


def classes_of(arrays: Arrays) -> np.ndarray:
    """Class ids ``[B, H, W]`` out of whatever a file gives."""
    if "mask" in arrays:
        return arrays["mask"]
    return arrays["probabilities" if "probabilities" in arrays else "logits"].argmax(axis=1)


def probabilities_of(arrays: Arrays) -> np.ndarray | None:
    """``[B, K, H, W]``; None where a file gives masks only."""
    if "probabilities" in arrays:
        return arrays["probabilities"]
    if "logits" not in arrays:
        return None
    raised = np.exp(arrays["logits"] - arrays["logits"].max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def median_ms(runs: dict[str, Run], images: Images, repetitions: int) -> dict[str, float]:
    """The median time of a call by name, in milliseconds on the wall.

    One call of each after the other, so that what else runs on the machine slows all of them alike.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    for repetition in range(repetitions + 2):  # the first two are for caches and for what is made at first use
        for name, run in runs.items():
            begun = time.perf_counter()
            run(*images)
            if repetition > 1:
                times[name].append(1000 * (time.perf_counter() - begun))
    return {name: statistics.median(found) for name, found in times.items()}


def repeated(images: Sequence[Images], batch: int) -> list[Images]:
    """Every pair as a batch of that many."""
    return [(rgb.repeat(batch, axis=0), thermal.repeat(batch, axis=0)) for rgb, thermal in images]
