from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mdg.models.interaction.fusion import AddFusion, ConcatFusion, CrossModalFusion
from mdg.models.layers import SqueezeExcitation
from mdg.options.models import CrossModalFusionOptions
from mdg.registry import FUSIONS, Options


def conv1x1(weight_OI11, x_BHWC):
    return x_BHWC @ weight_OI11[:, :, 0, 0].T


def batch_norm(layer: nn.BatchNorm2d, x_BHWC):
    return (x_BHWC - layer.running_mean) / (layer.running_var + layer.eps).sqrt() * layer.weight + layer.bias


def depthwise_by_hand(layer: nn.Conv2d, x_BHWC):
    """Zero-padded, centred, one kernel per channel."""
    size, (_, H, W, _) = layer.kernel_size[0], x_BHWC.shape
    padded = F.pad(x_BHWC, (0, 0, *[size // 2] * 4))
    shifts = ((y, x) for y in range(size) for x in range(size))
    return layer.bias + sum(layer.weight[:, 0, y, x] * padded[:, y : y + H, x : x + W] for y, x in shifts)


def test_cross_modal_fusion_equals_the_definition(draw, shaken):
    module = shaken(CrossModalFusion(CrossModalFusionOptions(), width=16).double().eval())
    for norm in (module.ffn.pre.norm, module.ffn.post.norm):
        norm.running_mean.copy_(draw(16, seed=5))
        norm.running_var.copy_(1 + draw(16, seed=6).square())
    rgb, thermal = (draw(2, 5, 9, 16, seed=s, dtype=torch.float64) for s in (0, 1))
    both = torch.cat([rgb, thermal], -1)
    normed = (both - both.mean(-1, keepdim=True)) / (both.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    z = module.reduce(normed * module.norm.weight + module.norm.bias)

    x = batch_norm(module.ffn.pre.norm, conv1x1(module.ffn.pre.conv.weight, module.ffn.fc1(z)))
    assert [kernel.kernel_size for kernel in module.ffn.kernels] == [(3, 3), (5, 5), (7, 7)]
    x = x + sum(depthwise_by_hand(kernel, x) for kernel in module.ffn.kernels)
    ffn = module.ffn.fc2(F.gelu(batch_norm(module.ffn.post.norm, conv1x1(module.ffn.post.conv.weight, x))))

    pooled = z.mean((1, 2), keepdim=True)
    gate = torch.sigmoid(module.excite.expand(F.relu(module.excite.reduce(pooled))))
    torch.testing.assert_close(module(rgb, thermal), ffn + z * gate, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("kind", "axes"), [("layer", -1), ("batch", (0, 1, 2))])
def test_what_is_normalized_afterwards(draw, shaken, kind, axes):
    module = CrossModalFusion(CrossModalFusionOptions(output_norm=kind), width=16).train()
    rgb, thermal = draw(2, 5, 9, 16), draw(2, 5, 9, 16, seed=1)
    fused = module(rgb, thermal).detach()
    assert float(fused.mean(axes).abs().max()) < 1e-4 and float((fused.var(axes) - 1).abs().max()) < 0.1
    shaken(module).eval()
    plain = CrossModalFusion(CrossModalFusionOptions(), width=16).eval()
    plain.load_state_dict({key: value for key, value in module.state_dict().items() if "output_norm" not in key})
    by_hand, norm = plain(rgb, thermal), module.output_norm
    expected = norm(by_hand) if kind == "layer" else batch_norm(norm, by_hand)
    torch.testing.assert_close(module(rgb, thermal), expected)


@pytest.mark.parametrize(("channels", "hidden"), [(64, 4), (320, 20), (8, 1)])
def test_squeeze_and_excitation_reduces_by_sixteen(channels, hidden):
    assert SqueezeExcitation(channels).reduce.out_features == hidden


def test_add_fusion(draw):
    rgb, thermal = draw(1, 2, 3, 8), draw(1, 2, 3, 8, seed=1)
    assert torch.equal(AddFusion(Options(), width=8)(rgb, thermal), rgb + thermal)
    assert not list(AddFusion(Options(), width=8).parameters())


def test_concat_fusion(draw, shaken):
    module = shaken(ConcatFusion(Options(), width=8))
    rgb, thermal = draw(1, 2, 3, 8), draw(1, 2, 3, 8, seed=1)
    expected = module.reduce(module.norm(torch.cat([rgb, thermal], -1)))
    torch.testing.assert_close(module(rgb, thermal), expected)
    assert module(rgb, thermal).shape == rgb.shape and not torch.equal(module(rgb, thermal), module(thermal, rgb))


@pytest.mark.parametrize("cls", [AddFusion, ConcatFusion, CrossModalFusion])
@pytest.mark.parametrize("size", [(1, 1), (3, 7)])
def test_any_size(draw, cls, size):
    module = FUSIONS.create(cls.__name__, width=16).eval()
    assert module(draw(2, *size, 16), draw(2, *size, 16, seed=1)).shape == (2, *size, 16)
