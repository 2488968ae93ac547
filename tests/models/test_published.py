"""What the published code does otherwise, each switch against its formula."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mdg.config import load_config
from mdg.engine.optim import AdamW
from mdg.losses import CrossEntropy, Dice
from mdg.models import build_model
from mdg.models.decoders.dynamic_linear import ConditionBranch
from mdg.models.decoders.frequency_gate import DynamicFrequencyGate, highpass_of_bins, symmetric
from mdg.models.interaction.channel_mamba import ChannelMamba, ModalityTokens
from mdg.models.layers import Mlp, SqueezeExcitation, StarReLU
from mdg.options.losses import CrossEntropyOptions, DiceOptions
from mdg.options.models import ChannelMambaOptions, SemanticDynamicDecoderOptions
from mdg.options.optim import AdamWOptions

CONTEXT = {"num_classes": 3, "ignore_index": 255}
LABEL = torch.tensor([[[0, 0, 1], [255, 1, 1]]])  # class 2 is absent, one pixel is ignored


# --- objective ---------------------------------------------------------------------------------------------------


def test_dice_over_all_classes(draw):
    """``1 - 1/K sum_k 2|P Y| / (|P| + |Y|)`` without smoothing; an absent class counts as missed."""
    logits = draw(1, 3, 2, 3)
    p, y = logits.softmax(1)[0], F.one_hot(LABEL[0].clamp(max=2), 3).permute(2, 0, 1)
    valid = LABEL[0] != 255
    scores = [2 * (p[k] * y[k])[valid].sum() / (p[k][valid].sum() + y[k][valid].sum()) for k in (0, 1)]
    dice = Dice(DiceOptions(smooth=0, mean_over="all"), **CONTEXT)
    torch.testing.assert_close(dice(logits, LABEL), 1 - (scores[0] + scores[1] + 0) / 3)
    present = Dice(DiceOptions(smooth=0), **CONTEXT)
    torch.testing.assert_close(present(logits, LABEL), 1 - (scores[0] + scores[1]) / 2)


def test_dice_over_all_classes_without_a_labelled_pixel(draw):
    logits = draw(1, 3, 2, 3).requires_grad_()
    loss = Dice(DiceOptions(smooth=0, mean_over="all"), **CONTEXT)(logits, torch.full_like(LABEL, 255))
    loss.backward()
    assert loss == 1 and not logits.grad.any()


def test_cross_entropy_divided_by_all_pixels(draw):
    logits = draw(1, 3, 2, 3)
    each = F.cross_entropy(logits, LABEL, ignore_index=255, label_smoothing=0.1, reduction="none")
    loss = CrossEntropy(CrossEntropyOptions(label_smoothing=0.1, mean_over="all"), **CONTEXT)
    torch.testing.assert_close(loss(logits, LABEL), each.sum() / 6)


# --- channel mamba -----------------------------------------------------------------------------------------------


def ends(**options) -> ModalityTokens:
    torch.manual_seed(0)
    return ModalityTokens(8, 24, ChannelMambaOptions(features=4, dropout=0, **options)).eval()


def test_strided_tokens_hold_every_t_th_channel(draw):
    u = draw(1, 2, 3, 8)
    near, far = ends().tokens(u, None), ends(tokens="strided").tokens(u, None)
    channels = near.flatten(1)  # [N, 24], T = 6 tokens of 4 features
    for t in range(6):
        for f in range(4):
            torch.testing.assert_close(far[:, t, f], channels[:, f * 6 + t])


def test_strided_tokens_go_back_where_they_came_from(draw):
    u, near, far = draw(1, 2, 3, 8), ends(), ends(tokens="strided")
    scanned = near.tokens(u, None), far.tokens(u, None)
    torch.testing.assert_close(near.finish(scanned[0], u.flatten(0, 2)), far.finish(scanned[1], u.flatten(0, 2)))


def test_output_norm_over_the_tokens_of_a_feature(draw, shaken):
    module, scanned, u = shaken(ends(output_norm="tokens")), draw(5, 6, 4), draw(5, 8, seed=1)
    normed = scanned.clone()
    for f in range(4):
        normed[:, :, f] = F.layer_norm(scanned[:, :, f], (6,), module.out_norm.weight, module.out_norm.bias)
    v = u + module.project(normed.flatten(1))
    torch.testing.assert_close(module.finish(scanned, u), v + module.ffn(module.ffn_norm(v)))


def test_residual_on_the_normalised_input(draw, shaken):
    module, scanned, u = shaken(ends(residual="normalized")), draw(5, 6, 4), draw(5, 8, seed=1)
    v = module.norm(u) + module.project(module.out_norm(scanned.flatten(1)))
    torch.testing.assert_close(module.finish(scanned, u), v + module.ffn(module.ffn_norm(v)))


def test_all_three_are_options_of_channel_mamba(draw):
    options = ChannelMambaOptions(features=8, tokens="strided", output_norm="tokens", residual="normalized")
    module = ChannelMamba(options, stage=1, width=16).eval()
    rows = [v.shape for v in module(draw(1, 2, 3, 16), draw(1, 2, 3, 16, seed=1), torch.tensor([0, 4]))]
    assert rows == [(2, 16), (2, 16)] and module.rgb.out_norm.normalized_shape == (8,)


# --- decoder and fusion ------------------------------------------------------------------------------------------


def test_batch_norm_in_the_condition_branch(draw):
    torch.manual_seed(0)
    branch = ConditionBranch(8, norm="batch", star_relu=(1.0, 0.0))
    deepest = draw(2, 3, 2, 8)
    mixed = branch.conv(branch.reduce(deepest).permute(0, 3, 1, 2))
    mean, variance = mixed.mean(dim=(0, 2, 3)), mixed.var(dim=(0, 2, 3), unbiased=False)
    normed = (mixed - mean[:, None, None]) / (variance[:, None, None] + 1e-5).sqrt()
    torch.testing.assert_close(branch(deepest), F.relu(normed).square().permute(0, 2, 3, 1))


def test_star_relu_squeeze_and_gate():
    assert StarReLU(1.0, 0.0)(torch.tensor([-1.0, 3.0])).tolist() == [0, 9]
    assert SqueezeExcitation(32, bias=False).reduce.bias is None and SqueezeExcitation(32).reduce.bias is not None
    mlp, x = Mlp(4, 8, 2, activation="relu"), torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(mlp(x), mlp.fc2(F.relu(mlp.fc1(x))))


def frequency_gate(**options) -> DynamicFrequencyGate:
    torch.manual_seed(0)
    small = {"embed_dim": 4, "frequency_filters": 3, "frequency_reference": (12, 16)}
    return DynamicFrequencyGate(SemanticDynamicDecoderOptions(**small, **options), width=6, condition_width=8)


def test_free_routes(draw):
    module, condition = frequency_gate(frequency_routes="free"), draw(2, 2, 2, 8)
    route = module.route(condition.mean(dim=(1, 2))).view(2, 4, 3)
    expected = 2 * torch.sigmoid(torch.einsum("bck,khf->bchf", route, module.bank))
    torch.testing.assert_close(module.gate(condition, 12, 16), expected)


def test_highpass_in_bins_of_the_reference():
    mask = highpass_of_bins(12, 16, 5, (12, 16), torch.device("cpu"))
    rows = [0, 1, 2, 3, 4, 5, 6, 5, 4, 3, 2, 1]
    assert mask.bool().tolist() == [[(y**2 + x**2) ** 0.5 >= 5 for x in range(9)] for y in rows]
    twice = highpass_of_bins(24, 32, 5, (12, 16), torch.device("cpu"))  # the same share of Nyquist
    assert twice[0].bool().tolist() == [x / 2 >= 5 for x in range(17)]
    published = highpass_of_bins(120, 160, 35, (120, 160), torch.device("cpu"))
    assert published[0].argmax() == 35 and published[:61, 0].argmax() == 35


@pytest.mark.parametrize("width", [8, 7])
def test_a_symmetric_bank_is_that_of_a_real_map(draw, width):
    bank = draw(2, 6, width // 2 + 1)
    spectrum = torch.fft.rfft2(draw(2, 6, width, seed=1)) * symmetric(bank, width)
    torch.testing.assert_close(torch.fft.rfft2(torch.fft.irfft2(spectrum, s=(6, width))), spectrum)
    torch.testing.assert_close(symmetric(bank, width)[..., 1:-1], bank[..., 1:-1])
    plain = torch.fft.rfft2(draw(2, 6, width, seed=1)) * bank
    assert not torch.allclose(torch.fft.rfft2(torch.fft.irfft2(plain, s=(6, width))), plain)


# --- the network -------------------------------------------------------------------------------------------------

B0 = {"type": "MDG", "rgb_backbone": "b0", "thermal_backbone": "b0"}


def test_the_thermal_head_sees_maps_before_the_interaction():
    torch.manual_seed(0)
    model = build_model({**B0, "auxiliary_thermal": "before", "auxiliary_embed_dim": 24}, 3)
    seen = []
    for head in model.auxiliary:
        head.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    stages = []
    for module in model.interaction:
        module.register_forward_hook(lambda m, inputs, out: stages.append((inputs[1], out.rgb_BHWC)))
    model(torch.zeros(2, 3, 64, 64), torch.full((2, 1, 64, 64), 99.0))
    (rgb, thermal), (before, after_rgb) = seen, zip(*stages, strict=True)
    assert all(map(torch.equal, thermal, before)) and all(map(torch.equal, rgb, after_rgb))
    assert model.auxiliary[0].linear[0].out_features == 24


def test_stages_without_interaction():
    torch.manual_seed(0)
    model = build_model({**B0, "interaction_stages": [2, 4]}, 3).eval()
    assert [bool(list(module.parameters())) for module in model.interaction] == [False, True, False, True]
    with torch.no_grad():
        output = model(torch.zeros(1, 3, 64, 96), torch.full((1, 1, 64, 96), 99.0))
    assert [tuple(where.divergence_BHW.shape[1:]) for where in output.divergence] == [(8, 12), (2, 3)]


def test_decay_of_the_scan_and_of_generated_matrices():
    model = build_model(B0, 3)

    def decayed(**options) -> set[str]:
        optimizer = AdamW(AdamWOptions(weight_decay=0.1, eps=1e-7, **options), model=model)
        assert optimizer.defaults["eps"] == 1e-7
        ids = {id(p) for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]}
        return {name for name, parameter in model.named_parameters() if id(parameter) in ids}

    plain = decayed()
    scan, generated = decayed(decay_scan=True) - plain, decayed(decay_generated=True) - plain
    assert scan and all(name.endswith(".A_log") for name in scan) and len(scan) == 8
    assert generated == {f"decoder.linear.{stage}.generator.bias" for stage in (1, 2, 3)}


def test_one_file_sets_them_all():
    config = load_config("configs/mfnet/published.yaml")
    model, default = config.model, load_config("configs/mfnet/mdg_b2.yaml").model
    mamba, attention = model.interaction.channel_mamba, model.interaction.local_attention
    assert (mamba.tokens, mamba.output_norm, mamba.residual) == ("strided", "tokens", "normalized")
    assert (model.interaction.divergence.gradient, attention.gate_activation) == ("all", "relu")
    decoder = model.decoder
    assert (decoder.condition_norm, decoder.star_relu) == (("layer", "batch", "batch"), (1.0, 0.0))
    assert (decoder.frequency_routes, decoder.highpass_bins, model.fusion.squeeze_bias) == ("free", 35, False)
    assert model.fusion.output_norm is None
    assert (model.auxiliary_embed_dim, model.auxiliary_thermal) == (512, "before")
    assert (model.rgb_backbone.variant, model.thermal_backbone.variant) == ("b2", "b1")
    assert model.pretrained.thermal is None and model.pretrained.rgb == default.pretrained.rgb
    dice, entropy = config.loss
    assert (dice.weight, dice.smooth, dice.mean_over) == (0.5, 0, "all")
    assert (entropy.weight, entropy.label_smoothing, entropy.mean_over) == (0.5, 0.1, "all")
    auxiliary = config.auxiliary_loss
    assert (auxiliary.weight, auxiliary.label_smoothing, auxiliary.mean_over) == (0.3, 0.1, "all")
    assert (config.optimizer.eps, config.optimizer.decay_scan, config.train.sync_batchnorm) == (1e-7, True, False)
    assert (config.eval.every, config.eval.after, config.eval.selection) == (1, 200, "val")
    assert [step.type for step in config.pipeline.train[:3]] == ["GaussianBlur", "ColorJitter", "Sharpness"]
    assert config.pipeline.train[0].sigma == (0.8, 0.8) and config.pipeline.train[2].factor == 0.1
    same = ("lr", "betas", "weight_decay")
    assert [getattr(config.optimizer, key) for key in same] == [1e-4, (0.9, 0.999), 0.01]
    assert (config.train.epochs, config.train.batch_size, model.interaction.divergence.ratio) == (500, 3, 0.5)
