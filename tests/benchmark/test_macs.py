"""Multiply-accumulates against numbers worked out by hand.

Legend: N positions, C width, M keys after spatial reduction.
"""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn

from mdg.benchmark.macs import count_macs
from mdg.errors import UserError
from mdg.models import build_model
from mdg.models.backbones.mit import MixBlock
from mdg.models.interaction.channel_mamba import ChannelScan
from mdg.models.interaction.local_cross_attention import LocalCrossAttention
from mdg.ops import available_backends, set_backend
from mdg.options.models import ChannelMambaOptions, LocalCrossAttentionOptions
from mdg.registry import INTERACTIONS

pytestmark = pytest.mark.no_cover  # every operation is traced

B0 = {"type": "MDG", "rgb_backbone": "b0", "thermal_backbone": "b0"}


class Apply(nn.Module):
    """A function as a network."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(*inputs)


@pytest.fixture
def images() -> tuple[Tensor, Tensor]:
    return torch.zeros(1, 3, 64, 96, dtype=torch.uint8), torch.zeros(1, 1, 64, 96, dtype=torch.uint8)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return build_model(B0, 9).eval()


def test_linear_and_convolutions():
    model = nn.Sequential(
        nn.Conv2d(4, 8, 3, padding=1, groups=2),  # 8 outputs x (4/2 x 9) inputs at 6x10 positions
        nn.Conv2d(8, 5, 2, stride=2),  # 5 x (8 x 4) at 3x5
        nn.Flatten(2),
        nn.Linear(15, 7),  # 5 rows
    )
    count = count_macs(model, torch.zeros(1, 4, 6, 10))
    total = 8640 + 2400 + 525
    assert count.by_module == {"": total, "0": 8 * 18 * 60, "1": 5 * 32 * 15, "2": 0, "3": 5 * 15 * 7}
    assert list(count.by_module) == ["", "0", "1", "2", "3"]  # as they ran
    assert count.within() == total


@pytest.mark.parametrize(
    ("function", "macs"),
    [
        (torch.fft.rfft2, 3 * 200),  # 2.5 * 32 * log2(32) operations a transform, half as many MACs
        (lambda x: torch.fft.irfft2(torch.fft.rfft2(x), s=x.shape[-2:]), 2 * 3 * 200),
        (lambda x: torch.fft.fft(x.to(torch.complex64)), 24 * 20),  # 5 * 4 * log2(4) / 2 in each of 24 rows
        (lambda x: torch.softmax(x, -1) + x * x, 0),
        (lambda x: x @ x.transpose(1, 2), 3 * 8 * 4 * 8),
        (lambda x: nn.functional.scaled_dot_product_attention(x, x, x), 2 * 3 * 8 * 8 * 4),
    ],
)
def test_single_operations(function, macs):
    assert count_macs(Apply(function), torch.zeros(3, 8, 4)).within() == macs


def test_a_block_of_mit():
    N, M, C = 24 * 32, 3 * 4, 64
    attention = N * C * C + M * (64 * C) * C + M * C * 2 * C + 2 * N * M * C + N * C * C
    feed_forward = N * C * 4 * C + N * 4 * C * 9 + N * 4 * C * C
    count = count_macs(MixBlock(C, heads=1, reduction=8, drop_path=0.1), torch.zeros(1, 24, 32, C))
    assert (count.within("attn"), count.within("mlp")) == (attention, feed_forward)
    assert count.within() == attention + feed_forward


@pytest.mark.parametrize("batch", [1, 3])
def test_local_cross_attention(batch):
    """The window of 5 has no more than 4 columns on a map of 6x4."""
    N, C = batch * 6 * 4, 32
    linear = N * 2 * C * 2 * C + 2 * N * C * 2 * C + (N * 2 * C * C + N * C * 2) + 2 * N * C * C + 2 * 2 * N * C * 2 * C
    attention = 2 * (2 * N * (5 * 4) * C)  # both streams; scores and weighted sum
    x = torch.zeros(batch, 6, 4, C)
    options = LocalCrossAttentionOptions(heads=4 * [2], kernel_size=4 * [5])
    model = LocalCrossAttention(options, stage=1, width=C)
    count = count_macs(model, x, x)
    assert count.within() == linear + attention
    assert count.within() - sum(count.within(name) for name, _ in model.named_children()) == attention
    assert [(call.operator, call.inputs[0], call.inputs[3]) for call in count.calls] == [
        ("neighborhood_attention", (batch, 6, 4, 2, 16), 5)
    ] * 2


@pytest.mark.parametrize("directions", [1, 2])
def test_channel_scan(directions):
    rows, steps, features, states, rank = 5, 6, 8, 3, 2
    projection = rows * steps * features * directions * (rank + 2 * states)
    scan = rows * steps * directions * features * (2 * states + rank)
    sizes = {"features": features, "state": states, "dt_rank": rank}
    scan_module = ChannelScan(ChannelMambaOptions(**sizes, bidirectional=directions == 2))
    count = count_macs(scan_module, torch.zeros(rows, steps, features))
    assert count.within() == projection + scan


def test_a_network_is_the_sum_of_its_parts(network, images):
    count = count_macs(network, *images)
    parts = [count.within(name) for name, _ in network.named_children()]
    assert count.within() == sum(parts) > 10**8
    assert count.within("auxiliary") == 0
    assert next(network.parameters()).device.type == "cpu"  # the network itself stays where it was


def test_training_counts_the_auxiliary_heads(network, images):
    """Linear layers of four maps to 256, multiplied with their projections, and 9 classes."""
    maps = [(16 * 24, 32), (8 * 12, 64), (4 * 6, 160), (2 * 3, 256)]
    head = sum(N * C * 256 + 256 * 256 * C for N, C in maps) + 16 * 24 * 256 * 9
    count = count_macs(network, *images)
    training = count_macs(build_model(B0, 9).train(), *images)
    assert training.within("auxiliary.0") == training.within("auxiliary.1") == head
    assert training.within() == count.within() + 2 * head


def test_names_that_begin_alike_are_told_apart():
    model = nn.Sequential(OrderedDict(a=nn.Linear(2, 3), ab=nn.Linear(3, 5)))
    count = count_macs(model, torch.zeros(1, 2))
    assert (count.within("a"), count.within("ab")) == (6, 15)


@pytest.mark.parametrize("operator", ["neighborhood_attention", "selective_scan"])
def test_the_backend_does_not_matter(operator, network):
    """Also one that cannot run here."""
    stage, x, counts = network.interaction[0], torch.zeros(1, 16, 24, 32), []
    try:
        for backend in [*available_backends(operator), "auto"]:
            set_backend(operator, backend)
            counts.append(count_macs(stage, x, x).by_module)
    finally:
        set_backend(operator, None)
    assert all(count == counts[0] for count in counts)


def test_the_backend_of_linear_layers_does_not_matter():
    """One that was asked for by name would refuse the meta device, also where a layer has a backward of its own."""
    block, x = MixBlock(64, heads=1, reduction=8, drop_path=0.1), torch.zeros(1, 24, 32, 64)
    counts = []
    try:
        for backend in [*available_backends("linear"), "auto"]:
            set_backend("linear", backend)
            counts.append(count_macs(block, x).by_module)
    finally:
        set_backend("linear", None)
    assert all(count == counts[0] for count in counts) and counts[0][""] > 0


@pytest.mark.parametrize("stage", [1, 4])
def test_half_the_positions_take_half_the_scan(stage):
    x = torch.zeros(1, 16, 24, 32)
    published = {"type": "ModalityDivergenceInteraction", "divergence": {"mode": "topk", "ratio": 0.5}}
    options = [{**published, "sparse": sparse} for sparse in (False, True)]
    whole, half = (count_macs(INTERACTIONS.create(option, stage=stage, width=32), x, x) for option in options)
    assert whole.within("mamba.scans") == 2 * half.within("mamba.scans") > 0


def test_a_network_that_looks_at_values_is_a_message():
    with pytest.raises(UserError, match=r"cannot be counted.*meta device.*must not depend on values"):
        count_macs(Apply(lambda x: x * x.sum().item()), torch.zeros(2))
