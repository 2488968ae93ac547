"""Recomputed activations: less is kept, nothing else changes."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from mdg.models.decoders.segformer import SegFormerDecoder
from mdg.models.layers import ChannelDropout
from mdg.models.recompute import Recomputable, recompute_activations
from mdg.options.models import SegFormerDecoderOptions
from mdg.registry import BACKBONES


def gradients(model, rgb, thermal):
    torch.manual_seed(1)  # stochastic depth and dropout must draw the same in both passes
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x.numel()) or x, lambda x: x):
        output = model(rgb, thermal)
    (output.logits.square().mean() + sum(a.mean() for a in output.auxiliary)).backward()
    return output.logits.detach(), {name: p.grad for name, p in model.named_parameters()}, sum(saved)


def test_recomputation_keeps_less_and_changes_no_bit(small_model, draw):
    model = small_model().train()
    recomputed = copy.deepcopy(model)
    assert recompute_activations(recomputed) > 4
    rgb, thermal = 255 * draw(2, 3, 64, 64).abs().clamp(max=1), 255 * draw(2, 1, 64, 64).abs().clamp(max=1)
    logits, grads, kept = gradients(model, rgb, thermal)
    other_logits, other_grads, other_kept = gradients(recomputed, rgb, thermal)
    assert torch.equal(logits, other_logits)
    for name, grad in grads.items():
        torch.testing.assert_close(other_grads[name], grad, rtol=0, atol=0, msg=name)
    assert other_kept < 0.6 * kept
    for (name, buffer), other in zip(model.named_buffers(), recomputed.buffers(), strict=True):
        assert torch.equal(buffer, other), f"{name}: running statistics moved twice"


def test_only_modules_without_batchnorm_are_recomputed(small_model):
    for module in small_model().modules():
        if isinstance(module, Recomputable):
            assert not any(isinstance(m, torch.nn.modules.batchnorm._BatchNorm) for m in module.modules())


def test_evaluation_is_not_touched(small_model, draw):
    model = small_model().eval()
    rgb, thermal = 255 * draw(1, 3, 64, 64).abs().clamp(max=1), 255 * draw(1, 1, 64, 64).abs().clamp(max=1)
    with torch.no_grad():
        before = model(rgb, thermal).logits
        recompute_activations(model)
        assert torch.equal(model(rgb, thermal).logits, before)


def compile_and_train(module: nn.Module, *inputs: torch.Tensor) -> torch.Tensor:
    assert recompute_activations(module.train())
    return torch.compile(module, fullgraph=True, backend="aot_eager")(*inputs)


@pytest.mark.slow  # tracing forward and backward
def test_a_recomputed_encoder_compiles_to_one_graph(draw):
    encoder = BACKBONES.create("b0", in_channels=1)
    maps = compile_and_train(encoder, draw(1, 1, 64, 64))
    sum(feat_BHWC.mean() for feat_BHWC in maps).backward()
    assert all(p.grad is not None for p in encoder.parameters())


@pytest.mark.slow  # a minute of tracing: every module of the network, forward and backward
def test_a_recomputed_network_compiles_to_one_graph(small_model, draw):
    model = small_model()
    images = [255 * draw(1, channels, 64, 64).abs().clamp(max=1) for channels in (3, 1)]
    compile_and_train(model, *images).logits.mean().backward()
    assert all(p.grad is not None for p in model.rgb_backbone.parameters())


def test_all_mlp_head_without_embedded_maps(draw):
    decoder = SegFormerDecoder(SegFormerDecoderOptions(embed_dim=16, dropout=0.0), widths=(4, 8), num_classes=3).eval()
    for layer in decoder.linear:
        nn.init.normal_(layer.bias)
    maps = [draw(2, 8, 12, 4), draw(2, 4, 6, 8)]
    embedded = [layer(x) for layer, x in zip(decoder.linear, maps, strict=True)]
    torch.testing.assert_close(decoder(maps), decoder.head(embedded), rtol=1e-4, atol=1e-5)


def test_channel_dropout_drops_whole_channels_of_an_image():
    x = torch.ones(4, 5, 6, 64)
    torch.manual_seed(0)
    dropped = ChannelDropout(0.25)(x)
    assert torch.equal(dropped, dropped[:, :1, :1].expand_as(x))
    assert set(dropped.unique().tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
    assert 0.1 < (dropped == 0).float().mean() < 0.4
    assert ChannelDropout(0.25).eval()(x) is x
