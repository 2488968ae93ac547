"""UperNet whose levels are weighed by their own high or low frequencies: the decoder of TriKD (arXiv 2309.12557, IEEE
TMM 2025), the same for a light transformer, a convolutional network and a plain ViT.

The lateral maps keep few channels, and which of them matter follows from one band of their spectrum: where a channel
has edges at the fine stages, where it has areas at stage 3.

Legend: B batch, s stage, H W map, F = W//2 + 1 columns of the real spectrum, C channels of the encoder, c channels of
the level, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from mdg.models.decoders.upernet import classifier, convolution, fuse_levels, with_pooled
from mdg.models.layers import init_weights, to_bchw
from mdg.ops.fourier import column_frequencies, filter_spectrum, row_frequencies
from mdg.ops.modes import float32_island
from mdg.ops.resize import resize_bilinear
from mdg.options.models import DualFrequencyDecoderOptions
from mdg.registry import DECODERS

Band = Literal["low", "high"]
WIDTHS = {"tiny": (48, 96, 192, 320), "cnn": (128, 256, 256, 512), "vit": (48, 96, 192, 256)}


def gaussian_lowpass(height: int, width: int, sigma: float, device: torch.device) -> Tensor:
    """``[H, F]`` float32, ``exp(-r^2 / (2 sigma^2))`` of the distance ``r`` to frequency zero in bins: one there, which
    is row ``H // 2`` and column ``W // 2`` of the shifted spectrum."""
    rows = height * row_frequencies(height, device)[:, None]
    columns = width * column_frequencies(width, device)
    return torch.exp(-(rows**2 + columns**2) / (2 * sigma**2))


class FrequencySelection(nn.Module):
    """``x + a x`` with ``a = sigmoid(W mean |filtered x|)``, one weight a channel and image.

    The filtered map makes the weights and goes no further. The Gaussian is even, so the filtered map of a real map is
    real, and its magnitude is that of the complex inverse transform. Spectra are float32 whatever the autocast dtype.

    Args:
        channels: ``C``.
        band: ``low``, or ``high``, which is one minus ``low``.
        sigma: Standard deviation in bins.
    """

    def __init__(self, channels: int, band: Band, sigma: float):
        super().__init__()
        self.band, self.sigma = band, sigma
        self.weigh = nn.Conv2d(channels, channels, 1, bias=False)

    def strength(self, x_BCHW: Tensor) -> Tensor:
        """Mean magnitude of the filtered map, ``[B, C, 1, 1]`` float32."""
        with float32_island(x_BCHW):
            gate_HF = gaussian_lowpass(x_BCHW.shape[-2], x_BCHW.shape[-1], self.sigma, x_BCHW.device)
            gate_HF = gate_HF if self.band == "low" else 1 - gate_HF
            return filter_spectrum(x_BCHW.float(), gate_HF).abs().mean(dim=(2, 3), keepdim=True)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return x_BCHW + torch.sigmoid(self.weigh(self.strength(x_BCHW))) * x_BCHW

    def extra_repr(self) -> str:
        return f"band={self.band}, sigma={self.sigma:g}"


@DECODERS.register(DualFrequencyDecoderOptions)
class DualFrequencyDecoder(nn.Module):
    """Pyramid pooling at stage 4, frequency selection at the others, a feature pyramid, one classifier.

    Args:
        options: Widths of the levels, grids of the pooling, bands of the stages, width and dropout before the
            classifier.
        widths: ``C_1 .. C_4``.
        num_classes: ``K``.
    """

    def __init__(self, options: DualFrequencyDecoderOptions, *, widths: Sequence[int], num_classes: int):
        super().__init__()
        levels = WIDTHS[options.level_widths] if isinstance(options.level_widths, str) else options.level_widths
        self.grids, top = options.pool_sizes, levels[-1]
        self.pooled = nn.ModuleList(nn.Conv2d(widths[-1], top, 1) for _ in self.grids)
        self.deepest = convolution(widths[-1] + len(self.grids) * top, top, 3)
        bands: dict[int, Band] = dict.fromkeys(options.low_stages, "low")
        bands |= dict.fromkeys(options.high_stages, "high")
        self.select = nn.ModuleList(
            FrequencySelection(channels, bands[stage], options.sigma) if stage in bands else nn.Identity()
            for stage, channels in enumerate(widths[:-1], start=1)
        )
        self.lateral = nn.ModuleList(
            nn.Conv2d(channels, level, 1, bias=False) for channels, level in zip(widths, levels[:-1], strict=False)
        )
        self.down = nn.ModuleList(nn.Conv2d(levels[s + 1], levels[s], 1) for s in range(len(levels) - 1))
        self.smooth = nn.ModuleList(convolution(level, level, 3) for level in levels[:-1])
        self.fuse = convolution(sum(levels), options.embed_dim, 3)
        self.dropout = nn.Dropout2d(options.dropout)
        self.classifier = classifier(options.embed_dim, num_classes)
        self.apply(init_weights)

    def forward(self, maps_BHWC: Sequence[Tensor]) -> Tensor:
        """Maps ``[B, H_s, W_s, C_s]``, finest first -> logits ``[B, K, H_1, W_1]``."""
        *finer, deepest = map(to_bchw, maps_BHWC)
        path = [self.deepest(with_pooled(deepest, self.grids, self.pooled))]
        for s in reversed(range(len(finer))):
            lateral_BcHW = self.lateral[s](self.select[s](finer[s]))
            path.insert(0, lateral_BcHW + resize_bilinear(self.down[s](path[0]), lateral_BcHW.shape[-2:]))
        return self.classifier(self.dropout(fuse_levels(path, self.smooth, self.fuse)))
