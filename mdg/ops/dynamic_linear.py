"""Dynamic linear: tokens times matrices that are generated per cell of a coarser map, in the cheapest of three ways.

The matrix of a cell is linear in its condition, ``M_ce = b_ce + sum_k r_k W_cek``. So there are two ways to ``y = x M``
that differ by rounding: generate ``M``, or multiply every ``x_c`` by its group's conditions first,

    y_e = sum_c x_c b_ce + sum_ck (x_c r_k) W_cek

which is one linear layer of ``C (1 + K)`` inputs. A cell of few tokens has fewer such inputs than its matrix has
entries; writing matrices and their gradients to memory then costs far more than the additional products. The third way:
in training on a CPU generated matrices, the largest tensors of the network, are not kept for the backward pass.

Legend: B batch, C input width, E output width, R condition width, h w grid of cells, p q cell in tokens, H = h*p,
W = w*q, G groups, K = R/G, J = K + 1; the generator gives F = C*E numbers.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mdg.ops.linear import linear
from mdg.ops.modes import autocast_dtype, is_exporting, keeps_inputs_only

MAX_WEIGHTS = 2**25  # generated weights held at once, 128 MB in float32; images beyond it go through one after another


def dynamic_linear(x_BHWC: Tensor, condition_BhwR: Tensor, weight_FK: Tensor, bias_F: Tensor, groups: int) -> Tensor:
    """``y = x M(r)``: every token by the matrix that its cell generates.

    Args:
        x_BHWC: Tokens ``[B, H, W, C]``; H and W multiples of h and w.
        condition_BhwR: Condition ``[B, h, w, R]``.
        weight_FK, bias_F: The generator, a grouped linear layer from R to ``C * E`` numbers, rows of the matrix first.
        groups: Its groups; they divide R and ``C * E``.

    Returns:
        ``[B, H, W, E]``.
    """
    (H, W), (h, w) = x_BHWC.shape[1:3], condition_BhwR.shape[1:3]
    p, q = H // h, W // w
    assert (p * h, q * w) == (H, W), f"map {H}x{W} does not divide into {h}x{w} cells"
    C = x_BHWC.shape[-1]
    if p * q * (1 + weight_FK.shape[1]) < weight_FK.shape[0] // C and C % groups == 0:
        return _by_products(x_BHWC, condition_BhwR, weight_FK, bias_F, groups)
    if is_exporting():  # how many images fit is for the runtime to know
        return _by_matrices(x_BHWC, condition_BhwR, weight_FK, bias_F, groups)
    images = max(1, MAX_WEIGHTS // (h * w * weight_FK.shape[0]))
    parts = zip(x_BHWC.split(images), condition_BhwR.split(images), strict=True)
    outs = [_by_matrices(x, condition, weight_FK, bias_F, groups) for x, condition in parts]
    return outs[0] if len(outs) == 1 else torch.cat(outs)


def _by_products(x_BHWC: Tensor, condition_BhwR: Tensor, weight_FK: Tensor, bias_F: Tensor, G: int) -> Tensor:
    """Every input by every condition of its group, and by one for the bias; then a linear layer."""
    (B, H, W, C), (h, w), (_, K) = x_BHWC.shape, condition_BhwR.shape[1:3], weight_FK.shape
    if (dtype := autocast_dtype(x_BHWC)) is not None:  # the products are many, so they are made in it
        x_BHWC, condition_BhwR = x_BHWC.to(dtype), condition_BhwR.to(dtype)
    with_one_BhwGJ = F.pad(condition_BhwR.unflatten(-1, (G, K)), (0, 1), value=1.0)
    x = x_BHWC.reshape(B, h, H // h, w, W // w, G, C // G, 1)
    products_BHWI = (x * with_one_BhwGJ[:, :, None, :, None, :, None]).view(B, H, W, C * (K + 1))
    weight_CEJ = torch.cat([weight_FK.view(C, -1, K), bias_F.view(C, -1, 1)], dim=-1)
    E = weight_CEJ.shape[1]
    return linear(products_BHWI, weight_CEJ.transpose(0, 1).reshape(E, -1))


def _by_matrices(x_BHWC: Tensor, condition_BhwR: Tensor, weight_FK: Tensor, bias_F: Tensor, groups: int) -> Tensor:
    inputs = (x_BHWC, condition_BhwR, weight_FK, bias_F, groups)
    if keeps_inputs_only(x_BHWC):
        return checkpoint(_generate_and_multiply, *inputs, use_reentrant=False, preserve_rng_state=False)
    return _generate_and_multiply(*inputs)


def _generate_and_multiply(
    x_BHWC: Tensor, condition_BhwR: Tensor, weight_FK: Tensor, bias_F: Tensor, groups: int
) -> Tensor:
    """One product of matrices per cell."""
    (B, H, W, C), (h, w) = x_BHWC.shape, condition_BhwR.shape[1:3]
    p, q = H // h, W // w
    matrices_BFhw = F.conv2d(condition_BhwR.permute(0, 3, 1, 2), weight_FK[:, :, None, None], bias_F, groups=groups)
    matrix_MCE = matrices_BFhw.permute(0, 2, 3, 1).reshape(B * h * w, C, -1)
    tokens_MPC = x_BHWC.reshape(B, h, p, w, q, C).transpose(2, 3).reshape(B * h * w, p * q, C)
    out_MPE = torch.bmm(tokens_MPC.to(matrix_MCE.dtype), matrix_MCE)
    return out_MPE.reshape(B, h, w, p, q, -1).transpose(2, 3).reshape(B, H, W, -1)
