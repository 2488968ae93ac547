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
from mdg.engine.distributed import World, distributed
from mdg.engine.freezing import freeze, hold
from mdg.engine.methods import Images
from mdg.engine.runtime import make_autocast
from mdg.engine.state import seed_step
from mdg.errors import NonFiniteError, WeightsError
from mdg.losses import Objective
from mdg.models import build_model
from mdg.models.weight_files import read_tensors
from mdg.registry import METHODS
from mdg.utils.files import replacing
from mdg.utils.run_directory import RunDirectory

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


def diverged(
    model: nn.Module, forward: Forward, batches: Sequence[Batch], world: World, run: RunDirectory, kept: dict[str, Any]
) -> NonFiniteError:
    """The error of a run whose steps are no longer finite. The last one is done again on all processes, to name its
    first tensor that is not, and kept by the first process that finds one.

    Args:
        model, forward, batches: See :func:`find_non_finite`; this process's share of the step.
        world, run: Where the run is.
        kept: What :func:`repeat_step` needs to know: ``config``, ``classes``, ``ignore_index``, ``step`` and ``lr``.
    """
    found = world.gather(find_non_finite(model, forward, batches))
    rank = next((rank for rank, text in enumerate(found) if text is not None), 0)
    step = kept["step"] + 1  # as people count
    file = run.path / f"non-finite-step-{step}.pt"
    if world.rank == rank:
        write_step(file, model, batches, {**kept, "rank": rank})
    world.barrier()
    return NonFiniteError(
        f"too many steps in a row, up to step {step}, were skipped, as the loss or a gradient was not finite (learning "
        f"rate {kept['lr']:.3g}; train.max_skipped_steps). First in step {step}, process {rank}: "
        f"{found[rank] or 'nothing when the step was done again'}. {file} repeats it: python "
        f"scripts/reproduce_step.py {file}. {run.last} holds the last good state, if one was saved; lower "
        "optimizer.lr, set train.clip_grad_norm, or use fp32 or bf16"
    )


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
        method = METHODS.create(config.train.method, config=config, num_classes=content["classes"])
        network = build_model(config.model, content["classes"], load_pretrained=False)
        model = method.learner(network, load_pretrained=False)
        model.load_state_dict(
            content["model"]
        )  # load_weights refuses weights that are not finite; here they are sought
        held = freeze(model, config.train.freeze)
        model.to(world.device).train()
        hold(held)
        objective = Objective(
            config.loss,
            config.auxiliary_loss,
            num_classes=content["classes"],
            ignore_index=content["ignore_index"],
            automatic_weights=lambda: content.get("class_weights") or [],
        ).to(world.device)
        method.autocast = make_autocast(config, world.device)

        def forward(part: int, batch: Batch) -> Tensor:
            seed_step(config.seed, content["step"], part, content["rank"])
            return method.loss(model, Images.of(batch, world.device), objective, content.get("epochs", 0.0))[0]

        return find_non_finite(model, forward, [Batch(**batch) for batch in content["batches"]])
