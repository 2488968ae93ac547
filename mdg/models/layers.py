"""Layers shared by encoders, interaction and decoders.

Maps travel between modules as ``BHWC`` (tokens that keep their grid), the layout of LayerNorm, Linear and neighbourhood
attention. A convolution sees the same memory as a channels-last ``BCHW`` view, so no module copies a map to permute it.

Legend: B batch, H W map height and width, C channels, E embedding width, S input channels, O output channels, M rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mdg.ops import linear, resized_sum
from mdg.ops.dropout import dropout, linear_of_kept
from mdg.ops.feed_forward import gelu_linear
from mdg.ops.linear.onednn import convolve_rows
from mdg.ops.modes import is_exporting


def to_bchw(x_BHWC: Tensor) -> Tensor:
    """The channels-last ``BCHW`` view of a ``BHWC`` map."""
    return x_BHWC.permute(0, 3, 1, 2)


def to_bhwc(x_BCHW: Tensor) -> Tensor:
    """The ``BHWC`` view of a ``BCHW`` map."""
    return x_BCHW.permute(0, 2, 3, 1)


def conv_bhwc(conv: nn.Module, x_BHWC: Tensor) -> Tensor:
    """Applies a 2-D convolution to a ``BHWC`` map."""
    return to_bhwc(conv(to_bchw(x_BHWC)))


def depthwise(channels: int, kernel_size: int, bias: bool = True) -> nn.Conv2d:
    """A depthwise convolution that keeps the size of the map."""
    return nn.Conv2d(channels, channels, kernel_size, padding=kernel_size // 2, groups=channels, bias=bias)


class Linear(nn.Linear):
    """``nn.Linear`` whose product goes through :func:`mdg.ops.linear`, which is faster on a CPU."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


class GroupedLinear(nn.Conv2d):
    """A grouped 1x1 convolution on rows ``[..., S] -> [..., O]``: a group of inputs feeds its group of outputs."""

    def __init__(self, in_channels: int, out_channels: int, groups: int, bias: bool = False):
        super().__init__(in_channels, out_channels, 1, groups=groups, bias=bias)
        # A fan-out variance would blow up a projection of many inputs a group to few outputs; PyTorch's own is fan-in.
        keep_own_init(self)

    def forward(self, x: Tensor) -> Tensor:
        return convolve_rows(x, self.weight, self.bias, self.groups)


def normalization(kind: Literal["layer", "batch"], width: int) -> nn.LayerNorm | nn.BatchNorm2d:
    """``layer``: each position on its own; ``batch``: each channel over the batch."""
    return nn.LayerNorm(width) if kind == "layer" else nn.BatchNorm2d(width)


def normalize_bhwc(norm: nn.LayerNorm | nn.BatchNorm2d, x_BHWC: Tensor) -> Tensor:
    """Applies what :func:`normalization` made to a ``BHWC`` map."""
    return conv_bhwc(norm, x_BHWC) if isinstance(norm, nn.BatchNorm2d) else norm(x_BHWC)


class ConvBatchNorm(nn.Module):
    """1x1 convolution without bias, then BatchNorm, on a ``BHWC`` map."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        return to_bhwc(self.norm(self.conv(to_bchw(x_BHWC))))


class SqueezeExcitation(nn.Module):
    """Channel gate from globally pooled features (Hu et al., CVPR 2018), on a ``BHWC`` map."""

    def __init__(self, channels: int, reduction: int = 16, *, bias: bool = True):
        super().__init__()
        hidden = max(channels // reduction, 1)
        self.reduce = Linear(channels, hidden, bias=bias)
        self.expand = Linear(hidden, channels, bias=bias)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        pooled_BC = x_BHWC.mean(dim=(1, 2))
        gate_BC = torch.sigmoid(self.expand(F.relu(self.reduce(pooled_BC))))
        return x_BHWC * gate_BC[:, None, None, :]


class StarReLU(nn.Module):
    """``s * relu(x)^2 + b`` with learned ``s, b``; unit variance for a unit Gaussian (Yu et al., MetaFormer 2022)."""

    def __init__(self, scale: float = 0.8944, bias: float = -0.4472):
        super().__init__()
        self.scale, self.bias = nn.Parameter(torch.tensor([scale])), nn.Parameter(torch.tensor([bias]))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * F.relu(x).square() + self.bias


class Dropout(nn.Dropout):
    """``nn.Dropout`` through :func:`mdg.ops.dropout.dropout`, which is faster on a CPU."""

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.p) if self.training and self.p > 0 else x


class Mlp(nn.Module):
    """Linear, GELU (or ReLU), dropout, Linear, dropout on the last dimension: ``[..., C] -> [..., out]``."""

    def __init__(
        self,
        channels: int,
        hidden: int,
        out: int | None = None,
        *,
        bias: bool = True,
        dropout: float = 0.0,
        activation: Literal["gelu", "relu"] = "gelu",
    ):
        super().__init__()
        self.activation = activation
        self.fc1 = Linear(channels, hidden, bias=bias)
        self.fc2 = Linear(hidden, out or channels, bias=bias)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.fc1(x)
        if self.activation == "relu":
            return self.dropout(self.fc2(self.dropout(F.relu(hidden))))
        if self.dropout.p == 0 or not self.training:
            return gelu_linear(hidden, self.fc2.weight, self.fc2.bias)
        return self.dropout(self.fc2(self.dropout(F.gelu(hidden))))


class ChannelDropout(nn.Dropout):
    """Drops whole channels of a ``BHWC`` map (Tompson et al., CVPR 2015), as ``nn.Dropout2d`` does for ``BCHW``."""

    def forward(self, x_BHWC: Tensor) -> Tensor:
        if self.p == 0 or not self.training:
            return x_BHWC
        kept_B11C = super().forward(x_BHWC.new_ones(x_BHWC.shape[0], 1, 1, x_BHWC.shape[-1]))
        return x_BHWC * kept_B11C


class DropPath(nn.Module):
    """Stochastic depth (Huang et al., ECCV 2016): in training a residual branch is left out, image by image, with
    probability ``p``, and scaled by ``1 / (1 - p)`` where it is kept. Numbers and use of the generator are timm's."""

    def __init__(self, p: float):
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if self.p == 0 or not self.training:
            return x
        kept = x.new_empty(x.shape[0], *[1] * (x.dim() - 1)).bernoulli_(1 - self.p)
        return x * kept.div_(1 - self.p)

    def extra_repr(self) -> str:
        return f"p={self.p:g}"


