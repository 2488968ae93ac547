"""Features are taken from every kind of network, in the pass that predicts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mdg.config.schema import EvalConfig
from mdg.engine.inference import Inference
from mdg.engine.trust.measure import measured
from mdg.models import build_model

NETWORKS = {
    "MDG": ({"type": "MDG", "rgb_backbone": "b0", "thermal_backbone": "b0", "auxiliary_heads": False}, 256, 1),
    "one stream": ({"type": "SingleStream", "input": "rgb", "backbone": "b0"}, 256, 1),
    "two networks": ({"type": "LateFusion", "backbone": "b0"}, 256, 2),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_scores_and_numbers(name, draw):
    options, width, decoders = NETWORKS[name]
    torch.manual_seed(0)
    model = build_model(options, 3).eval()
    inference = Inference(model, EvalConfig(), torch.autocast("cpu", enabled=False), torch.device("cpu"))
    rgb = (40 * draw(2, 3, 32, 64) + 128).clamp(0, 255).byte()
    thermal = (40 * draw(2, 1, 32, 64, seed=1) + 128).clamp(0, 255).byte()
    scores_BKHW, output, numbers = measured(inference, rgb, thermal, (32, 64))
    assert torch.equal(scores_BKHW, inference.scores(rgb, thermal, (32, 64)))
    assert output.logits.shape == (2, 3, 32, 64)
    assert numbers["pixels"].shape == (2, 12) and numbers["features"].shape == (2, decoders * width)
    assert not np.allclose(numbers["features"][0], numbers["features"][1])
    alone = measured(inference, rgb[:1], thermal[:1], (32, 64)).numbers["features"]
    np.testing.assert_allclose(alone[0], numbers["features"][0], rtol=1e-3, atol=1e-4)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_temperature_keeps_the_mean_of_views(draw):
    """With several views scores are mean probabilities: at a temperature they keep their order, at one they stay."""
    model = build_model({"type": "SingleStream", "input": "rgb", "backbone": "b0"}, 3).eval()
    options = EvalConfig(flip=True)
    sharp, plain = (
        Inference(model, options, torch.autocast("cpu", enabled=False), torch.device("cpu"), t) for t in (0.5, 1.0)
    )
    rgb, thermal = (draw(1, c, 32, 32).mul(40).add(128).clamp(0, 255).byte() for c in (3, 1))
    mean = plain.scores(rgb, thermal, (32, 32))
    assert torch.equal(plain.probabilities(mean), mean)
    expected = mean**2 / (mean**2).sum(1, keepdim=True)
    torch.testing.assert_close(sharp.probabilities(mean), expected, atol=1e-5, rtol=1e-4)
    for inference in (sharp, plain):
        torch.testing.assert_close(inference.confidence(mean), inference.probabilities(mean).amax(1))
