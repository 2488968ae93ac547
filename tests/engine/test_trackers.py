"""Weights & Biases and MLflow by stand-ins, and by themselves where they are installed; a run with each of them."""

from __future__ import annotations

import logging
import sys
import types

import numpy as np
import pytest

from mdg.config import load_config
from mdg.engine.trackers import MLflow, Trackers, WeightsAndBiases
from mdg.errors import ConfigError

CONFIG = {"seed": 1, "train": {"batch_size": 2, "groups": [1, 2]}, "long": "x" * 9000}
PICTURE = np.zeros((4, 6, 3), np.uint8)


def warnings(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.fixture
def wandb(monkeypatch):
    """What the tracker calls of wandb, with everything it was told."""
    told = types.SimpleNamespace(inits=[], logs=[], finished=0)

    class Run:
        def log(self, values, step):
            told.logs.append((step, values))

        def finish(self):
            told.finished += 1

    module = types.ModuleType("wandb")
    module.api = types.SimpleNamespace(api_key=None)
    module.Settings = lambda **options: options
    module.Image = lambda picture: ("picture", picture.shape)

    def init(**options):
        told.inits.append(options)
        return Run()

    module.init, module.told = init, told
    monkeypatch.setitem(sys.modules, "wandb", module)
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    return module


def write(tracker) -> None:
    tracker.open()
    tracker.scalar("train/loss", 0.5, 20)
    tracker.picture("frames", PICTURE, 20)
    tracker.close()


def test_wandb_gets_curves_pictures_and_the_configuration(wandb, tmp_path):
    write(WeightsAndBiases(tmp_path, "mine", CONFIG))
    (options,) = wandb.told.inits
    assert options["name"] == "mine" and options["config"] == CONFIG and options["project"] == "mdg"
    assert options["mode"] == "offline" and options["dir"] == str(tmp_path) and options["resume"] is None
    assert wandb.told.logs == [(20, {"train/loss": 0.5}), (20, {"frames": ("picture", (4, 6, 3))})]
    assert wandb.told.finished == 1


def test_wandb_goes_online_where_a_key_is_known_and_resumes(wandb, tmp_path, monkeypatch):
    wandb.api.api_key = "key"
    for _ in range(2):
        write(WeightsAndBiases(tmp_path))
    write(WeightsAndBiases(tmp_path / "other"))
    first, again, other = wandb.told.inits
    assert first["mode"] == "online" and first["resume"] == "allow"
    assert first["id"] == again["id"] != other["id"]
    monkeypatch.setenv("WANDB_MODE", "offline")
    write(WeightsAndBiases(tmp_path))
    assert wandb.told.inits[-1]["mode"] == "offline"


def test_a_server_that_is_lost(wandb, tmp_path, caplog):
    tracker = WeightsAndBiases(tmp_path)
    tracker.open()
    tracker._writer.log = lambda *_, **__: (_ for _ in ()).throw(OSError("connection lost"))
    for step in range(3):
        tracker.scalar("loss", 1.0, step)
    tracker.close()
    (message,) = warnings(caplog)
    assert "Weights & Biases gets nothing more (OSError: connection lost); the run goes on" in message
    assert wandb.told.finished == 0


@pytest.mark.parametrize(("name", "package"), [("wandb", "wandb"), ("mlflow", "mlflow")])
def test_absent_packages(tmp_path, monkeypatch, caplog, name, package):
    monkeypatch.setitem(sys.modules, package, None)
    trackers = Trackers([name, name], tmp_path)
    write(trackers)
    (message,) = warnings(caplog)
    assert f"pip install {package}" in message and "log.trackers" in message and not trackers.works


def test_a_run_tells_its_trackers(wandb, tiny_run):
    run = tiny_run("run", "train.epochs=1", "log.trackers=[wandb, tensorboard]", "log.every_steps=2")
    assert list((run.path / "tensorboard").glob("events.*"))
    names = {name for _, values in wandb.told.logs for name in values}
    assert {"train/loss", "train/lr", "val/mIoU", "frames"} <= names
    steps = [step for step, _ in wandb.told.logs]
    assert steps == sorted(steps) and wandb.told.inits[0]["config"]["train"]["epochs"] == 1


def test_the_earlier_key(tmp_path):
    """`log.tensorboard`, as files and checkpoints of older versions have it."""
    assert load_config("configs/demo.yaml").log.trackers == ["tensorboard"]
    assert load_config("configs/demo.yaml", ["log.tensorboard=false"]).log.trackers == []
    assert load_config("configs/demo.yaml", ["log.trackers=[]", "log.tensorboard=true"]).log.trackers == ["tensorboard"]
    for value, expected in (("true", ["tensorboard"]), ("false", [])):
        (tmp_path / "old.yaml").write_text(f"data: {{type: Synthetic}}\nlog: {{tensorboard: {value}}}\n")
        assert load_config(tmp_path / "old.yaml").log.trackers == expected
    with pytest.raises(ConfigError, match="log.trackers: got 3"):
        load_config("configs/demo.yaml", ["log.tensorboard=3"])


def test_mlflow_in_a_local_folder(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="mlflow is an extra")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for value in (0.5, 0.25):  # the second goes on in the same run
        tracker = MLflow(tmp_path, "mine", CONFIG)
        tracker.open()
        assert tracker.works
        tracker.scalar("train/loss", value, 20 if value == 0.5 else 40)
        tracker.picture("frames", PICTURE, 20)
        tracker.close()
    client = mlflow.MlflowClient(tracking_uri=(tmp_path / "mlflow").resolve().as_uri())
    experiment = client.get_experiment_by_name("mdg")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.params["train.batch_size"] == "2" and len(run.data.params["long"]) == 500
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert [(point.step, point.value) for point in history] == [(20, 0.5), (40, 0.25)]
    assert run.info.status == "FINISHED" and client.list_artifacts(run.info.run_id)


def test_wandb_itself_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="wandb is an extra")
    monkeypatch.setenv("WANDB_MODE", "offline")
    tracker = WeightsAndBiases(tmp_path, "mine", CONFIG)
    tracker.open()
    assert tracker.works
    tracker.scalar("train/loss", 0.5, 20)
    tracker.picture("frames", PICTURE, 20)
    tracker.close()
    assert list((tmp_path / "wandb").glob("offline-run-*/run-*.wandb"))
