"""Operators with interchangeable backends: optional fused kernels first, plain torch everywhere."""

from __future__ import annotations

from mdg.ops.attention import attention
from mdg.ops.channel_scan import channel_scan
from mdg.ops.dispatch import available_backends, register_backend, set_backend
from mdg.ops.linear import linear
from mdg.ops.neighborhood_attention import neighborhood_attention
from mdg.ops.resized_sum import resized_sum
from mdg.ops.selective_scan import selective_scan

__all__ = [
    "attention",
    "available_backends",
    "channel_scan",
    "linear",
    "neighborhood_attention",
    "register_backend",
    "resized_sum",
    "selective_scan",
    "set_backend",
]
