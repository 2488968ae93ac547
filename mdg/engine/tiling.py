"""A sliding window: where the windows of an image lie, and the mean of their logits where they overlap.

As in mmsegmentation's ``slide_inference``: windows start every ``stride`` pixels, the last one of a row or column is
shifted inwards so that each has full size, and a side of the image shorter than the window gets one window of its own
length. Nothing is padded.

Legend: B batch, K classes, H W image, h w window, N windows of one forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

Place = tuple[int, int, int]  # image of the batch, top, left


def window_starts(length: int, window: int, stride: int) -> list[int]:
    """Where windows begin along one side so that they cover it: ``window <= length`` and, where more than one is
    needed, ``1 <= stride <= window``, in pixels."""
    assert window == length or 1 <= stride <= window < length, (length, window, stride)
    last = length - window
    return [*range(0, last, stride), last]


def sliding_logits(
    predict: Callable[[Tensor, Tensor], Tensor],
    rgb_B3HW: Tensor,
    thermal_B1HW: Tensor,
    window: tuple[int, int],
    stride: tuple[int, int],
    chunk: int,
) -> Tensor:
    """Logits ``[B, K, H, W]`` float32, averaged over the windows that see a pixel.

    Args:
        predict: ``[N, 3, h, w]`` and ``[N, 1, h, w]`` to float32 logits ``[N, K, h, w]``.
        rgb_B3HW, thermal_B1HW: Images of one size.
        window, stride: [height, width] in pixels.
        chunk: Windows per call of ``predict``, at most. Windows of several images may share one.
    """
    height, width = rgb_B3HW.shape[-2:]
    h, w = min(window[0], height), min(window[1], width)
    tops, lefts = window_starts(height, h, stride[0]), window_starts(width, w, stride[1])
    total_BKHW = None
    for places in _chunks([(b, y, x) for b in range(len(rgb_B3HW)) for y in tops for x in lefts], chunk):
        windows = (_cut(image, places, h, w) for image in (rgb_B3HW, thermal_B1HW))
        # No name is bound to the logits here: it would keep them alive during the next forward pass.
        total_BKHW = _add(total_BKHW, predict(*windows), places, (len(rgb_B3HW), height, width))
    seen_HW = torch.outer(_seen(height, tops, h), _seen(width, lefts, w)).to(total_BKHW)
    return total_BKHW.div_(seen_HW)


def _add(total_BKHW: Tensor | None, logits_NKhw: Tensor, places: list[Place], size_BHW: tuple[int, int, int]) -> Tensor:
    if total_BKHW is None:
        batch, height, width = size_BHW
        total_BKHW = logits_NKhw.new_zeros(batch, logits_NKhw.shape[1], height, width)
    h, w = logits_NKhw.shape[-2:]
    for logits_Khw, (b, y, x) in zip(logits_NKhw, places, strict=True):
        total_BKHW[b, :, y : y + h, x : x + w] += logits_Khw
    return total_BKHW


def _chunks(places: list[Place], size: int) -> Iterator[list[Place]]:
    for first in range(0, len(places), size):
        yield places[first : first + size]


def _cut(image_BCHW: Tensor, places: list[Place], h: int, w: int) -> Tensor:
    return torch.stack([image_BCHW[b, :, y : y + h, x : x + w] for b, y, x in places])


def _seen(length: int, starts: list[int], window: int) -> Tensor:
    seen = torch.zeros(length)
    for start in starts:
        seen[start : start + window] += 1
    return seen