class MultiScaleHead(nn.Module):
    """Maps of several scales, all ``E`` wide, to class logits at the scale of the first one.

    The published head resizes the maps, concatenates them and applies a 1x1 convolution, BatchNorm, ReLU, dropout and a
    1x1 classifier. A 1x1 convolution and a bilinear resize commute, so each map is projected at its own scale by its
    slice of that convolution's weight and the projections are resized and summed
    (:func:`mdg.ops.resized_sum`): the same numbers, a third of the products, and no concatenated map.
    """

    def __init__(self, scales: int, width: int, num_classes: int, dropout: float):
        super().__init__()
        self.fuse = Linear(scales * width, width, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.dropout = ChannelDropout(dropout)
        self.classifier = nn.Conv2d(width, num_classes, 1)
        # The general fan-out rule would start with logits of several units, sure of wrong classes.
        keep_own_init(self.classifier)
        nn.init.normal_(self.classifier.weight, std=0.01)
        assert self.classifier.bias is not None
        nn.init.zeros_(self.classifier.bias)

    def forward(self, maps_BHWE: Sequence[Tensor], embeddings: Sequence[nn.Linear] | None = None) -> Tensor:
        """``[B, H_s, W_s, E]`` for every scale, the finest first -> logits ``[B, K, H_1, W_1]``.

        With ``embeddings``, one linear layer ``C_s -> E`` per scale, the maps are ``[B, H_s, W_s, C_s]``. Two linear
        layers in a row are one, so the embedded maps are never made.
        """
        weights: Sequence[Tensor] = self.fuse.weight.chunk(len(maps_BHWE), dim=1)
        biases: list[Tensor | None] = [None] * len(weights)
        if embeddings is not None:
            biases = [weight @ layer.bias for weight, layer in zip(weights, embeddings, strict=True)]
            weights = [weight @ layer.weight for weight, layer in zip(weights, embeddings, strict=True)]
        infers = not (self.training or torch.is_grad_enabled() or is_exporting())
        if infers:  # then the norm is a factor and a term per channel, which the projections take with them
            factor_E, term_E = _affine(self.norm)
            weights = [factor_E[:, None] * weight for weight in weights]
            biases = [None if bias is None else factor_E * bias for bias in biases]
            biases[0] = term_E if biases[0] is None else biases[0] + term_E
        projected = [linear(x, weight, bias) for x, weight, bias in zip(maps_BHWE, weights, biases, strict=True)]
        if infers:
            return self.classifier(to_bchw(resized_sum(projected, relu=True)))
        normalized_BEHW = self.norm(to_bchw(resized_sum(projected)))
        return self._classify(to_bhwc(F.relu(normalized_BEHW, inplace=True)))  # in place of a view would be two copies

    def _classify(self, hidden_BHWE: Tensor) -> Tensor:
        if not self.training or self.dropout.p == 0:
            return self.classifier(to_bchw(hidden_BHWE))
        B, H, W, E = hidden_BHWE.shape
        kept_BE = self.dropout(hidden_BHWE.new_ones(B, 1, 1, E)).view(B, E)
        weight_KE, bias_K = self.classifier.weight.flatten(1), self.classifier.bias
        return to_bchw(linear_of_kept(hidden_BHWE.view(B, H * W, E), kept_BE, weight_KE, bias_K).view(B, H, W, -1))


def _affine(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """What a BatchNorm of fixed statistics does to a channel: times a factor, plus a term."""
    assert norm.running_mean is not None and norm.running_var is not None
    factor_E = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    return factor_E, norm.bias - norm.running_mean * factor_E


def keep_own_init(*modules: nn.Module) -> None:
    """Marks modules that :func:`init_weights` leaves as they are."""
    for module in modules:
        module._own_init = True  # type: ignore[assignment]  # a mark, no part of the network


def init_weights(module: nn.Module) -> None:
    """The usual initialisation of MiT and its decoders; for ``nn.Module.apply``.

    Linear: truncated normal, std 0.02. Convolution: normal with fan-out variance. Norms: identity. What
    :func:`keep_own_init` marked stays as it is.
    """
    if getattr(module, "_own_init", False):
        return
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
    elif isinstance(module, nn.Conv2d):
        fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=math.sqrt(2.0 / fan_out))
    elif isinstance(module, (nn.LayerNorm, nn.BatchNorm2d)):
        nn.init.ones_(module.weight)
    else:
        return
    if module.bias is not None:
        nn.init.zeros_(module.bias)
