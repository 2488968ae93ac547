"""Loss terms. Each takes logits and labels of equal size and returns a float32 scalar, also when no pixel is labelled.

Legend: B batch, K classes, H W label size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mdg.errors import ConfigError
from mdg.options.losses import CrossEntropyOptions, DiceOptions, OhemOptions
from mdg.registry import LOSSES


@LOSSES.register(CrossEntropyOptions)
class CrossEntropy(nn.Module):
    """Mean cross-entropy over the pixels that are not ignored; zero where there is none."""

    class_weights: Tensor | None

    def __init__(
        self,
        options: CrossEntropyOptions,
        *,
        num_classes: int,
        ignore_index: int,
        automatic_weights: Callable[[], Sequence[float]] | None = None,
    ):
        super().__init__()
        self.weight, self.label_smoothing, self.ignore_index = options.weight, options.label_smoothing, ignore_index
        self.every_pixel = options.mean_over == "all"
        weights = options.class_weights
        if weights == "auto":
            if automatic_weights is None:
                raise ConfigError("loss.class_weights: auto: nothing is known of the data here; list the weights")
            weights = list(automatic_weights())
        self.register_buffer("class_weights", _class_weights(weights, num_classes), persistent=False)

    def forward(self, logits_BKHW: Tensor, label_BHW: Tensor) -> Tensor:
        total = F.cross_entropy(
            logits_BKHW.float(),
            label_BHW,
            self.class_weights,
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
            reduction="none",  # summed as a tree; on a GPU "sum" adds in whatever order its threads finish
        ).sum()
        if self.every_pixel:
            return total / label_BHW.numel()
        valid_BHW = label_BHW != self.ignore_index
        if self.class_weights is None:
            return total / valid_BHW.sum().clamp(min=1)
        pixel_weight = self.class_weights[label_BHW.where(valid_BHW, 0)] * valid_BHW
        return total / pixel_weight.sum().clamp(min=1e-6)


def _class_weights(weights: list[float] | None, num_classes: int) -> Tensor | None:
    if weights is None:
        return None
    if len(weights) != num_classes or min(weights) < 0 or not any(weights):
        raise ConfigError(
            f"loss.class_weights: expected {num_classes} numbers >= 0, one per class and not all 0, got {weights}"
        )
    return torch.tensor(weights, dtype=torch.float32)


@LOSSES.register(OhemOptions)
class OhemCrossEntropy(nn.Module):
    """Cross-entropy over the hard pixels only (Shrivastava et al., CVPR 2016), without a device-to-host copy."""

    def __init__(self, options: OhemOptions, *, num_classes: int, ignore_index: int):
        super().__init__()
        self.weight, self.min_kept, self.ignore_index = options.weight, options.min_kept, ignore_index
        self.hard = -math.log(options.threshold)

    def forward(self, logits_BKHW: Tensor, label_BHW: Tensor) -> Tensor:
        loss_N = F.cross_entropy(
            logits_BKHW.float(), label_BHW, ignore_index=self.ignore_index, reduction="none"
        ).flatten()
        valid_N = (label_BHW != self.ignore_index).flatten()
        kept = max(1, int(self.min_kept * loss_N.numel()))
        # Ignored pixels have loss 0 and so come last; the bound is the lower of "hard" and "the k-th hardest".
        bound = loss_N.detach().topk(kept).values[-1].clamp(max=self.hard)
        hard_N = valid_N & (loss_N.detach() >= bound)
        return (loss_N * hard_N).sum() / hard_N.sum().clamp(min=1)


@LOSSES.register(DiceOptions)
class Dice(nn.Module):
    """``1 - mean_k 2|P_k Y_k| / (|P_k| + |Y_k|)`` over the classes present in the batch (Milletari et al., 2016).

    Softmax and sums are float32; ignored pixels count in none of the sums.
    """

    def __init__(self, options: DiceOptions, *, num_classes: int, ignore_index: int):
        super().__init__()
        self.weight, self.smooth = options.weight, options.smooth
        self.num_classes, self.ignore_index = num_classes, ignore_index
        self.every_class = options.mean_over == "all"

    def forward(self, logits_BKHW: Tensor, label_BHW: Tensor) -> Tensor:
        valid_B1HW = (label_BHW != self.ignore_index)[:, None]
        probability_BKHW = logits_BKHW.float().softmax(dim=1) * valid_B1HW
        # Sums over a mask per class: trees, exact to a few bits for any number of pixels and in any order of execution.
        # Adding pixel by pixel (index_add) would be 5 % off at 16 images of 480x640 and stand still at 2^24 pixels.
        classes_K11 = torch.arange(self.num_classes, device=logits_BKHW.device)[:, None, None]
        own_BKHW = (label_BHW[:, None] == classes_K11) & valid_B1HW
        overlap_K = _sum_per_class(probability_BKHW.where(own_BKHW, 0))
        count_K = own_BKHW.sum(dim=(0, 2, 3)).float()
        sizes_K = _sum_per_class(probability_BKHW) + count_K + self.smooth
        dice_K = (2 * overlap_K + self.smooth) / sizes_K.clamp(min=SMALLEST_SIZE)
        if self.every_class:
            return 1 - (dice_K * (count_K > 0)).mean()
        present_K = count_K > 0
        return ((1 - dice_K) * present_K).sum() / present_K.sum().clamp(min=1)


SMALLEST_SIZE = 1e-12  # pixels; without smoothing, where no pixel at all is labelled


def _sum_per_class(values_BKHW: Tensor) -> Tensor:
    return values_BKHW.flatten(2).sum(dim=2).sum(dim=0)
