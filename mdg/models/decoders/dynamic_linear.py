"""Dynamic linear: every cell of the deepest map generates the matrix for the tokens of a finer map that lie in it.

Legend: B batch, C input width, E embedding width, D width of the deepest map, R = D/2 condition width,
h w grid of the deepest map (cells), p = 2^(4-s) side of a cell at stage s, H = h*p, W = w*p, G groups, K = R/G.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mdg.errors import ConfigError
from mdg.models.layers import Linear, StarReLU, conv_bhwc, depthwise, keep_own_init, normalization, normalize_bhwc
from mdg.ops.dynamic_linear import dynamic_linear
from mdg.options.models import Norm


class ConditionBranch(nn.Module):
    """``h = StarReLU(Norm(DW3x3(Conv1x1(F^4))))``: ``[B, h, w, D] -> [B, h, w, D/2]``.

    Args:
        deepest_width: ``D``.
        norm: ``layer``, so that a generated weight depends on its own cell and not on the batch; or ``batch``.
        star_relu: First scale and bias of StarReLU.
    """

    def __init__(self, deepest_width: int, *, norm: Norm, star_relu: tuple[float, float]):
        super().__init__()
        self.width = deepest_width // 2
        self.reduce = Linear(deepest_width, self.width)
        self.conv = depthwise(self.width, 3)
        self.norm = normalization(norm, self.width)
        self.act = StarReLU(*star_relu)

    def forward(self, deepest_BhwD: Tensor) -> Tensor:
        mixed_BhwR = conv_bhwc(self.conv, self.reduce(deepest_BhwD))
        return self.act(normalize_bhwc(self.norm, mixed_BhwR))


class DynamicLinear(nn.Module):
    """A linear layer ``C -> E`` whose ``C x E`` matrix is generated per cell of the stage-4 grid
    (docs/model.md, section 4).

    The matrix is linear in the condition: ``y_e = sum_c x_c M_ce`` with ``M_ce = b_ce + sum_k r_k W_cek``, where
    ``r_k`` runs over the K conditions of the group that ``ce`` belongs to. :mod:`mdg.ops.dynamic_linear` computes it.

    Args:
        condition_width, width, embed_dim, groups: Numbers of conditions, ``C``, ``E``, and groups of both.
        rate: What ``b`` and ``W`` are kept in units of. They begin alike whatever it is, and learn so much slower under
            optimizers whose steps do not depend on the size of gradients (AdamW).
    """

    def __init__(self, condition_width: int, width: int, embed_dim: int, groups: int, rate: float = 1.0):
        super().__init__()
        if condition_width % groups or (width * embed_dim) % groups:
            raise ConfigError(
                f"model.decoder.groups: {groups} groups must divide both the {condition_width} channels of the "
                f"condition and the {width * embed_dim} generated weights"
            )
        self.width, self.embed_dim, self.rate = width, embed_dim, rate
        self.generator = nn.Conv2d(condition_width, width * embed_dim, 1, groups=groups)
        self._init_generator(condition_width // groups)

    def _init_generator(self, fan_in: int) -> None:
        # At first a static random matrix (the bias) with a varying part of half its size, unit gain in total; the
        # general fan-out rule would make the generated weights vanish.
        keep_own_init(self.generator)
        gain = 1 / math.sqrt(1.25 * self.width)
        assert self.generator.bias is not None
        nn.init.trunc_normal_(self.generator.bias, std=gain, a=-2 * gain, b=2 * gain)
        nn.init.normal_(self.generator.weight, std=0.5 * gain / math.sqrt(fan_in))
        with torch.no_grad():
            for parameter in self.generator.parameters():
                parameter.div_(self.rate)

    def forward(self, x_BHWC: Tensor, condition_BhwR: Tensor) -> Tensor:
        """Tokens ``[B, H, W, C]`` and condition ``[B, h, w, R]`` -> ``[B, H, W, E]``; H and W multiples of h and w."""
        weight_FK, bias_F = self.generator.weight[:, :, 0, 0], self.generator.bias
        assert bias_F is not None
        if self.rate != 1:
            # Steps of Adam and its kin have one size whatever a weight's is: what is kept larger moves less.
            weight_FK, bias_F = self.rate * weight_FK, self.rate * bias_F
        return dynamic_linear(x_BHWC, condition_BhwR, weight_FK, bias_F, self.generator.groups)
