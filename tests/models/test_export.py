"""A network as a graph of operators, saved and loaded again."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mdg.config import load_config
from mdg.models import build_model


class Logits(nn.Module):
    """Exported programs are saved with plain outputs only."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, rgb: Tensor, thermal: Tensor) -> Tensor:
        return self.network(rgb, thermal).logits


@pytest.mark.slow  # half a minute of tracing
@pytest.mark.usefixtures("tracing_depth")
@pytest.mark.filterwarnings("ignore:The given buffer is not writable")
def test_an_exported_network_gives_the_same_logits(tmp_path):
    options = ["model.rgb_backbone=b0", "model.thermal_backbone=b0"]
    torch.manual_seed(0)
    config = load_config("configs/mfnet/mdg_b2.yaml", options)
    network = build_model(config.model, num_classes=5, load_pretrained=False).eval()
    generator = torch.Generator().manual_seed(0)
    images = [torch.randint(0, 256, (1, C, 96, 128), dtype=torch.uint8, generator=generator) for C in (3, 1)]
    with torch.no_grad():
        program = torch.export.export(Logits(network), tuple(images))
        torch.export.save(program, tmp_path / "mdg.pt2")
        got = torch.export.load(tmp_path / "mdg.pt2").module()(*images)
        expected = network(*images).logits
    assert got.shape == (1, 5, 96, 128)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-6)
