"""Mishaps of single processes of a launch, for a configuration that imports this module.

MISHAPS lists them with blanks between, each as ``kind:rank:step`` or, for one attempt of a launch alone,
``kind:rank:step:attempt``; steps count from 0. Where NOTES names a folder, every process keeps there what it validated.

    kill       the process kills itself before the step; before step -1: while it builds the model.
    freeze     the process stops before the step, as a machine does that loses its power; ``frozen`` in NOTES says so.
    nan        the loss of the step is NaN, in every epoch's pass that comes to it.
    nan-from   the same in this step and all behind it.
    logits     NaN logits in the validation behind the step, or the first one after it.
    terminate  SIGTERM for the launcher in that validation, which goes on when the signal is here.
"""

from __future__ import annotations

import hashlib
import os
import signal
import time
from pathlib import Path

from torch import nn

from mdg.engine import trainer
from mdg.engine.inference import Inference
from mdg.engine.trainer import Trainer
from mdg.utils.launched import restart_count

RANK = int(os.environ.get("RANK", 0))
MINE: dict[str, int] = {}
for _text in os.environ.get("MISHAPS", "").split():
    _kind, _rank, _step, *_attempt = _text.split(":")
    if int(_rank) == RANK and (not _attempt or int(_attempt[0]) == restart_count()):
        MINE[_kind] = int(_step)

_train_step, _forward, _evaluate = Trainer.train_step, Trainer._forward, trainer.evaluate_model
_scores, _validate, _build_model = Inference.scores, Trainer.validate, Trainer._build_model
_running: list[Trainer] = []


def train_step(self, group):
    if MINE.get("kill") == self.progress.step:
        os.kill(os.getpid(), signal.SIGKILL)
    if MINE.get("freeze") == self.progress.step:
        Path(os.environ["NOTES"], "frozen").touch()
        os.kill(os.getpid(), signal.SIGSTOP)
    _train_step(self, group)


def build_model(self, *args, **kwargs):
    if MINE.get("kill") == -1:
        os.kill(os.getpid(), signal.SIGKILL)
    _build_model(self, *args, **kwargs)


def forward(self, network, part, batch):
    loss = _forward(self, network, part, batch)
    step = self.progress.step
    return loss * float("nan") if MINE.get("nan") == step or MINE.get("nan-from", step + 1) <= step else loss


def validate(self):
    _running[:] = [self]
    return _validate(self)


def evaluate(model, *args, **kwargs):
    if folder := os.environ.get("NOTES"):
        step = _running[0].progress.step
        with Path(folder, f"rank-{RANK}.txt").open("a") as stream:
            stream.write(f"{step} {digest(model)}\n")
    return _evaluate(model, *args, **kwargs)


def scores(self, *args, **kwargs):
    found, run = _scores(self, *args, **kwargs), _running[0]
    if MINE.get("terminate") == run.progress.step:
        del MINE["terminate"]
        os.kill(os.getppid(), signal.SIGTERM)
        until = time.monotonic() + 60
        while not run.signals.received and time.monotonic() < until:
            time.sleep(0.01)
    return found


def spoil(network, _, output):
    if not network.training and _running and _running[0].progress.step >= MINE["logits"]:
        output.logits.fill_(float("nan"))


def digest(model: nn.Module) -> str:
    """Of all weights and buffers."""
    return hashlib.sha256(b"".join(value.numpy().tobytes() for value in model.state_dict().values())).hexdigest()


Trainer.train_step, Trainer._forward, Trainer.validate = train_step, forward, validate
trainer.evaluate_model, Inference.scores, Trainer._build_model = evaluate, scores, build_model
if "logits" in MINE:
    nn.modules.module.register_module_forward_hook(
        lambda network, args, output: spoil(network, args, output) if hasattr(output, "logits") else None
    )
