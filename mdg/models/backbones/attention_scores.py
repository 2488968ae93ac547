"""The scores of the last attention of an encoder, before the softmax, while it runs: what a student's attention is
compared with its teacher's by.

The attention itself stays as it is, fused kernels included; its queries and keys are computed once more beside it.

Legend: B batch (of windows, where attention has them), h heads, N tokens, d channels of a head, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mdg.errors import ConfigError
from mdg.models.backbones.plain_vit import PATCH, PlainViT
from mdg.models.backbones.timm_encoder import TimmEncoder

STRIDE = 32  # of the last stage of a TinyViT


class Scores:
    """What the last pass through an encoder looked at.

    Attributes:
        q_BhNd, k_BhNd: Queries and keys; the queries are scaled already.
        bias_hNN: What is added to their products; None where nothing is.
        logits_BhNN: ``q k^T + bias``, float32, whose softmax over the last dimension is the attention; with a gradient
            where the encoder had one. ``N`` is the map at 1/32 of a TinyViT whose last block attends over all of it
            (``global_last_block``), one window of one that has windows, the map at 1/16 of a plain ViT; row by row.
    """

    def __init__(self) -> None:
        self.q_BhNd: Tensor | None = None
        self.k_BhNd: Tensor | None = None
        self.bias_hNN: Tensor | None = None

    @property
    def logits_BhNN(self) -> Tensor:
        assert self.q_BhNd is not None and self.k_BhNd is not None, "no image went through the encoder yet"
        with torch.autocast(self.q_BhNd.device.type, enabled=False):
            logits = self.q_BhNd.float() @ self.k_BhNd.float().transpose(-2, -1)
        return logits if self.bias_hNN is None else logits + self.bias_hNN.float()


@contextmanager
def last_attention(encoder: nn.Module) -> Iterator[Scores]:
    """Inside, every pass through ``encoder`` leaves the scores of its last attention in what this gives::

        with last_attention(network.backbone) as scores:
            output = network(rgb, thermal)
        scores.logits_BhNN

    Raises:
        ConfigError: An encoder whose last block is no attention of a known kind.
    """
    attention, look = _last_of(encoder)
    scores = Scores()

    def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        scores.q_BhNd, scores.k_BhNd, scores.bias_hNN = look(module, inputs[0])

    handle = attention.register_forward_pre_hook(hook)
    try:
        yield scores
    finally:
        handle.remove()


class Form(NamedTuple):
    """Heads of an attention over a whole map, and the pixels between its positions."""

    heads: int
    stride: int


def last_attention_form(encoder: nn.Module) -> Form:
    """What :func:`last_attention` will find.

    Raises:
        ConfigError: It compares none of a known kind, or those of a window only.
    """
    attention: Any = _last_of(encoder)[0]
    if hasattr(attention, "attention_biases"):
        raise ConfigError(
            f"{encoder.name}: its last block attends inside of windows, so there is no matrix of the whole map; set "
            "global_last_block: true"
        )
    return Form(attention.num_heads, PATCH if isinstance(encoder, PlainViT) else STRIDE)


Look = Callable[[Any, Tensor], tuple[Tensor, Tensor, Tensor | None]]


def _last_of(encoder: nn.Module) -> tuple[nn.Module, Look]:
    if isinstance(encoder, PlainViT):
        block: Any = encoder.blocks[-1]
        return block.attn, _look_of_vit
    last: Any = encoder.body[-1] if isinstance(encoder, TimmEncoder) else None
    if type(last).__name__ == "TinyVitStage":
        return last.blocks[-1].attn, _look_of_tiny_vit
    name = getattr(encoder, "name", type(encoder).__name__)
    raise ConfigError(
        f"{name}: its last block has no attention whose scores are known here; expected a PlainViT, or a TinyViT of "
        "timm (tiny_vit_11m_224, tiny_vit_21m_512)"
    )


def _look_of_vit(attention: Any, x_BNC: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    B, N, _ = x_BNC.shape
    qkv = attention.qkv(x_BNC).reshape(B, N, 3, attention.num_heads, attention.head_dim).permute(2, 0, 3, 1, 4)
    q_BhNd, k_BhNd = attention.q_norm(qkv[0]), attention.k_norm(qkv[1])
    return q_BhNd * attention.scale, k_BhNd, None


def _look_of_tiny_vit(attention: Any, x_BNC: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    B, N, _ = x_BNC.shape
    qkv = attention.qkv(attention.norm(x_BNC)).view(B, N, attention.num_heads, -1).transpose(1, 2)
    q_BhNd, k_BhNd, _ = qkv.split([attention.key_dim, attention.key_dim, attention.val_dim], dim=-1)
    windowed = hasattr(attention, "attention_biases")
    return q_BhNd * attention.scale, k_BhNd, attention.get_attention_biases(x_BNC.device) if windowed else None
