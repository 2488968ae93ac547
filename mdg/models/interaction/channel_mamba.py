"""Channel Mamba (CM): a bidirectional selective scan over the channels of both modalities at every single position.

Legend: B batch, H W map, C width, E = r*C expanded width, G features per token, T = E/G tokens per modality,
K positions computed (the selected ones, or all), N = B*K rows, L = 2T sequence length, S state size.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mdg.errors import ConfigError
from mdg.models.layers import Dropout, GroupedLinear, Mlp, conv_bhwc, depthwise, keep_own_init
from mdg.ops import channel_scan, linear
from mdg.ops.modes import float32_island
from mdg.options.models import ChannelMambaOptions


class SelectiveScanDirection(nn.Module):
    """Parameters of one scan direction, initialised as in Mamba (Gu and Dao, 2023)."""

    def __init__(self, features: int, state: int, dt_rank: int, step_range: tuple[float, float]):
        super().__init__()
        self.x_proj = nn.Linear(features, dt_rank + 2 * state, bias=False)
        self.dt_proj = nn.Linear(dt_rank, features)
        self.A_log = nn.Parameter(torch.log(torch.arange(1, state + 1, dtype=torch.float32)).repeat(features, 1))
        self.D = nn.Parameter(torch.ones(features))
        self._init_projections(dt_rank, *step_range)

    def _init_projections(self, dt_rank: int, dt_min: float, dt_max: float) -> None:
        keep_own_init(self.x_proj, self.dt_proj)
        nn.init.uniform_(self.dt_proj.weight, -(dt_rank**-0.5), dt_rank**-0.5)
        dt = torch.exp(torch.rand(self.dt_proj.out_features) * math.log(dt_max / dt_min) + math.log(dt_min))
        with torch.no_grad():
            self.dt_proj.bias.copy_(dt + torch.log(-torch.expm1(-dt)))  # softplus of the bias gives dt


class ChannelScan(nn.ModuleList):
    """Sum of the scans from RGB to thermal and, with two directions, back: ``[N, L, G] -> [N, L, G]`` float32."""

    def __init__(self, options: ChannelMambaOptions):
        sizes = options.features, options.state, options.dt_rank, options.step_range
        directions = 2 if options.bidirectional else 1
        super().__init__(SelectiveScanDirection(*sizes) for _ in range(directions))

    def step_sizes(self, tokens_NLG: Tensor) -> list[Tensor]:
        """``dt`` of every token and feature by direction, as the scan computes it inside; ``[N, L, G]`` float32."""
        found = []
        for direction in self:
            assert isinstance(direction, SelectiveScanDirection)
            delta_NLR = F.linear(tokens_NLG.float(), direction.x_proj.weight[: direction.dt_proj.in_features])
            found.append(F.softplus(direction.dt_proj(delta_NLR)))
        return found

    def _stack(self, name: str) -> Tensor:
        return torch.stack([direction.get_parameter(name) for direction in self])

    def forward(self, tokens_NLG: Tensor) -> Tensor:
        # Under autocast these narrow products would round the step size to 8 bits; the scan is a float32 island.
        with float32_island(tokens_NLG):
            tokens_NLG = tokens_NLG.float()
            projected_NLP = linear(tokens_NLG, self._stack("x_proj.weight").flatten(0, 1))
            return channel_scan(
                tokens_NLG,
                projected_NLP,
                self._stack("dt_proj.weight"),
                self._stack("dt_proj.bias"),
                -torch.exp(self._stack("A_log")),
                self._stack("D"),
            )


class ModalityTokens(nn.Module):
    """The two ends of CM for one modality: map to channel tokens before the scan, tokens to features after it."""

    def __init__(self, width: int, expanded: int, options: ChannelMambaOptions):
        super().__init__()
        features, dropout = options.features, options.dropout
        self.features, self.strided = features, options.tokens == "strided"
        self.norm_tokens, self.add_normalized = options.output_norm == "tokens", options.residual == "normalized"
        self.norm = nn.LayerNorm(width)
        self.expand = GroupedLinear(width, expanded, groups=width // 4)
        self.conv = depthwise(expanded, 3)
        self.out_norm = nn.LayerNorm(expanded // features if self.norm_tokens else expanded)
        self.project = GroupedLinear(expanded, width, groups=width // 4)
        self.dropout = Dropout(dropout)
        self.ffn_norm = nn.LayerNorm(width)
        self.ffn = Mlp(width, 2 * width, dropout=dropout)

    def tokens(self, u_BHWC: Tensor, index_N: Tensor | None) -> Tensor:
        """``[B, H, W, C] -> [N, T, G]`` at the rows ``index_N`` (None: all); a token is G neighbouring channels, or
        every T-th one."""
        expanded_BHWE = conv_bhwc(self.conv, self.expand(self.norm(u_BHWC)))
        channels_NE = F.silu(take_rows(expanded_BHWE, index_N))
        if self.strided:
            return channels_NE.unflatten(-1, (self.features, -1)).transpose(1, 2).contiguous()
        return channels_NE.unflatten(-1, (-1, self.features))

    def finish(self, scanned_NTG: Tensor, u_NC: Tensor) -> Tensor:
        """``[N, T, G]`` and the residual ``[N, C]`` -> ``V`` ``[N, C]``."""
        y_NC = self.project(self._channels(scanned_NTG))
        u_NC = (self.norm(u_NC) if self.add_normalized else u_NC) + self.dropout(y_NC)
        return u_NC + self.ffn(self.ffn_norm(u_NC))

    def _channels(self, scanned_NTG: Tensor) -> Tensor:
        """Tokens, normalised, as channels ``[N, E]`` again, each where it came from."""
        if self.norm_tokens:
            scanned_NTG = self.out_norm(scanned_NTG.transpose(1, 2)).transpose(1, 2)
        channels_NE = (scanned_NTG.transpose(1, 2) if self.strided else scanned_NTG).flatten(1)
        return channels_NE if self.norm_tokens else self.out_norm(channels_NE)


def take_rows(x_BHWC: Tensor, index_N: Tensor | None) -> Tensor:
    """Rows ``[N, C]`` of a map at flat positions into ``B*H*W``; all of them where the index is None."""
    rows = x_BHWC.flatten(0, 2)
    return rows if index_N is None else rows.index_select(0, index_N)


class ChannelMamba(nn.Module):
    """Section 2.3 of docs/model.md. Behind the depthwise convolution every step acts on single positions, so only the
    positions in ``index_N`` are computed.

    Args:
        options: Of all stages.
        stage: 1 to 4.
        width: Channels ``C`` of both streams, a multiple of 4.
    """

    def __init__(self, options: ChannelMambaOptions, *, stage: int, width: int):
        super().__init__()
        features, expansion = options.features, options.expansion[stage - 1]
        expanded = expansion * width
        if expanded % features:
            raise ConfigError(
                f"model.interaction.channel_mamba: width {width} times expansion {expansion} gives {expanded} "
                f"channels, which do not divide into tokens of features={features}; a multiple of "
                f"{features // math.gcd(width, features)} does"
            )
        self.rgb = ModalityTokens(width, expanded, options)
        self.thermal = ModalityTokens(width, expanded, options)
        self.scans = ChannelScan(options)

    def forward(self, rgb_BHWC: Tensor, thermal_BHWC: Tensor, index_N: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """``U_r, U_t`` ``[B, H, W, C]`` -> ``V_r, V_t`` ``[N, C]``; ``index_N`` int64, flat into ``B*H*W``."""
        tokens_NLG = torch.cat([self.rgb.tokens(rgb_BHWC, index_N), self.thermal.tokens(thermal_BHWC, index_N)], dim=1)
        rgb_NTG, thermal_NTG = self.scans(tokens_NLG).chunk(2, dim=1)
        return (
            self.rgb.finish(rgb_NTG, take_rows(rgb_BHWC, index_N)),
            self.thermal.finish(thermal_NTG, take_rows(thermal_BHWC, index_N)),
        )
