"""Measures a machine: all backends of the operators that may be chosen, at the shapes of the network.

The automatic choice goes by the result, see ``mdg.ops.measured``. Backends take turns, so that a processor that gets
slower slows all of them, and the fastest of their rounds counts: other programs only ever add time.

Legend: see ``mdg.ops.linear``, ``mdg.ops.attention``, ``mdg.ops.neighborhood_attention`` and ``mdg.ops.channel_scan``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor

from mdg.benchmark.race import MAKE_INPUTS, Inputs, like
from mdg.benchmark.timing import elapsed_ms
from mdg.models.backbones.mit import HEADS, REDUCTIONS, STAGES, VARIANTS
from mdg.ops.dispatch import Operator, get_operator
from mdg.ops.measured import Measurement, Timing, of_this_machine
from mdg.options.models import ChannelMambaOptions, LocalCrossAttentionOptions
from mdg.utils.allocator import tune_allocator

Shape = tuple[str, tuple[Any, ...]]  # an operator, and its inputs by position, tensors by their shapes
ENCODERS = ("b0", "b2")
SIZES = ((480, 640), (240, 320))
WINDOWS, EXPANSION = (7, 5, 5, 5), (2, 2, 1, 1)  # of the interaction in the shipped configurations
MAX_SEQUENCES = 4800  # of a scan, whose time grows with them and with nothing else
ROUNDS = 3
# A backend that is so many times slower than another one, and takes so long, runs in one round only.
HOPELESS, LONG_MS = 3, 50
CPU = torch.device("cpu")


def standard_shapes() -> list[Shape]:
    """The shapes of two encoders and of the interaction between them, each once; neighbourhoods and scans at one size
    of images, as their time is proportional to it."""
    shapes: dict[Shape, None] = {}
    for variant in ENCODERS:
        for size in SIZES:
            for stage in STAGES:
                shapes |= dict.fromkeys(_encoder_shapes(VARIANTS[variant][0][stage - 1], stage, *size))
        for stage in STAGES:
            shapes |= dict.fromkeys(_interaction_shapes(VARIANTS[variant][0][stage - 1], stage, *SIZES[0]))
    return list(shapes)


def _map(stage: int, height: int, width: int) -> tuple[int, int]:
    stride = 2 << stage
    return -(-height // stride), -(-width // stride)


def _encoder_shapes(C: int, stage: int, height: int, width: int) -> Iterator[Shape]:
    H, W = _map(stage, height, width)
    reduction = REDUCTIONS[stage - 1]
    N, M = H * W, (H // reduction) * (W // reduction)
    for rows, inputs, outputs in ((N, C, C), (M, C, 2 * C), (N, C, 4 * C), (N, 4 * C, C)):
        yield "linear", ((rows, inputs), (outputs, inputs), (outputs,))
    yield "attention", ((1, N, C), (1, M, C), (1, M, C), HEADS[stage - 1])


def _interaction_shapes(C: int, stage: int, height: int, width: int) -> Iterator[Shape]:
    H, W = _map(stage, height, width)
    attention, scan = LocalCrossAttentionOptions(kernel_size=WINDOWS), ChannelMambaOptions(expansion=EXPANSION)
    assert not isinstance(attention.heads, str), "the default of heads is a number per stage"
    h = attention.heads[stage - 1]
    q = (1, H, W, h, C // h)
    yield "neighborhood_attention", (q, q, q, attention.kernel_size[stage - 1], (C // h) ** -0.5)
    B, D, S, N, R = min(H * W, MAX_SEQUENCES), scan.features, 2, scan.state, scan.dt_rank
    L = 2 * C * scan.expansion[stage - 1] // D  # of both streams
    yield "channel_scan", ((B, L, D), (B, L, S * (R + 2 * N)), (S, D, R), (S, D), (S, D, N), (S, D))


def measure_machine(shapes: Sequence[Shape] | None = None, rounds: int | None = None) -> Measurement:
    """Races the backends on this CPU with as many threads as PyTorch has now.

    Args:
        shapes: Of the operators' inputs; None takes :func:`standard_shapes`. What is so small that no measurement is
            looked up, and what a single backend can do, is left out.
        rounds: Of which the fastest counts; None takes :data:`ROUNDS`.
    """
    tune_allocator()  # as in training
    timings: dict[str, list[Timing]] = defaultdict(list)
    for name, inputs in sorted(standard_shapes() if shapes is None else shapes, key=_size):
        timing = _measure(get_operator(name), inputs, rounds or ROUNDS, is_first=name not in timings)
        if timing is not None:
            timings[name].append(timing)
    return of_this_machine(dict(timings))


def _size(shape: Shape) -> tuple[str, int]:
    return shape[0], prod(shape[1][0])


def _measure(operator: Operator, shapes: tuple[Any, ...], rounds: int, is_first: bool) -> Timing | None:
    inputs = like(MAKE_INPUTS[operator.name](shapes, torch.float32))
    assert operator.describe is not None, operator.name
    numbers = operator.describe(*inputs)
    runners = [name for name in operator.names if operator.objection(name, *inputs) is None]
    if numbers is None or len(runners) < 2:
        return None
    if is_first:
        for name in runners:  # compiles
            _times(operator, name, inputs)
    best: dict[str, tuple[float, float]] = {}
    for number in range(rounds):
        for name in runners[:: 1 if number % 2 == 0 else -1]:
            if not _is_hopeless(name, best):
                forward, backward = _times(operator, name, inputs)
                known = best.get(name, (forward, backward))
                best[name] = min(forward, known[0]), min(backward, known[1])
    return Timing(
        numbers=list(numbers),
        forward_ms={name: forward for name, (forward, _) in best.items()},
        backward_ms={name: backward for name, (_, backward) in best.items()},
    )


def _is_hopeless(name: str, best: dict[str, tuple[float, float]]) -> bool:
    if name not in best:
        return False
    own, fastest = sum(best[name]), min(map(sum, best.values()))
    return own > LONG_MS and own > HOPELESS * fastest


def _times(operator: Operator, backend: str, inputs: Inputs) -> tuple[float, float]:
    """Milliseconds of a forward pass without gradients, and of a backward pass."""
    run = partial(operator, *inputs, backend=backend)
    with torch.no_grad():
        forward_ms = elapsed_ms(run, CPU)
    out = run()
    leaves = [x for x in inputs if isinstance(x, Tensor)]
    gradient = torch.ones_like(out)
    return forward_ms, elapsed_ms(lambda: torch.autograd.grad(out, leaves, gradient), CPU)
