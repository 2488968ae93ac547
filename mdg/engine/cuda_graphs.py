"""The forward pass on a GPU as a CUDA graph: recorded once per size of the images, then replayed.

A pass of MDG launches about a thousand kernels. For a single image a GPU runs them faster than Python launches them; a
graph launches all of them at once. It reads and writes the same memory in every replay, so images are copied in and
results are copied out, and weights that an optimizer changes in place are seen. What else it reads, the tables of the
operators, it owns: a cache may forget them, a graph would go on reading where they lay.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mdg.errors import UserError
from mdg.ops.tables import Kept, keeping

Forward = Callable[..., Any]
WARMUP = 2  # passes on a stream of their own before the recording, as PyTorch asks for
MAX_GRAPHS = 4  # each keeps the memory of a pass


class Owner(NamedTuple):
    """A recording, and the tables that live as long as it does."""

    replay: Forward
    tables: Kept


class GraphedForward:
    """A forward pass that is recorded and replayed. The first images of a size go through as they are: kernels are
    compiled and tables made then, which a recording must not hold. Above ``limit`` sizes, the one unused for longest
    is forgotten.

    Args:
        forward: Images on a GPU to a tensor, or to tuples of tensors. It must not depend on anything but the images
            and weights that stay where they are, and it must not wait for the host.
        limit: Sizes to keep.
        record: What makes a recording; for tests.
    """

    def __init__(
        self,
        forward: Forward,
        limit: int = MAX_GRAPHS,
        record: Callable[[Forward, tuple[Tensor, ...]], Forward] | None = None,
    ):
        self.forward, self.limit, self.record = forward, limit, record or Recording
        self.recordings: OrderedDict[Any, Owner | None] = OrderedDict()

    def __call__(self, *images: Tensor) -> Any:
        """The result of ``forward(*images)``, in memory of its own.

        Raises:
            UserError: The pass cannot be recorded.
        """
        size = tuple((image.shape, image.dtype, image.device) for image in images)
        if size not in self.recordings:
            self.recordings[size] = None
            if len(self.recordings) > self.limit:
                self.recordings.popitem(last=False)
            return self.forward(*images)
        owner = self.recordings[size]
        if owner is None:
            with keeping() as tables:
                owner = self.recordings[size] = Owner(self.record(self.forward, images), tables)
        self.recordings.move_to_end(size)
        return owner.replay(*images)


class Recording:
    """One size: a graph, and the memory that it reads and writes."""

    def __init__(self, forward: Forward, images: tuple[Tensor, ...]):
        self.images = [image.clone() for image in images]
        with torch.cuda.device(images[0].device):
            current, aside = torch.cuda.current_stream(), torch.cuda.Stream()
            aside.wait_stream(current)
            with torch.cuda.stream(aside):
                for _ in range(WARMUP):
                    forward(*self.images)
            current.wait_stream(aside)
            self.graph = torch.cuda.CUDAGraph()
            # Inside of another autocast, weights cast before would be read from where they lie now, and freed later.
            torch.clear_autocast_cache()
            try:
                with torch.cuda.graph(self.graph):
                    self.output = forward(*self.images)
            except RuntimeError as error:
                raise UserError(
                    f"the forward pass could not be recorded as a CUDA graph ({str(error).strip().splitlines()[0]}); "
                    "set eval.cuda_graphs to false"
                ) from error
            finally:
                torch.clear_autocast_cache()  # and those cast in here lie in the memory of the graph

    def __call__(self, *images: Tensor) -> Any:
        for kept, image in zip(self.images, images, strict=True):
            kept.copy_(image)
        self.graph.replay()
        return copied(self.output)


def copied(output: Any) -> Any:
    """Tensors, in tuples and named tuples of any depth, in memory of their own."""
    if isinstance(output, Tensor):
        return output.clone()
    if isinstance(output, tuple):
        parts = [copied(part) for part in output]
        return type(output)(*parts) if hasattr(output, "_fields") else tuple(parts)
    return output
