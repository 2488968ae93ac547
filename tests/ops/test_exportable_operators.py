"""Operators as graphs for other runtimes have them, against what they are in PyTorch, at sizes odd and even."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mdg.models.decoders.frequency_gate import DynamicFrequencyGate, symmetric
from mdg.ops import attention, channel_scan, linear, neighborhood_attention, selective_scan
from mdg.ops.channel_scan.reference import reference_channel_scan
from mdg.ops.dispatch import OPERATORS
from mdg.ops.dynamic_linear import dynamic_linear
from mdg.ops.fourier import column_frequencies, filter_spectrum, row_frequencies
from mdg.ops.modes import exporting, float32_island, is_exporting
from mdg.ops.selective_scan.prefix import prefix_states
from mdg.options.models import SemanticDynamicDecoderOptions

CPU = torch.device("cpu")
SIDES = st.integers(1, 21)


def in_export(function, *inputs, **options) -> Tensor:
    with torch.no_grad(), exporting():
        return function(*inputs, **options)


def assert_near(got: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    assert got.shape == expected.shape and got.dtype == expected.dtype
    error = (got.double() - expected.double()).abs().max().item()
    assert error < tolerance * max(1.0, expected.abs().max().item())


# --- the mode ------------------------------------------------------------------------------------------------------


def test_the_mode_ends_with_its_block():
    assert not is_exporting()
    with exporting():
        with exporting():
            pass
        assert is_exporting()
    with pytest.raises(RuntimeError, match="within"), exporting():
        raise RuntimeError("within")
    assert not is_exporting()


def test_every_operator_has_an_implementation_for_export():
    ours = {"attention", "channel_scan", "linear", "neighborhood_attention", "resized_sum"}
    assert set(OPERATORS) >= ours
    for name in sorted(ours):
        with exporting():
            assert OPERATORS[name].choose(backend="anything").name == "export"
        assert "export" not in OPERATORS[name].names  # nobody chooses it for training


def test_export_leaves_autocast_alone():
    with exporting(), torch.autocast("cpu", dtype=torch.bfloat16), float32_island(torch.zeros(1)):
        assert torch.is_autocast_enabled("cpu")
    with torch.autocast("cpu", dtype=torch.bfloat16), float32_island(torch.zeros(1)):
        assert not torch.is_autocast_enabled("cpu")


# --- known answers -------------------------------------------------------------------------------------------------


def test_states_by_hand():
    decay, given_ = torch.tensor([9.0, 2.0, 0.5, 3.0, 1.0]), torch.tensor([1.0, 1.0, 4.0, 0.0, -1.0])
    # h: 1, 2 + 1, 3 / 2 + 4, 3 * 5.5, 16.5 - 1; the first decay meets no state
    assert prefix_states(decay, given_).tolist() == [1.0, 3.0, 5.5, 16.5, 15.5]


@given(st.integers(1, 70), st.integers(0, 99))
@settings(max_examples=30)
def test_states_equal_the_loop(steps, seed):
    generator = torch.Generator().manual_seed(seed)
    decay, given_ = (torch.rand(steps, 2, 3, dtype=torch.float64, generator=generator) for _ in range(2))
    h, expected = torch.zeros(2, 3, dtype=torch.float64), []
    for a, b in zip(decay, given_, strict=True):
        h = a * h + b
        expected.append(h)
    torch.testing.assert_close(prefix_states(decay, given_), torch.stack(expected), rtol=1e-12, atol=1e-12)


def test_a_filter_that_keeps_the_mean_only():
    x = torch.tensor([[1.0, 2.0, 6.0], [3.0, 0.0, 0.0]])[None, None]
    keep = torch.zeros(2, 2)
    keep[0, 0] = 1.0
    torch.testing.assert_close(in_export(filter_spectrum, x, keep), torch.full_like(x, 2.0))
    wave = torch.cos(torch.arange(8) * torch.pi / 2).expand(4, 8)[None, None]  # two periods: column 2 of the spectrum
    band = torch.zeros(4, 5)
    band[0, 2] = 1.0
    torch.testing.assert_close(in_export(filter_spectrum, 3 + wave, band), wave)


def test_a_neighbourhood_of_one_is_the_value_itself(draw):
    q, k, v = (draw(1, 5, 9, 2, 4, seed=seed) for seed in range(3))
    torch.testing.assert_close(in_export(neighborhood_attention, q, k, v, kernel_size=1, scale=-0.5), v)


# --- against PyTorch -----------------------------------------------------------------------------------------------


@given(SIDES, SIDES, st.integers(0, 99))
@settings(max_examples=40)
def test_spectrum(height, width, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 3, height, width, generator=generator)
    gates = (
        torch.rand(2, 3, height, width // 2 + 1, generator=generator) * 2,
        torch.rand(height, width // 2 + 1, generator=generator).round(),
    )
    # The gate of one image is not symmetric in the columns 0 and Nyquist, which the last sum must not see.
    assert_near(in_export(filter_spectrum, x, *gates), filter_spectrum(x, *gates))


def test_spectrum_of_a_large_map(draw):
    """Angles of 2 pi 119^2 / 120 would have lost three digits in float32."""
    x, gate = draw(1, 2, 120, 160), draw(120, 81, seed=1).abs()
    exact = filter_spectrum(x.double(), gate.double())
    assert (in_export(filter_spectrum, x, gate) - exact).abs().max() < 1e-5


@pytest.mark.parametrize("n", range(1, 34))
def test_frequencies_are_bit_by_bit_those_of_pytorch(n):
    """The high-pass compares them with a bound that some of them meet exactly."""
    assert torch.equal(in_export(row_frequencies, n, CPU), torch.fft.fftfreq(n))
    assert torch.equal(in_export(column_frequencies, n, CPU), torch.fft.rfftfreq(n))
    assert torch.equal(row_frequencies(n, CPU), torch.fft.fftfreq(n))
    assert torch.equal(column_frequencies(n, CPU), torch.fft.rfftfreq(n))


def test_rows_of_opposite_frequency_by_hand():
    bank = torch.arange(4.0)[:, None].repeat(1, 3)[None]  # rows 0, 1, 2, 3 are frequencies 0, 1, 2, -1
    assert symmetric(bank, 4)[0, :, 0].tolist() == [0.0, 2.0, 2.0, 2.0]
    assert symmetric(bank, 4)[0, :, 1].tolist() == [0.0, 1.0, 2.0, 3.0]


@given(SIDES, SIDES, st.sampled_from([1, 3, 5, 7, 13]), st.sampled_from([-1.0, -0.3, 0.5]), st.integers(0, 99))
@settings(max_examples=40)
def test_neighbourhood_attention(height, width, kernel_size, scale, seed):
    generator = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(2, height, width, 2, 4, generator=generator) for _ in range(3))
    expected = neighborhood_attention(q, k, v, kernel_size=kernel_size, scale=scale, backend="tiled")
    assert_near(in_export(neighborhood_attention, q, k, v, kernel_size=kernel_size, scale=scale), expected)


@given(st.integers(1, 40), st.sampled_from([(32, 12, 2), (3, 1, 1), (7, 5, 3)]), st.integers(1, 2), st.integers(0, 99))
@settings(max_examples=25)
def test_channel_scan(steps, features, directions, seed):
    (D, N, R), S = features, directions
    generator = torch.Generator().manual_seed(seed)
    shapes = [(3, steps, D), (3, steps, S * (R + 2 * N)), (S, D, R), (S, D), (S, D, N), (S, D)]
    inputs = [torch.randn(shape, generator=generator) for shape in shapes]
    inputs[3] -= 2
    inputs[4] = -inputs[4].exp()
    assert_near(in_export(channel_scan, *inputs), reference_channel_scan(*inputs))


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("softplus", [False, True])
@pytest.mark.parametrize("steps", [1, 6, 35, 257])
def test_selective_scan(steps, softplus, reverse, draw):
    u, delta, B, C = (draw(2, steps, size, seed=seed) for seed, size in enumerate((5, 5, 3, 3)))
    A, D, options = -draw(5, 3, seed=4).exp(), draw(5, seed=5), {"delta_softplus": softplus, "reverse": reverse}
    delta = delta - 1 if softplus else delta.abs()
    expected = selective_scan(u, delta, A, B, C, D, **options)
    assert_near(in_export(selective_scan, u, delta, A, B, C, D, **options), expected)


def test_linear_attention_and_generated_matrices(draw):
    x, weight, bias = draw(3, 700, 32), draw(40, 32, seed=1), draw(40, seed=2)
    assert_near(in_export(linear, x, weight, bias), linear(x, weight, bias))
    q, k, v = (draw(2, size, 8, seed=size) for size in (50, 6, 6))
    assert_near(in_export(attention, q, k, v, heads=2), attention(q, k, v, heads=2))
    inputs = draw(2, 4, 8, 4), draw(2, 2, 2, 6, seed=1), draw(12, 3, seed=2), draw(12, seed=3), 2
    assert_near(in_export(dynamic_linear, *inputs), dynamic_linear(*inputs))


@pytest.mark.parametrize("options", [{}, {"highpass_bins": 3.0, "frequency_routes": "free"}, {"hermitian": True}])
@pytest.mark.parametrize("size", [(9, 7), (8, 12)])
def test_frequency_gate(options, size, draw, shaken):
    decoder = SemanticDynamicDecoderOptions(embed_dim=5, frequency_reference=(12, 16), **options)
    gate: nn.Module = shaken(DynamicFrequencyGate(decoder, width=6, condition_width=8), std=0.5)
    inputs = draw(2, *size, 6), draw(2, 2, 3, 8, seed=1)
    with torch.no_grad():
        assert_near(in_export(gate, *inputs), gate(*inputs))
