"""Where curves and pictures of a run go besides its own files: TensorBoard, Weights & Biases, MLflow.

Trackers are a convenience: whatever becomes of one, it says so once, and the run goes on.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mdg.config.load import flatten

logger = logging.getLogger("mdg.train")
PROJECT = "mdg"
MOST_PARAMETERS = 100  # that MLflow takes at once
LONGEST_PARAMETER = 500  # characters


class Tracker:
    """Writes scalars and pictures until that fails; then it says so once and is silent.

    Where the package is absent or broken, the first failure is that of the import.

    Args:
        folder: The run directory; local files go into it.
        name: Of the run.
        config: The resolved configuration, as plain values.
    """

    title: ClassVar[str]
    advice: ClassVar[str]

    def __init__(self, folder: Path, name: str = "", config: Mapping[str, Any] | None = None):
        self.folder, self.name, self.config = folder, name, dict(config or {})
        self._writer: Any = None

    @property
    def works(self) -> bool:
        """Whether anything is still written."""
        return self._writer is not None

    def open(self) -> None:
        """Begins to write."""
        self._try(self._start)

    def close(self) -> None:
        """Writes the rest and ends."""
        if self.works:
            self._try(self._finish)
        self._writer = None

    def scalar(self, name: str, value: float, step: int) -> None:
        """One point of a curve."""
        if self.works:
            self._try(self._scalar, name, value, step)

    def picture(self, name: str, picture_HW3: np.ndarray, step: int) -> None:
        """One RGB picture, uint8."""
        if self.works:
            self._try(self._picture, name, picture_HW3, step)

    def _start(self) -> None:
        raise NotImplementedError

    def _finish(self) -> None:
        raise NotImplementedError

    def _scalar(self, name: str, value: float, step: int) -> None:
        raise NotImplementedError

    def _picture(self, name: str, picture_HW3: np.ndarray, step: int) -> None:
        raise NotImplementedError

    def _try(self, action: Callable[..., Any], *arguments: Any) -> None:
        try:
            action(*arguments)
        except Exception as error:  # an absent package, one that does not fit Python, a full disk, a lost server
            self._writer = None
            reason = next(iter(str(error).strip().splitlines()), "")
            logger.warning(
                "%s gets nothing more (%s: %s); the run goes on without it. %s, or leave it out of log.trackers",
                self.title,
                type(error).__name__,
                reason,
                self.advice,
            )

    @property
    def identity(self) -> str:
        """The same for every process that works in this run directory."""
        return hashlib.sha256(str(self.folder.resolve()).encode("utf-8", "surrogateescape")).hexdigest()[:16]


class TensorBoard(Tracker):
    """Files for TensorBoard in ``tensorboard/`` of the run."""

    title, advice = "TensorBoard", "Install tensorboard or make room"

    def open(self) -> None:
        self._hook = threading.excepthook
        threading.excepthook = self._unless_of_tensorboard
        super().open()

    def close(self) -> None:
        super().close()
        threading.excepthook = self._hook

    def _start(self) -> None:
        from torch.utils.tensorboard import SummaryWriter  # slow to import; evaluation does not need it

        self._writer = SummaryWriter(str(self.folder / "tensorboard"))

    def _finish(self) -> None:
        self._writer.close()

    def _scalar(self, name: str, value: float, step: int) -> None:
        self._writer.add_scalar(name, value, step)

    def _picture(self, name: str, picture_HW3: np.ndarray, step: int) -> None:
        self._writer.add_image(name, picture_HW3, step, dataformats="HWC")

    def _unless_of_tensorboard(self, failure: threading.ExceptHookArgs) -> None:
        # Its thread writes the files. What it fails with is raised again at the next call, which is soon enough.
        if not type(failure.thread).__module__.startswith("tensorboard."):
            self._hook(failure)


class WeightsAndBiases(Tracker):
    """Weights & Biases: online where a key is known or ``WANDB_MODE`` says so, else files in ``wandb/`` of the run,
    which ``wandb sync`` sends later. A resumed run goes on in the same one."""

    title, advice = "Weights & Biases", "Install wandb (pip install wandb), log in or set WANDB_MODE=offline"

    def _start(self) -> None:
        import wandb

        known = os.environ.get("WANDB_API_KEY") or wandb.api.api_key
        mode = os.environ.get("WANDB_MODE") or ("online" if known else "offline")
        self._writer = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=self.name or None,
            id=self.identity,
            resume="allow" if mode == "online" else None,
            dir=str(self.folder),
            config=self.config,
            mode=mode,
            settings=wandb.Settings(silent=True, console="off"),
        )

    def _finish(self) -> None:
        self._writer.finish()

    def _scalar(self, name: str, value: float, step: int) -> None:
        self._writer.log({name: value}, step=step)

    def _picture(self, name: str, picture_HW3: np.ndarray, step: int) -> None:
        import wandb

        self._writer.log({name: wandb.Image(picture_HW3)}, step=step)


class MLflow(Tracker):
    """MLflow: the server that ``MLFLOW_TRACKING_URI`` names, else files in ``mlflow/`` of the run. A resumed run goes
    on in the same one."""

    title, advice = "MLflow", "Install mlflow (pip install mlflow) or reach its server"

    def _start(self) -> None:
        from mlflow import MlflowClient

        uri = os.environ.get("MLFLOW_TRACKING_URI")
        if not uri:
            uri = (self.folder / "mlflow").resolve().as_uri()
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # version 3 wants to be told that it is meant
        client = MlflowClient(tracking_uri=uri)
        experiment = client.get_experiment_by_name(PROJECT)
        number = experiment.experiment_id if experiment is not None else client.create_experiment(PROJECT)
        earlier = client.search_runs([number], f"tags.mdg_run = '{self.identity}'", max_results=1)
        if earlier:
            self._run = earlier[0].info.run_id
            client.update_run(self._run, status="RUNNING")
        else:
            tags = {"mdg_run": self.identity}
            self._run = client.create_run(number, run_name=self.name or None, tags=tags).info.run_id
            self._log_parameters(client)
        self._writer = client

    def _log_parameters(self, client: Any) -> None:
        from mlflow.entities import Param

        texts = {key: str(value)[:LONGEST_PARAMETER] for key, value in flatten(self.config).items()}
        parameters = [Param(key, text) for key, text in texts.items()]
        for first in range(0, len(parameters), MOST_PARAMETERS):
            client.log_batch(self._run, params=parameters[first : first + MOST_PARAMETERS])

    def _finish(self) -> None:
        self._writer.set_terminated(self._run)

    def _scalar(self, name: str, value: float, step: int) -> None:
        self._writer.log_metric(self._run, name, value, step=step)

    def _picture(self, name: str, picture_HW3: np.ndarray, step: int) -> None:
        self._writer.log_image(self._run, picture_HW3, f"{name}-{step:07d}.png")


TRACKERS: dict[str, type[Tracker]] = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases, "mlflow": MLflow}


class Trackers:
    """All trackers of a run together.

    Args:
        names: Keys of :data:`TRACKERS`.
        folder, name, config: As of :class:`Tracker`.
    """

    def __init__(self, names: Sequence[str], folder: Path, name: str = "", config: Mapping[str, Any] | None = None):
        self.trackers = [TRACKERS[key](folder, name, config) for key in dict.fromkeys(names)]

    @property
    def works(self) -> bool:
        """Whether anything is still written."""
        return any(tracker.works for tracker in self.trackers)

    def open(self) -> None:
        """Begins to write."""
        for tracker in self.trackers:
            tracker.open()

    def close(self) -> None:
        """Writes the rest and ends."""
        for tracker in reversed(self.trackers):
            tracker.close()

    def scalar(self, name: str, value: float, step: int) -> None:
        """One point of a curve."""
        for tracker in self.trackers:
            tracker.scalar(name, value, step)

    def picture(self, name: str, picture_HW3: np.ndarray, step: int) -> None:
        """One RGB picture, uint8."""
        for tracker in self.trackers:
            tracker.picture(name, picture_HW3, step)
