"""A camera that is absent: what stands in for it, how a network learns to do without, what is refused."""

from __future__ import annotations

import pytest
import torch

from mdg.config import load_config
from mdg.config.schema import EvalConfig
from mdg.engine.inference import Inference, describe_inference
from mdg.engine.runtime import make_autocast
from mdg.errors import ConfigError
from mdg.models.absence import StandIns, absent_camera, set_modality_dropout
from mdg.registry import MODELS

RGB, THERMAL = torch.randint(0, 256, (2, 2, 4, 64, 96), generator=torch.Generator().manual_seed(0)).unbind(0)
RGB, THERMAL = RGB[:, :3].to(torch.uint8), THERMAL[:, 3:].to(torch.uint8)


def small(**options):
    torch.manual_seed(0)
    parts = {"rgb_backbone": "b0", "thermal_backbone": "b0", "decoder": {"type": "SegFormerDecoder", "embed_dim": 16}}
    return MODELS.create({"type": "MDG", **parts, **options}, num_classes=3)


@pytest.fixture(scope="module", params=["zero", "learned"])
def network(request, shaken):
    return shaken(small(stand_ins=request.param)).eval()


def calls(module) -> list:
    seen = []
    module.patch_embed1.register_forward_hook(lambda *_: seen.append(1))
    return seen


@torch.no_grad()
@pytest.mark.parametrize("camera", ["rgb", "thermal"])
def test_the_encoder_of_an_absent_camera_does_not_run_and_its_image_does_not_matter(network, camera):
    given = {"rgb": (None, THERMAL), "thermal": (RGB, None)}[camera]
    ran = calls(network.rgb_backbone if camera == "rgb" else network.thermal_backbone)
    logits = network(*given).logits
    assert not ran and logits.shape == (2, 3, 64, 96) and logits.isfinite().all()
    assert not torch.allclose(logits, network(RGB, THERMAL).logits)
    assert ran


def test_images_that_lose_a_camera_are_those_of_a_network_without_it(shaken, monkeypatch):
    """One image loses RGB, another thermal; in evaluation mode, so that nothing else is drawn."""
    model = shaken(small(stand_ins="learned")).eval()
    lost = {"rgb": torch.tensor([True, False]), "thermal": torch.tensor([False, True])}
    monkeypatch.setattr(StandIns, "draw", lambda self, images, device: lost)
    with torch.no_grad():
        mixed = model(RGB, THERMAL).logits
        monkeypatch.setattr(StandIns, "draw", lambda self, images, device: {})
        apart = [model(None, THERMAL[:1]).logits, model(RGB[1:], None).logits]
    torch.testing.assert_close(mixed, torch.cat(apart), rtol=1e-4, atol=1e-4)


def test_shares_of_images_lose_a_camera_and_none_loses_both():
    parts = StandIns("zero", (8, 8, 8, 8))
    parts.rates = (0.2, 0.3)
    torch.manual_seed(0)
    lost = parts.train().draw(20_000, torch.device("cpu"))
    assert lost["rgb"].float().mean().item() == pytest.approx(0.2, abs=0.01)
    assert lost["thermal"].float().mean().item() == pytest.approx(0.3, abs=0.01)
    assert not (lost["rgb"] & lost["thermal"]).any()
    assert parts.eval().draw(4, torch.device("cpu")) == {}
    parts.rates = (0.0, 0.0)
    assert parts.train().draw(4, torch.device("cpu")) == {}


def test_every_stand_in_learns(monkeypatch):
    model = small(stand_ins="learned").train()
    lost = {"rgb": torch.tensor([True, False]), "thermal": torch.tensor([False, True])}
    monkeypatch.setattr(StandIns, "draw", lambda self, images, device: lost)
    output = model(RGB, THERMAL)
    (output.logits.square().mean() + sum(a.square().mean() for a in output.auxiliary)).backward()
    parameters = dict(model.stand_ins.named_parameters())
    assert len(parameters) == 8
    assert all(p.grad.isfinite().all() and p.grad.abs().sum() > 0 for p in parameters.values())
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_a_network_of_both_cameras_says_what_it_needs():
    model = small(auxiliary_heads=False)
    with pytest.raises(ValueError, match=r"thermal is absent.*model\.stand_ins=learned"):
        model(RGB, None)
    with pytest.raises(ValueError, match="got neither"):
        model(None, None)
    with pytest.raises(ValueError, match=r"expected images \[B, 3, H, W\]"):
        small(stand_ins="zero")(THERMAL, None)
    assert not [name for name, _ in model.named_parameters() if "stand_ins" in name]


def test_networks_of_one_camera_do_not_ask_for_the_other():
    torch.manual_seed(0)
    rgb = MODELS.create({"type": "SingleStream", "input": "rgb", "backbone": "b0"}, num_classes=3).eval()
    both = MODELS.create({"type": "SingleStream", "input": "both", "backbone": "b0"}, num_classes=3).eval()
    late = MODELS.create({"type": "LateFusion", "backbone": "b0"}, num_classes=3).eval()
    with torch.no_grad():
        assert torch.equal(rgb(RGB, None).logits, rgb(RGB, THERMAL).logits)
        alone = late.thermal(None, THERMAL).logits.log_softmax(1)
        torch.testing.assert_close(late(None, THERMAL).logits, alone)
    for model, given in ((rgb, (None, THERMAL)), (both, (RGB, None)), (both, (None, THERMAL))):
        with pytest.raises(ValueError, match="is absent, and this network needs it"):
            model(*given)


def test_dropout_needs_stand_ins_and_learned_ones_need_dropout():
    with pytest.raises(ConfigError, match="nothing to stand in"):
        set_modality_dropout(small(), 0.1, 0.0)
    with pytest.raises(ConfigError, match="no image of training loses a camera"):
        set_modality_dropout(small(stand_ins="learned"), 0.0, 0.0)
    set_modality_dropout(small(stand_ins="zero"), 0.0, 0.0)
    with pytest.raises(ConfigError, match="1 at most together"):
        load_config("configs/demo.yaml", ["train.modality_dropout={rgb: 0.6, thermal: 0.6}"])


def test_cameras_of_an_evaluation(network):
    config = load_config("configs/demo.yaml")
    rules = {cameras: EvalConfig(cameras=cameras) for cameras in ("both", "rgb", "thermal")}
    given = {"rgb": (RGB, None), "thermal": (None, THERMAL), "both": (RGB, THERMAL)}
    cpu = torch.device("cpu")
    for cameras, rule in rules.items():
        with torch.no_grad():
            expected = network(*given[cameras]).logits
        found = Inference(network, rule, make_autocast(config, cpu), cpu).scores(RGB, THERMAL, (64, 96))
        torch.testing.assert_close(found, expected)
    assert [describe_inference(rule).mode for rule in rules.values()] == [
        "whole image",
        "whole image, RGB alone",
        "whole image, thermal alone",
    ]
    with pytest.raises(ConfigError, match=r"eval\.cameras: rgb: thermal is absent"):
        Inference(small(), rules["rgb"], make_autocast(config, cpu), cpu)


def test_which_camera_is_absent():
    assert [absent_camera(RGB, THERMAL), absent_camera(None, THERMAL), absent_camera(RGB, None)] == [
        None,
        "rgb",
        "thermal",
    ]
