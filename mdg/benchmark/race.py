"""Races the backends of the operators at the shapes of a network, and holds them against float64.

Legend: see ``mdg.ops.neighborhood_attention``, ``mdg.ops.channel_scan`` and ``mdg.ops.attention``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor

from mdg.benchmark.macs import OperatorCall
from mdg.benchmark.timing import repeat_ms
from mdg.ops.channel_scan.reference import reference_channel_scan
from mdg.ops.dispatch import Operator, get_operator

Inputs = list[Any]
SEED = 0


def neighborhood_attention_inputs(shapes: Sequence[Any], dtype: torch.dtype) -> Inputs:
    """Normal queries, keys and values; window and scale as they are."""
    *qkv, kernel_size, scale = shapes
    return [*(_normal(shape, place).to(dtype) for place, shape in enumerate(qkv)), kernel_size, scale]


def channel_scan_inputs(shapes: Sequence[Any], dtype: torch.dtype) -> Inputs:
    """Normal sequences and projections, parameters as the network starts with. float32, as the network makes them
    whatever its precision."""
    u, projected, dt_weight, dt_bias, A, skip = shapes
    N, R = A[-1], dt_weight[-1]
    steps = torch.logspace(-3, -1, dt_bias[1]).expand(dt_bias)
    bias = steps + torch.log(-torch.expm1(-steps))  # softplus of the bias gives the step
    decay = -torch.arange(1.0, N + 1).expand(A)
    return [_normal(u, 0), _normal(projected, 1), _normal(dt_weight, 2) / R**0.5, bias, decay, torch.ones(skip)]


def linear_inputs(shapes: Sequence[Any], dtype: torch.dtype) -> Inputs:
    """Normal rows, weights of a layer at its start, and a bias where there is one."""
    x, weight, bias = shapes
    values = [_normal(x, 0).to(dtype), (_normal(weight, 1) / weight[-1] ** 0.5).to(dtype)]
    return [*values, None if bias is None else _normal(bias, 2).to(dtype)]


def attention_inputs(shapes: Sequence[Any], dtype: torch.dtype) -> Inputs:
    """Normal queries, keys and values; the number of heads as it is."""
    *qkv, heads = shapes
    return [*(_normal(shape, place).to(dtype) for place, shape in enumerate(qkv)), heads]


MAKE_INPUTS: dict[str, Callable[[Sequence[Any], torch.dtype], Inputs]] = {
    "neighborhood_attention": neighborhood_attention_inputs,
    "channel_scan": channel_scan_inputs,
    "attention": attention_inputs,
    "linear": linear_inputs,
}


def like(inputs: Inputs, *, dtype: torch.dtype | None = None, device: torch.device | None = None) -> Inputs:
    """Leaves that require gradients, with the values of ``inputs``; what is no tensor stays."""
    return [
        x.detach().to(device=device, dtype=dtype).clone().requires_grad_() if isinstance(x, Tensor) else x
        for x in inputs
    ]


def _normal(shape: Sequence[int], place: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(SEED + place))


# The plain backends; tests/ops holds them against loops written out.
REFERENCE = {"neighborhood_attention": "tiled", "channel_scan": "torch", "attention": "torch"}
FIGURES = ("forward_ms", "training_ms", "output_error", "gradient_error")
REPETITIONS = {"cpu": (1, 3), "cuda": (5, 30)}  # warm-up, measured


def race(calls: Sequence[OperatorCall], dtype: torch.dtype, device: torch.device) -> Iterator[dict[str, Any]]:
    """Measures every backend on every shape that occurs.

    Args:
        calls: The calls of one forward pass, see :class:`mdg.benchmark.macs.MacCount`.
        dtype: Of queries, keys and values; the scan gets float32.
        device: Where.

    Yields:
        Per shape and backend ``operator``, ``module`` (the first with this shape), ``calls`` of this shape in a pass,
        ``shape`` of the first input, ``backend``, ``forward_ms``, ``training_ms`` (forward and backward),
        ``output_error``, ``gradient_error`` (the largest difference from float64 as a part of the largest value, over
        all tensors) and ``reason`` why it did not run, or not with gradients. What was not measured is None.
    """
    counts = Counter((call.operator, call.inputs) for call in calls)
    first = {(call.operator, call.inputs): call.module for call in reversed(calls)}
    for (name, shapes), number in sorted(counts.items(), key=lambda item: item[0][0]):
        if name not in REFERENCE:  # linear layers, or an operator from outside the package
            continue
        race = _Race(get_operator(name), like(MAKE_INPUTS[name](shapes, dtype), device=device), REFERENCE[name])
        facts = {"operator": name, "module": first[name, shapes], "calls": number, "shape": list(shapes[0])}
        for backend in race.operator.names:
            yield {**facts, "backend": backend, **race.measure(backend)}
        if name == "channel_scan" and device.type == "cuda":
            # What a compiler makes of the plain recurrence: the one to beat where mamba-ssm is not installed. On a CPU
            # compiling takes minutes.
            compiled = torch.compile(reference_channel_scan, fullgraph=True)
            yield {**facts, "backend": "reference, compiled", **race.measure_function(compiled)}


class _Race:
    """One operator on one set of inputs."""

    def __init__(self, operator: Operator, inputs: Inputs, reference: str):
        self.operator, self.inputs, self.device = operator, inputs, inputs[0].device
        # The output has the shape of the first input.
        self.gradient = torch.randn(inputs[0].shape, generator=torch.Generator().manual_seed(1)).to(inputs[0])
        self.exact = self.train(partial(operator, backend=reference), like(inputs, dtype=torch.float64))

    def train(self, function: Callable[..., Tensor], inputs: Inputs) -> list[Tensor]:
        """The output and the gradients of all tensors."""
        out = function(*inputs)
        leaves = [x for x in inputs if isinstance(x, Tensor)]
        return [out.detach(), *torch.autograd.grad(out, leaves, self.gradient.to(out.dtype))]

    def measure(self, backend: str) -> dict[str, Any]:
        """Times, errors and reason of a backend."""
        with torch.no_grad():
            reason = self._why_not(backend)
        if reason is not None:
            return {**dict.fromkeys(FIGURES), "reason": reason}
        return self.measure_function(partial(self.operator, backend=backend), self._why_not(backend))

    def measure_function(self, function: Callable[..., Tensor], why_no_gradients: str | None = None) -> dict[str, Any]:
        """Times and errors of a function of the inputs; without gradients where there is a reason against them."""
        found: dict[str, Any] = {**dict.fromkeys(FIGURES), "reason": None}
        with torch.no_grad():
            found["output_error"] = largest_error([function(*self.inputs)], self.exact[:1])
            found["forward_ms"] = self._median_ms(lambda: function(*self.inputs))
        if why_no_gradients is not None:
            return {**found, "reason": f"with gradients: {why_no_gradients}"}
        found["gradient_error"] = largest_error(self.train(function, self.inputs)[1:], self.exact[1:])
        found["training_ms"] = self._median_ms(lambda: self.train(function, self.inputs))
        return found

    def _why_not(self, backend: str) -> str | None:
        # Also where it could run but the automatic choice must not take it: memory without bounds.
        return self.operator.objection(backend, *self.inputs)

    def _median_ms(self, action: Any) -> float:
        return median(repeat_ms(action, self.device, *REPETITIONS[self.device.type]))


def largest_error(values: Sequence[Tensor], exact: Sequence[Tensor]) -> float:
    """The largest difference in a tensor as a part of its largest value, over all tensors."""
    return max(
        float((value.double() - true).abs().max() / true.abs().max().clamp(min=1e-300))
        for value, true in zip(values, exact, strict=True)
    )
