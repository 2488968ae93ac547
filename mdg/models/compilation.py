"""``torch.compile`` as this network needs it."""

from __future__ import annotations

from torch import nn

# Inductor would choose a memory layout for convolutions and pass it on to what feeds them. The maps of this network are
# channels-last already, as ``BHWC`` tensors that a convolution sees through a view; taking those for ``BCHW`` ones, it
# turned them round, and with PyTorch 2.12 a training step on a CPU then wrote outside of its buffers.
OPTIONS = {"layout_optimization": False}


def compile_network(model: nn.Module) -> None:
    """Compiles a network in place, at its first forward pass; names and weights stay as they are."""
    model.compile(options=OPTIONS)
