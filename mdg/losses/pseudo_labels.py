"""What networks learn from one another where there is no label.

Classes come from the arg-max of another network and carry no gradient to it. Only pixels that count are averaged over:
those of padding and of what no camera saw never do.

Legend: B batch, K classes, H W pixels, h w a map, C width, N = h*w positions, V views.

References: Chen et al., Cross Pseudo Supervision, CVPR 2021; TriKD (arXiv 2309.12557); Sohn et al., FixMatch, NeurIPS
2020; Tarvainen and Valpola, Mean Teacher, NeurIPS 2017.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def pseudo_cross_entropy(
    logits_BKHW: Tensor, target_BHW: Tensor, weight_BHW: Tensor, class_balance: bool = False
) -> Tensor:
    """Weighted mean of the cross-entropy, float32; zero where nothing has a weight.

    Args:
        logits_BKHW: Of the network that learns.
        target_BHW: Class ids int64.
        weight_BHW: How much a pixel counts, 0 where it does not.
        class_balance: The mean over the classes that occur of the mean over their pixels.
    """
    loss_BHW = F.cross_entropy(logits_BKHW.float(), target_BHW, reduction="none") * weight_BHW
    if not class_balance:
        return loss_BHW.sum() / weight_BHW.sum().clamp(min=1e-6)
    # Sums over a mask per class, which are trees and the same in any order of execution.
    classes_K111 = torch.arange(logits_BKHW.shape[1], device=logits_BKHW.device)[:, None, None, None]
    own_KBHW = target_BHW == classes_K111
    weight_K = (own_KBHW * weight_BHW).sum((1, 2, 3))
    mean_K = (own_KBHW * loss_BHW).sum((1, 2, 3)) / weight_K.clamp(min=1e-6)
    present_K = (weight_K > 0).float()
    return (mean_K * present_K).sum() / present_K.sum().clamp(min=1)


def cross_pseudo_supervision(
    logits: Sequence[Tensor],
    seen_BHW: Tensor,
    *,
    threshold: float = 0.0,
    agreement: bool = False,
    reliability_BHW: Tensor | None = None,
    class_balance: bool = False,
) -> Tensor:
    """Each view learns from the arg-max of every other one: the sum over all ordered pairs, float32.

    Args:
        logits: ``[B, K, H, W]`` per view.
        seen_BHW: bool, the pixels that count.
        threshold: Least probability of a class to be learnt from.
        agreement: Learn only where all other views have the same arg-max.
        reliability_BHW: Further weights of the pixels.
        class_balance: See :func:`pseudo_cross_entropy`.
    """
    with torch.no_grad():
        known = [view.float().softmax(1).max(1) for view in logits]  # values, indices
        weight_BHW = seen_BHW.float() if reliability_BHW is None else seen_BHW * reliability_BHW
    total = logits[0].new_zeros((), dtype=torch.float32)
    for own, learner_BKHW in enumerate(logits):
        others = [known[view] for view in range(len(logits)) if view != own]
        agreed_BHW = torch.stack([(other.indices == others[0].indices) for other in others]).all(0)
        for other in others:
            counts_BHW = weight_BHW * (other.values >= threshold)
            counts_BHW = counts_BHW * agreed_BHW if agreement else counts_BHW
            total = total + pseudo_cross_entropy(learner_BKHW, other.indices, counts_BHW, class_balance)
    return total


def feature_distance(learner_BhwC: Tensor, teacher_BhwC: Tensor) -> Tensor:
    """Mean squared difference of two maps, float32; the teacher gets no gradient."""
    return F.mse_loss(learner_BhwC.float(), teacher_BhwC.detach().float())


def affinity_divergence(learner_BhwC: Tensor, teacher_BhwC: Tensor) -> Tensor:
    """KL divergence of the learner's affinities from the teacher's, float32: of every position to all others, softmax
    of scaled products, the mean over positions. The teacher gets no gradient; widths may differ."""
    return row_divergence(_affinity(learner_BhwC), _affinity(teacher_BhwC))


def _affinity(map_BhwC: Tensor) -> Tensor:
    tokens_BNC = map_BhwC.float().flatten(1, 2)
    return tokens_BNC @ tokens_BNC.transpose(1, 2) * tokens_BNC.shape[-1] ** -0.5


def row_divergence(learner_NN: Tensor, teacher_NN: Tensor) -> Tensor:
    """KL divergence of the softmax of the learner's rows from that of the teacher's, both ``[..., N, N]`` scores: the
    mean over all rows, float32. The teacher gets no gradient."""
    learner_NN, teacher_NN = learner_NN.float().log_softmax(-1), teacher_NN.detach().float().log_softmax(-1)
    return F.kl_div(learner_NN, teacher_NN, reduction="none", log_target=True).sum(-1).mean()


def resize_affinity(scores_ANN: Tensor, grid: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Scores between the positions of one grid, to those of another.

    Rows and columns of a flattened grid are no picture: scores are a function of two positions, and are interpolated
    bilinearly in the grid of each. Products of queries and keys become those of the interpolated queries and keys.

    Args:
        scores_ANN: ``A`` matrices of ``N = grid[0] * grid[1]`` queries by as many keys, row by row.
        grid, new: Height and width.

    Returns:
        ``[A, M, M]`` float32 with ``M = new[0] * new[1]``.
    """
    if grid == new:
        return scores_ANN.float()
    for _ in range(2):  # the keys, then, the matrix turned over, the queries
        rows_ANhw = scores_ANN.float().unflatten(2, grid)
        wide_ANM = F.interpolate(rows_ANhw, new, mode="bilinear", align_corners=False).flatten(2)
        scores_ANN = wide_ANM.transpose(1, 2)
    return scores_ANN


def ramp(step: float, length: float) -> float:
    """Grows from 0 to 1 over ``length`` by ``exp(-5 (1 - t)^2)`` (Laine and Aila, ICLR 2017); 1 without a
    length."""
    if length <= 0 or step >= length:
        return 1.0
    return float(torch.exp(torch.tensor(-5.0 * (1 - step / length) ** 2)))
