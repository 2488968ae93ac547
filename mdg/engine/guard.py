"""No step whose loss or gradients are not finite reaches the optimizer.

The decision falls on the device, so that no step waits for the host: a loss that is not finite makes every gradient NaN
(on all processes, as gradients are averaged), and a gradient norm that is not finite makes the optimizer skip the step.
BatchNorm statistics, which the forward pass has changed by then, go back to what they were.

Legend: N values of all buffers.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from mdg.engine.distributed import widest_float
from mdg.engine.sharding import is_sharded, whole_norm


class StepGuard:
    """Decides about every step of one model and counts those it skips.

    Args:
        model: Its parameters are judged, its buffers are kept.
        optimizer: Skips on the device where it can (fused ones can), else the host waits for the decision.
        scaler: Loss scaling of fp16; its own skipping and this one always agree.
        clip: Upper bound of the gradient norm, or None.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
        clip: float | None,
    ):
        self.optimizer, self.scaler, self.clip = optimizer, scaler, clip
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.sharded = is_sharded(model)
        # Counters too: a batch that was not learnt from has not been tracked.
        self.buffers = {dtype: [b for b in model.buffers() if b.dtype == dtype] for dtype in _dtypes(model)}
        device = self.parameters[0].device
        self.counts = torch.zeros(2, dtype=widest_float(device), device=device)  # skipped in a row, skipped in all
        self._told = _HostCopy(device)
        self._kept: dict[torch.dtype, Tensor] = {}

    def begin(self) -> None:
        """Remembers the buffers; before the first forward pass of a step."""
        self._kept = {dtype: torch.cat([b.flatten() for b in buffers]) for dtype, buffers in self.buffers.items()}

    @staticmethod
    def spread(loss: Tensor) -> Tensor:
        """The loss; one that is not finite as a NaN whose gradients are all NaN, so that every process learns of it."""
        # Not `where` of two losses: the branch that is not taken would put its NaN into the gradient.
        return loss * torch.where(loss.detach().isfinite(), 1.0, torch.nan)

    def finish(self) -> None:
        """The optimizer's step, or none; after the last backward pass."""
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        norm = get_total_norm(gradients)
        skip = (~whole_norm(norm).isfinite()).to(torch.float32)
        if self.scaler.is_enabled():
            self._step_scaled(gradients, skip)
        else:
            if self.clip is not None:
                clip_grads_with_norm_(self.parameters, self.clip, norm)
            self._step(skip)
        self._restore_buffers(skip)
        self.counts = torch.stack([(self.counts[0] + 1) * skip, self.counts[1] + skip])

    def _step_scaled(self, gradients: list[Tensor], skip: Tensor) -> None:
        # A norm can be infinite where no gradient is; one NaN among them lets GradScaler see it as we do.
        smallest = min(gradients, key=Tensor.numel)
        smallest.add_(torch.where(skip > 0, torch.nan, 0.0).to(smallest.dtype))
        self.scaler.unscale_(self.optimizer)
        if self.clip is not None:
            clip_grads_with_norm_(self.parameters, self.clip, get_total_norm(gradients))
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def _step(self, skip: Tensor) -> None:
        if self.sharded or not getattr(self.optimizer, "_step_supports_amp_scaling", False):
            if not skip.item():
                self.optimizer.step()
            return
        # The protocol by which GradScaler tells fused optimizers to leave everything as it is.
        optimizer: Any = self.optimizer
        optimizer.grad_scale, optimizer.found_inf = None, skip
        try:
            optimizer.step()
        finally:
            del optimizer.grad_scale, optimizer.found_inf

    def _restore_buffers(self, skip: Tensor) -> None:
        for dtype, buffers in self.buffers.items():
            now_N = torch.cat([b.flatten() for b in buffers])
            parts = now_N.where(skip == 0, self._kept[dtype]).split([b.numel() for b in buffers])
            torch._foreach_copy_(buffers, [part.view_as(b) for part, b in zip(parts, buffers, strict=True)])
        self._kept = {}

    def in_a_row(self) -> int:
        """Steps skipped one after the other: up to the last step on a CPU, up to the one before on a GPU, where the
        host does not wait for the last."""
        return int(self._told(self.counts)[0])

    def total(self) -> int:
        """Steps skipped in all; the host waits for the device."""
        return int(self.counts[1])

    def state_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        in_a_row, total = map(int, self.counts.tolist())
        return {"in_a_row": in_a_row, "total": total}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of :meth:`state_dict`; nothing was skipped where it is empty."""
        values = [float(state.get("in_a_row", 0)), float(state.get("total", 0))]
        self.counts = torch.tensor(values, dtype=self.counts.dtype, device=self.counts.device)


def _dtypes(model: nn.Module) -> list[torch.dtype]:
    return list(dict.fromkeys(buffer.dtype for buffer in model.buffers()))


class _HostCopy:
    """Values of the device, one call late on a GPU: the host then waits for work that has long been done."""

    def __init__(self, device: torch.device):
        self.late = device.type == "cuda"
        self._pending: tuple[Tensor, torch.cuda.Event] | None = None

    def __call__(self, values: Tensor) -> list[float]:
        if not self.late:
            return values.tolist()
        before, event = self._pending, torch.cuda.Event()
        copy = torch.empty(values.shape, dtype=values.dtype, pin_memory=True).copy_(values, non_blocking=True)
        event.record()
        self._pending = (copy, event)
        if before is None:
            return [0.0] * values.numel()
        before[1].synchronize()
        return before[0].tolist()
