"""UperNet (Xiao et al., ECCV 2018): a pyramid of pooled maps on the deepest one, and a feature pyramid on top of it.

Legend: B batch, s stage, H_s W_s map of stage s, C_s width, E width of the pyramid, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mdg.models.layers import init_weights, keep_own_init, to_bchw
from mdg.ops.resize import resize_bilinear
from mdg.options.models import UperNetDecoderOptions
from mdg.registry import DECODERS


def convolution(in_channels: int, out_channels: int, kernel_size: int) -> nn.Sequential:
    """Convolution that keeps the size of the map, BatchNorm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


def classifier(width: int, num_classes: int) -> nn.Conv2d:
    """A 1x1 convolution to logits near zero, which is sure of no class at the start."""
    layer = nn.Conv2d(width, num_classes, 1)
    keep_own_init(layer)
    nn.init.normal_(layer.weight, std=0.01)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


def with_pooled(deepest_BCHW: Tensor, grids: Sequence[int], convolutions: nn.ModuleList) -> Tensor:
    """The deepest map and what it shows on each grid, one behind the other along the channels.

    Args:
        deepest_BCHW: Map of stage 4.
        grids: Sides of the grids.
        convolutions: A 1x1 convolution for each grid.
    """
    # No BatchNorm behind the pooling: on a grid of one cell and a batch of one image it has nothing to normalise.
    pooled = [
        resize_bilinear(F.relu(conv(F.adaptive_avg_pool2d(deepest_BCHW, grid))), deepest_BCHW.shape[-2:])
        for grid, conv in zip(grids, convolutions, strict=True)
    ]
    return torch.cat([deepest_BCHW, *pooled], dim=1)


def fuse_levels(levels_BCHW: Sequence[Tensor], smooth: nn.ModuleList, fuse: nn.Module) -> Tensor:
    """The levels of the pyramid, finest first, as one map of the finest size: all but the deepest are smoothed, all are
    resized, ``fuse`` sees them one behind the other along the channels."""
    *finer, deepest = levels_BCHW
    smoothed = [layer(x) for layer, x in zip(smooth, finer, strict=True)] + [deepest]
    return fuse(torch.cat([resize_bilinear(x, finer[0].shape[-2:]) for x in smoothed], dim=1))


@DECODERS.register(UperNetDecoderOptions)
class UperNetDecoder(nn.Module):
    """Pyramid pooling, feature pyramid, one classifier on the four maps together.

    Args:
        options: Width, grids of the pooling, dropout.
        widths: ``C_1 .. C_4``.
        num_classes: ``K``.
    """

    def __init__(self, options: UperNetDecoderOptions, *, widths: Sequence[int], num_classes: int):
        super().__init__()
        width, self.grids = options.embed_dim, options.grids
        self.pooled = nn.ModuleList(nn.Conv2d(widths[-1], width, 1) for _ in self.grids)
        self.deepest = convolution(widths[-1] + len(self.grids) * width, width, 3)
        self.lateral = nn.ModuleList(convolution(channels, width, 1) for channels in widths[:-1])
        self.smooth = nn.ModuleList(convolution(width, width, 3) for _ in widths[:-1])
        self.fuse = convolution(len(widths) * width, width, 3)
        self.dropout = nn.Dropout2d(options.dropout)
        self.classifier = classifier(width, num_classes)
        self.apply(init_weights)

    def forward(self, maps_BHWC: Sequence[Tensor]) -> Tensor:
        """Maps ``[B, H_s, W_s, C_s]``, finest first -> logits ``[B, K, H_1, W_1]``."""
        *finer, deepest = map(to_bchw, maps_BHWC)
        path = [self.deepest(with_pooled(deepest, self.grids, self.pooled))]
        for lateral, finer_map in zip(reversed(self.lateral), reversed(finer), strict=True):
            path.insert(0, lateral(finer_map) + resize_bilinear(path[0], finer_map.shape[-2:]))
        return self.classifier(self.dropout(fuse_levels(path, self.smooth, self.fuse)))
