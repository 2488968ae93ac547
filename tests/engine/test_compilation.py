"""Networks compiled by inductor, against the same networks run as they are."""

from __future__ import annotations

import copy
import shutil

import pytest
import torch
from torch import Tensor, nn

from mdg.config import load_config
from mdg.engine.runtime import compile_network
from mdg.models import build_model
from mdg.models.interaction.local_cross_attention import LocalCrossAttention
from mdg.models.layers import DropPath
from mdg.models.segmentor import SegmentationOutput
from mdg.options.models import LocalCrossAttentionOptions

CONFIG = "configs/mfnet/mdg_b2.yaml"
SMALL = ["model.rgb_backbone=b0", "model.thermal_backbone=b0"]
pytestmark = [
    pytest.mark.slow,  # inductor takes minutes for the whole network
    pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="needs a C++ compiler"),
    pytest.mark.filterwarnings("ignore:Torchinductor does not support code generation for complex"),
]


def gradients(model: nn.Module, inputs: list[Tensor]) -> list[Tensor]:
    model.zero_grad()
    out = model(*inputs)
    parts = [out.logits, *out.auxiliary] if isinstance(out, SegmentationOutput) else list(out)
    sum(part.square().mean() for part in parts).backward()
    return [*(part.detach() for part in parts), *(p.grad for p in model.parameters() if p.grad is not None)]


def check(model: nn.Module, inputs: list[Tensor]) -> None:
    compiled = copy.deepcopy(model)
    compile_network(compiled)
    for _ in range(5):  # an access outside of a buffer does not show at once
        got = gradients(compiled, inputs)
    expected = gradients(model, inputs)
    assert len(got) == len(expected)
    for value, true in zip(got, expected, strict=True):
        error, scale = (value - true).abs().max(), true.abs().max()
        assert error <= 1e-3 * scale + 1e-5  # gradients of 5e-4 differ by 2e-6: sums in another order


def test_local_cross_attention_trains_compiled():
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(2, 24, 32, 32, generator=generator) for _ in range(2)]
    options = LocalCrossAttentionOptions(heads=(1, 1, 1, 1), drop_path=0.0)
    check(LocalCrossAttention(options, stage=1, width=32).train(), maps)


def test_the_network_trains_compiled():
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    # Dropout and stochastic depth draw other numbers when compiled: off.
    model = build_model(load_config(CONFIG, SMALL).model, 5, load_pretrained=False).train()
    for module in model.modules():
        if isinstance(module, (DropPath, nn.Dropout)):
            module.p = 0.0
    images = [torch.randint(0, 256, (2, C, 64, 96), dtype=torch.uint8, generator=generator) for C in (3, 1)]
    check(model, images)
