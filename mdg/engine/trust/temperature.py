"""One number that makes probabilities mean what they say: the temperature (Guo et al., ICML 2017, section 4.2).

Legend: N pixels, K classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mdg.metrics.reliability import Reliability

RANGE = 1 / 64, 64.0  # of temperatures
MOST_PIXELS = 1 << 20
HALVINGS = 40


def fit_temperature(logits_NK: Tensor, label_N: Tensor) -> float:
    """The T > 0 that minimizes the mean cross-entropy of ``softmax(logits / T)`` with the labels.

    The cross-entropy is convex in ``b = 1 / T``, and its derivative is the mean of ``E_p[logit] - logit of the label``:
    its sign is halved upon. Where every pixel is right the best T is zero, and the bound is returned.

    Args:
        logits_NK: Of any floating dtype; counted in float64.
        label_N: Class ids.

    Returns:
        T between 1/64 and 64.

    Raises:
        ValueError: No pixels.
    """
    if not len(label_N):
        raise ValueError("got no labelled pixels, expected some to fit a temperature on")
    logits_NK = logits_NK.double() - logits_NK.double().amax(dim=1, keepdim=True)
    of_label_N = logits_NK.gather(1, label_N.long()[:, None])[:, 0]
    low, high = 1 / RANGE[1], 1 / RANGE[0]
    for _ in range(HALVINGS):
        middle = (low * high) ** 0.5
        expected_N = ((middle * logits_NK).softmax(dim=1) * logits_NK).sum(dim=1)
        if float((expected_N - of_label_N).mean()) < 0:  # sharper is still better
            low = middle
        else:
            high = middle
    return (1 / low * 1 / high) ** 0.5


def reliability_at(logits_NK: Tensor, label_N: Tensor, temperature: float = 1.0) -> Reliability:
    """Reliability of ``softmax(logits / T)`` on these pixels."""
    confidence_N, prediction_N = (logits_NK.float() / temperature).softmax(dim=1).max(dim=1)
    reliability = Reliability()
    reliability.update(confidence_N, prediction_N, label_N, torch.zeros_like(label_N, dtype=torch.bool))
    return reliability


def some_pixels(logits_KHW: Tensor, label_HW: Tensor, ignored_HW: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Logits ``[N, K]`` and labels ``[N]`` of at most ``most`` pixels that count, spread evenly over the image."""
    places = torch.nonzero(~ignored_HW.flatten())[:, 0]
    if len(places) > most:
        places = places[torch.linspace(0, len(places) - 1, most, device=places.device, dtype=torch.float64).long()]
    return logits_KHW.flatten(1)[:, places].T, label_HW.flatten()[places]
