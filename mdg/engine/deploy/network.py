"""A trained network as one graph of operations that every runtime knows, with all that lies between image and mask.

Legend: B batch, K classes, H W size of the images.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from mdg.errors import ConfigError, DataError
from mdg.models.decoders.dual_frequency import DualFrequencyDecoder
from mdg.models.decoders.upernet import UperNetDecoder
from mdg.models.interaction.divergence import DivergenceMask
from mdg.models.interaction.spatial_mamba import SpatialMambaFusion
from mdg.models.segmentor import STRIDE
from mdg.ops.modes import exporting
from mdg.ops.resize import resize_bilinear

INPUTS = ("rgb", "thermal")
OUTPUTS = ("mask", "probabilities", "logits")
LARGEST_SIDE = 8192  # of an image where the size is open, in pixels; larger ones may overflow a runtime's indices
LARGEST_BATCH = 256


class Shape(NamedTuple):
    """What a file takes: ``size`` [height, width] in pixels and images at once; or, ``dynamic``, any number of images
    of any size whose sides are multiples of 32, with these as the example."""

    size: tuple[int, int]
    batch: int = 1
    dynamic: bool = False

    def text(self) -> str:
        """For messages and for whoever reads the file."""
        if self.dynamic:
            return f"any batch, height and width, these two in multiples of {STRIDE} up to {LARGEST_SIDE}"
        return f"{self.batch} x {self.size[0]}x{self.size[1]}"


class Deployed(nn.Module):
    """A network with its normalisation in front and what is asked of it behind.

    Args:
        network: In evaluation mode, on a CPU.
        outputs: Names out of :data:`OUTPUTS`, in the order in which they come.
        temperature: What logits are divided by before they become probabilities.
    """

    def __init__(self, network: nn.Module, outputs: Sequence[str], temperature: float = 1.0):
        super().__init__()
        self.network, self.outputs, self.temperature = network, tuple(outputs), temperature

    def forward(self, rgb: Tensor, thermal: Tensor) -> tuple[Tensor, ...]:
        """``rgb`` ``[B, 3, H, W]`` and ``thermal`` ``[B, 1, H, W]``, float32 on the scale 0..255.

        Returns:
            ``mask``: class ids ``[B, H, W]`` uint8; ``probabilities``: ``[B, K, H, W]`` float32, one in sum at every
            pixel; ``logits`` ``[B, K, H, W]`` float32.
        """
        logits_BKHW = resize_bilinear(self.network(rgb, thermal).logits.float(), rgb.shape[-2:])
        made = {
            "mask": lambda: logits_BKHW.argmax(dim=1).to(torch.uint8),
            "probabilities": lambda: (logits_BKHW / self.temperature).softmax(dim=1),
            "logits": lambda: logits_BKHW,
        }
        return tuple(made[name]() for name in self.outputs)


def capture(network: Deployed, shape: Shape) -> ExportedProgram:
    """The graph of a network.

    Args:
        network: In evaluation mode, on a CPU.
        shape: Of the images.

    Raises:
        ConfigError: The network, or a part of it, cannot become a graph; the message says why.
    """
    require_exportable(network, shape)
    batch = max(shape.batch, 2) if shape.dynamic else shape.batch  # a graph from a batch of one is for batches of one
    images = [torch.zeros(batch, channels, *shape.size) for channels in (3, 1)]
    open_sizes = None
    if shape.dynamic:
        # Named in steps of 32, so that it is known beforehand that nothing is padded and every map divides.
        steps = LARGEST_SIDE // STRIDE
        height, width = (STRIDE * Dim(name, min=1, max=steps) for name in ("rows_of_32", "columns_of_32"))
        one = {0: Dim("batch", min=1, max=LARGEST_BATCH), 2: height, 3: width}
        open_sizes = (one, dict(one))
    with torch.no_grad(), exporting():
        try:
            return torch.export.export(network, tuple(images), dynamic_shapes=open_sizes, strict=False)
        except Exception as error:  # networks of others, and their parts, fail in their own ways
            first = next(iter(str(error).strip().splitlines()), type(error).__name__)
            advice = "; a fixed size (without --dynamic) asks less of a network" if shape.dynamic else ""
            raise ConfigError(
                f"this network cannot become a graph of {shape.text()}: torch.export says: {first[:300]}{advice}"
            ) from error


def require_sizes(shape: Shape, size: Sequence[int]) -> None:
    """Raises DataError unless a file takes images of this [height, width]."""
    fits = not any(side % STRIDE for side in size) if shape.dynamic else tuple(size) == tuple(shape.size)
    if not fits:
        raise DataError(
            f"the file takes {shape.text()} and got images of {size[0]}x{size[1]}; export it with --size "
            f"{size[0]}x{size[1]}, or resize the images with --opts 'pipeline.eval_size=[{shape.size[0]}, "
            f"{shape.size[1]}]'"
        )


def require_exportable(network: nn.Module, shape: Shape) -> None:
    """Raises ConfigError where it is known beforehand that the network cannot become such a graph."""
    if shape.dynamic and any(side % STRIDE for side in shape.size):
        raise ConfigError(
            f"--dynamic: a file of open size takes sides in multiples of {STRIDE}, and the example is "
            f"{shape.size[0]}x{shape.size[1]}; name such a --size, or leave --dynamic out: a fixed size may be any, as "
            "the graph pads it"
        )
    for module in network.modules() if shape.dynamic else ():
        if isinstance(module, SpatialMambaFusion):
            part, why = "its fusion scans over positions", "the depth of that scan follows from their number"
        elif isinstance(module, DivergenceMask) and module.mode == "topk":
            part, why = "its divergence mask is `topk`", "how many positions that selects must be known beforehand"
        elif isinstance(module, (DualFrequencyDecoder, UperNetDecoder)):
            part, why = "its decoder pools to a grid", "the windows of that follow from the size of the map"
        else:
            continue
        raise ConfigError(f"--dynamic: this network has one size in a file: {part}, and {why}; name --size HxW instead")
