"""A chart of the loss over the learning rate."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mdg.utils.files import write_bytes


def rate_picture(
    file: Path, rates: np.ndarray, losses: np.ndarray, smoothed: np.ndarray, marks: Mapping[str, float]
) -> None:
    """Writes the losses of a range test as PNG, making its folder.

    Args:
        file: The picture.
        rates, losses: Of every step.
        smoothed: Smoothed losses of the first steps, as many as were looked at.
        marks: Rates to point out, by what they are.
    """
    # Without pyplot: no window system, no global state. Imported here, as it takes a second.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), dpi=130, layout="constrained")
    axes = figure.add_subplot()
    axes.plot(rates, losses, ".", color="#8fb0d9", markersize=4, label="loss of a step")
    axes.plot(rates[: len(smoothed)], smoothed, color="#1f4e8c", linewidth=2, label="smoothed")
    for (name, rate), style in zip(marks.items(), ("--", ":", "-"), strict=False):
        axes.axvline(rate, color="#9a6700", linestyle=style, linewidth=1.2, label=f"{name}: {rate:.2g}")
    finite = losses[np.isfinite(losses)]
    if len(finite) and len(smoothed):
        low, first = float(finite.min()), float(smoothed[0])
        axes.set_ylim(low - 0.05 * (first - low), first + 0.5 * (first - low))
    axes.set_xscale("log")
    axes.set_xlabel("learning rate")
    axes.set_ylabel("loss")
    axes.legend(fontsize=8)
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    write_bytes(file, stream.getvalue())
