"""Where numbers stop being finite: a step is done again with an eye on every tensor, and can be kept as a file.

``python scripts/reproduce_step.py FILE`` does a kept step again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from mdg.config import parse_config
from mdg.config.yaml_tree import parse_yaml
from mdg.data import Batch
from mdg.engine.distributed import distributed
from mdg.engine.evaluator import make_autocast
from mdg.engine.state import seed_step
from mdg.errors import WeightsError
from mdg.losses import Objective
from mdg.models import build_model
from mdg.models.weights import read_tensors
from mdg.utils.files import replacing

Forward = Callable[[int, Batch], Tensor]


def find_non_finite(model: nn.Module, forward: Forward, batches: Sequence[Batch]) -> str | None:
    """The first tensor that is not finite: a weight, the output of a module, a loss or a gradient, in the order in
    which a step computes them; None where all are finite.

    Args:
        model: Network as it was before the step; its gradients and buffers are changed.
        forward: Place in the step and batch to the loss.
        batches: The batches of one optimizer step.
    """
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        if not _finite(value):
            return f"weight {name}"
    found: list[str] = []
    hooks = [
        module.register_forward_hook(
            lambda _m, _args, output, name=name: _note(found, f"output of module {name or 'model'}", output)
        )
        for name, module in model.named_modules()
    ]
    hooks += [
        parameter.register_post_accumulate_grad_hook(lambda p, name=name: _note(found, f"gradient of {name}", p.grad))
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    ]
    try:
        for part, batch in enumerate(batches):
            loss = forward(part, batch)
            _note(found, "loss", loss)
            if not found:
                loss.backward()
            if found:
                return f"{found[0]}, for {', '.join(batch.names)}"
    finally:
        for hook in hooks:
            hook.remove()
        model.zero_grad(set_to_none=True)
    return None


def _note(found: list[str], what: str, output: Any) -> None:
    if not found and not all(_finite(leaf) for leaf in tree_leaves(output) if isinstance(leaf, Tensor)):
        found.append(what)


def _finite(value: Tensor) -> bool:
    return not value.is_floating_point() or bool(value.isfinite().all())


def write_step(file: Path, model: nn.Module, batches: Sequence[Batch], facts: dict[str, Any]) -> None:
    """Keeps a step for :func:`repeat_step`: the weights before it, its batches and ``facts``, all plain values."""
    content = {
        "model": {name: value.cpu() for name, value in model.state_dict().items()},
        "batches": [dict(batch._asdict()) for batch in batches],
        **facts,
    }
    with replacing(file) as stream:
        torch.save(content, stream)


def repeat_step(file: Path, device: str = "auto") -> str | None:
    """Does a kept step again, as :func:`find_non_finite`.

    Raises:
        WeightsError: Not such a file. ConfigError: its configuration names modules that are not imported.
    """
    content = read_tensors(file)
    if not isinstance(content, dict) or "batches" not in content:
        raise WeightsError(f"{file}: not a step that training kept (non-finite-step-N.pt)")
    config = parse_config(parse_yaml(content["config"], f"configuration inside {file}"))
    with distributed(device) as world:
        model = build_model(config.model, content["classes"], load_pretrained=False)
        model.load_state_dict(
            content["model"]
        )  # load_weights refuses weights that are not finite; here they are sought
        model.to(world.device).train()
        objective = Objective(config, content["classes"], content["ignore_index"]).to(world.device)
        autocast = make_autocast(config, world.device)

        def forward(part: int, batch: Batch) -> Tensor:
            seed_step(config.seed, content["step"], part, content["rank"])
            with autocast:
                output = model(batch.rgb_B3HW.to(world.device), batch.thermal_B1HW.to(world.device))
            return objective(output, batch.label_BHW.to(world.device).long())[0]

        return find_non_finite(model, forward, [Batch(**batch) for batch in content["batches"]])
