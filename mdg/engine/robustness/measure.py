"""Measuring: networks with their split, opened before anything is scored, and the cells of each.

Legend: H W size of the label.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from mdg.config import RunConfig
from mdg.data import RGBTDataset, read_batch
from mdg.data.build import fill_cache, open_dataset
from mdg.data.corruptions import Corrupted
from mdg.engine.checkpoint import load_checkpoint, load_model, open_checkpoint
from mdg.engine.distributed import World, distributed, pick_device
from mdg.engine.evaluation.evaluator import evaluate_model, make_eval_loader, make_protocol, shown_in
from mdg.engine.evaluation.provenance import Provenance, provenance, trained_config
from mdg.engine.evaluation.scores import Evaluation
from mdg.engine.inference import Inference
from mdg.engine.robustness.cells import CellStore, Task
from mdg.engine.run_report.runs import Run, labels
from mdg.engine.runtime import apply_runtime, make_autocast
from mdg.errors import ConfigError, DataError
from mdg.metrics.visibility import SHOWN_IN
from mdg.utils.environment import code_fingerprint
from mdg.utils.files import file_sha256
from mdg.utils.run_directory import RunDirectory

KEPT_FROM_SETTING = {"cache", "cache_dir"}  # how frames are kept changes none of them


@dataclass
class Subject:
    """A network that is measured.

    Attributes:
        name: That no other subject has.
        run: What the user named.
        file: The checkpoint.
        config: How it is scored.
        dataset: The split as it is.
        provenance: How the weights came to be.
        store: Its cells.
    """

    name: str
    run: Path
    file: Path
    config: RunConfig
    dataset: RGBTDataset
    provenance: Provenance
    store: CellStore


def open_subjects(
    runs: Sequence[str | Path], config: str | Path | None, opts: Sequence[str], split: str, seed: int, out: Path
) -> list[Subject]:
    """Opens every network and its split without decoding a frame, so that mistakes are found before hours are spent.

    Args:
        runs: Run directories or checkpoints.
        config: A YAML for all of them; None takes the configuration inside each.
        opts: Overrides of it.
        split: "train", "val" or "test".
        seed: Of the corruptions.
        out: Where cells are kept.

    Raises:
        UserError: A run, checkpoint or data set that is absent or cannot be used, a run named twice, or runs of
            different data sets, frames, classes or rules.
    """
    files = [checkpoint_of(Path(run)) for run in runs]
    if not files or len({file.resolve() for file in files}) < len(files):
        raise ConfigError(f"got the runs {', '.join(map(str, runs)) or '(none)'}; name each once, and one at least")
    subjects: list[Subject] = []
    named: list[Run] = []
    for run, file in zip(runs, files, strict=True):
        _, state, run_config = open_checkpoint(file, config, opts)
        dataset = open_dataset(run_config.data, split)
        store = CellStore(out, _setting(run_config, file, dataset, seed))
        told, trained = provenance(state, file, dataset), trained_config(state, file)
        named.append(Run(Path(run), str(trained.get("name") or run_config.name), trained["seed"]))
        subjects.append(Subject(run_config.name, Path(run), file, run_config, dataset, told, store))
    for subject, name in zip(subjects, labels(named), strict=True):
        subject.name = name
        _require_same(subject, subjects[0])
    return subjects


def checkpoint_of(run: Path) -> Path:
    """The best (else the last) checkpoint of a run directory; a file is itself.

    Raises:
        ConfigError: Neither.
    """
    if run.is_file():
        return run
    found = RunDirectory(run).best_or_last
    if found is None:
        what = "has no checkpoints/best.pt or last.pt" if run.is_dir() else "does not exist"
        raise ConfigError(f"{run}: {what}; expected a run directory that tools/train.py made, or a checkpoint")
    return found


def _setting(config: RunConfig, file: Path, dataset: RGBTDataset, seed: int) -> dict[str, Any]:
    """Everything that a score of the file depends on."""
    plain = config.model_dump(mode="json")
    return {
        "checkpoint_sha256": file_sha256(file),
        "code": code_fingerprint(tuple(config.custom_imports)),
        "model": plain["model"],
        "eval": {key: value for key, value in plain["eval"].items() if key != "pictures"},
        "eval_size": plain["pipeline"]["eval_size"],
        "precision": plain["train"]["precision"],
        "ops": plain["ops"],
        "device": pick_device(config.device, 0, 1).type,
        "data": {key: value for key, value in plain["data"].items() if key not in KEPT_FROM_SETTING},
        "split": dataset.split,
        "content": dataset.content_state(),
        "seed": seed,
    }


def _require_same(subject: Subject, first: Subject) -> None:
    facts = [
        ("data set", [one.dataset.dataset_name for one in (subject, first)]),
        ("classes", [", ".join(one.dataset.classes) for one in (subject, first)]),
        ("scoring rule", [one.dataset.scoring_rules()[0].name for one in (subject, first)]),
        ("frames", [f"{len(o.dataset)} of hash {o.dataset.fingerprint()[:8]}" for o in (subject, first)]),
    ]
    for what, (own, its) in facts:
        if own != its:
            raise DataError(
                f"{subject.run}: {what}: {own}; {first.run}: {its}. Scores of different {what} do not stand side by "
                "side: measure the runs one by one, or name the same data for all with --opts data..."
            )


class Session:
    """A network that is loaded; it scores cells and predicts single frames."""

    def __init__(self, subject: Subject, model: nn.Module, world: World):
        self.subject, self.model, self.world = subject, model, world
        self._shown: dict[int, torch.Tensor] = {}

    def measure(self, task: Task, seed: int, progress: Callable[[int], None] | None = None) -> dict[str, Any]:
        """Scores a cell.

        Args:
            task: What to do to the split.
            seed: Of the corruption.
            progress: Called with the number of images that are done.

        Returns:
            What :meth:`mdg.engine.evaluation.scores.Evaluation.as_dict` has, and under ``found`` the shares of
            :func:`found_shares`.
        """
        config, dataset = self.subject.config, self.dataset(task, seed)
        protocol = make_protocol(config, dataset, self.subject.provenance)
        loader = make_eval_loader(config, dataset, self.world)
        evaluation = evaluate_model(self.model, loader, dataset, config, self.world, progress, shown=self._shown_clean)
        assert evaluation is not None, "nothing asks it to stop"
        return {**evaluation.as_dict(protocol), "found": found_shares(evaluation, dataset.background)}

    def dataset(self, task: Task, seed: int) -> RGBTDataset:
        """The split of a task."""
        clean = self.subject.dataset
        return clean if task.corruption is None else Corrupted(clean, task.corruption, task.severity, seed)

    @torch.inference_mode()
    def predict(self, dataset: RGBTDataset, index: int) -> np.ndarray:
        """Class ids ``[H, W]`` uint8 of a frame, as it is scored."""
        config = self.subject.config
        self.model.eval()
        inference = Inference(self.model, config.eval, make_autocast(config, self.world.device), self.world.device)
        batch = read_batch(dataset, index, config.pipeline.eval_size)
        size = batch.label_BHW.shape[-2:]
        return inference(batch.rgb_B3HW, batch.thermal_B1HW, size, batch.names)[0].cpu().numpy().astype(np.uint8)

    def _shown_clean(self, index: int) -> torch.Tensor:
        """Which modality shows an object is judged before the corruption: what it hides is what is asked for."""
        if index not in self._shown:
            batch = read_batch(self.subject.dataset, index, self.subject.config.pipeline.eval_size)
            self._shown[index] = shown_in(batch, 0, self.subject.dataset)
        return self._shown[index]


@contextmanager
def session(subject: Subject) -> Iterator[Session]:
    """Loads a network for the time of the block.

    Raises:
        UserError: It cannot be built, or its data cannot be read.
    """
    config = subject.config
    with distributed(config.device, config.threads) as world:
        apply_runtime(config)
        fill_cache(subject.dataset, config.data)
        model = load_model(load_checkpoint(subject.file), config, subject.dataset.classes, subject.file, world.device)
        yield Session(subject, model, world)


def found_shares(evaluation: Evaluation, background: int | None) -> dict[str, float]:
    """The share of the pixels of objects that got their class, in per cent, by what shows the objects.

    Empty where objects were not scored apart; kinds without a pixel are left out.
    """
    shares = {}
    for kind in SHOWN_IN:
        if kind in evaluation.groups:
            counts_KK = evaluation.groups[kind].counts
            rows = [k for k in range(len(counts_KK)) if k != background]
            labelled = int(counts_KK[rows].sum())
            if labelled:
                shares[kind] = 100 * int(counts_KK[rows, rows].sum()) / labelled
    return shares
