"""Dynamic linear: every cell of the deepest map generates the matrix for the tokens of a finer map that lie in it.

Legend: B batch, C input width, E embedding width, D width of the deepest map, R = D/2 condition width,
h w grid of the deepest map (cells), p = 2^(4-s) side of a cell at stage s, H = h*p, W = w*p, G groups, K = R/G.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mdg.errors import ConfigError
from mdg.models.layers import Linear, StarReLU, conv_bhwc, depthwise
from mdg.models.recompute import keeps_inputs_only
from mdg.ops import linear
from mdg.ops.precision import autocast_dtype

MAX_WEIGHTS = 2**25  # generated weights held at once, 128 MB in float32; images beyond it go through one after another


class ConditionBranch(nn.Module):
    """``h = StarReLU(Norm(DW3x3(Conv1x1(F^4))))``: ``[B, h, w, D] -> [B, h, w, D/2]``.

    The norm is a LayerNorm: a generated weight should depend on its own cell, not on the batch.
    """

    def __init__(self, deepest_width: int):
        super().__init__()
        self.width = deepest_width // 2
        self.reduce = Linear(deepest_width, self.width)
        self.conv = depthwise(self.width, 3)
        self.norm = nn.LayerNorm(self.width)
        self.act = StarReLU()

    def forward(self, deepest_BhwD: Tensor) -> Tensor:
        return self.act(self.norm(conv_bhwc(self.conv, self.reduce(deepest_BhwD))))


class DynamicLinear(nn.Module):
    """A linear layer ``C -> E`` whose ``C x E`` matrix is generated per cell of the stage-4 grid (section 4).

    The matrix is linear in the condition, ``M_ce = b_ce + sum_k r_k W_cek``, so there are two ways to ``y = x M``, the
    same numbers but for rounding: generate M, or multiply every ``x_c`` by its group's conditions first,

        y_e = sum_c x_c b_ce + sum_ck (x_c r_k) W_cek

    which is one linear layer of ``C (1 + K)`` inputs. A cell of few tokens has fewer such inputs than its matrix has
    entries; writing matrices and their gradients to memory then costs far more than the additional products.

    In training on a CPU the generated matrices, the largest tensors of the network, are not kept for the backward pass.
    """

    def __init__(self, condition_width: int, width: int, embed_dim: int, groups: int):
        super().__init__()
        if condition_width % groups or (width * embed_dim) % groups:
            raise ConfigError(
                f"model.decoder.groups: {groups} groups must divide both the {condition_width} channels of the "
                f"condition and the {width * embed_dim} generated weights"
            )
        self.width, self.embed_dim = width, embed_dim
        self.generator = nn.Conv2d(condition_width, width * embed_dim, 1, groups=groups)
        self._init_generator(condition_width // groups)

    def _init_generator(self, fan_in: int) -> None:
        # At first a static random matrix (the bias) with a varying part of half its size, unit gain in total; the
        # general fan-out rule would make the generated weights vanish.
        self.generator._own_init = True
        gain = 1 / math.sqrt(1.25 * self.width)
        nn.init.trunc_normal_(self.generator.bias, std=gain, a=-2 * gain, b=2 * gain)
        nn.init.normal_(self.generator.weight, std=0.5 * gain / math.sqrt(fan_in))

    def forward(self, x_BHWC: Tensor, condition_BhwR: Tensor) -> Tensor:
        """Tokens ``[B, H, W, C]`` and condition ``[B, h, w, R]`` -> ``[B, H, W, E]``; H and W multiples of h and w."""
        (H, W), (h, w) = x_BHWC.shape[1:3], condition_BhwR.shape[1:3]
        p, q = H // h, W // w
        assert (p * h, q * w) == (H, W), f"map {H}x{W} does not divide into {h}x{w} cells"
        if p * q * (1 + self.generator.weight.shape[1]) < self.embed_dim and self.width % self.generator.groups == 0:
            return self._expanded(x_BHWC, condition_BhwR)
        images = max(1, MAX_WEIGHTS // (h * w * self.width * self.embed_dim))
        parts = zip(x_BHWC.split(images), condition_BhwR.split(images), strict=True)
        outs = [self._part(x, condition) for x, condition in parts]
        return outs[0] if len(outs) == 1 else torch.cat(outs)

    def _expanded(self, x_BHWC: Tensor, condition_BhwR: Tensor) -> Tensor:
        """Every input by every condition of its group, and by one for the bias; then a linear layer."""
        G, K = self.generator.groups, self.generator.weight.shape[1]
        (B, H, W, C), (h, w) = x_BHWC.shape, condition_BhwR.shape[1:3]
        if (dtype := autocast_dtype(x_BHWC)) is not None:  # the products are many, so they are made in it
            x_BHWC, condition_BhwR = x_BHWC.to(dtype), condition_BhwR.to(dtype)
        with_one_BhwGJ = F.pad(condition_BhwR.unflatten(-1, (G, K)), (0, 1), value=1.0)  # J = K + 1
        x = x_BHWC.reshape(B, h, H // h, w, W // w, G, C // G, 1)
        products_BHWI = (x * with_one_BhwGJ[:, :, None, :, None, :, None]).view(B, H, W, C * (K + 1))
        weight_CEK = self.generator.weight.view(C, self.embed_dim, K)
        bias_CE1 = self.generator.bias.view(C, self.embed_dim, 1)
        weight_CEJ = torch.cat([weight_CEK, bias_CE1], dim=-1)
        return linear(products_BHWI, weight_CEJ.transpose(0, 1).reshape(self.embed_dim, -1))

    def _part(self, x_BHWC: Tensor, condition_BhwR: Tensor) -> Tensor:
        if keeps_inputs_only(x_BHWC):
            return checkpoint(self._generated, x_BHWC, condition_BhwR, use_reentrant=False, preserve_rng_state=False)
        return self._generated(x_BHWC, condition_BhwR)

    def _generated(self, x_BHWC: Tensor, condition_BhwR: Tensor) -> Tensor:
        """One product of matrices per cell."""
        B, H, W, C = x_BHWC.shape
        h, w = condition_BhwR.shape[1:3]
        p, q = H // h, W // w
        matrix_MCE = conv_bhwc(self.generator, condition_BhwR).reshape(B * h * w, C, self.embed_dim)
        tokens_MPC = x_BHWC.reshape(B, h, p, w, q, C).transpose(2, 3).reshape(B * h * w, p * q, C)
        out_MPE = torch.bmm(tokens_MPC.to(matrix_MCE.dtype), matrix_MCE)
        return out_MPE.reshape(B, h, w, p, q, self.embed_dim).transpose(2, 3).reshape(B, H, W, self.embed_dim)
