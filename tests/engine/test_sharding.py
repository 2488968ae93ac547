"""Weights split over processes: the run is that of whole copies, and what it leaves is whole."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from commands import REPOSITORY, shell

from mdg.config import load_config
from mdg.engine import evaluate, train
from mdg.engine.distributed import World
from mdg.engine.sharding import is_sharded, split_like, whole
from mdg.engine.weights import Weights
from mdg.errors import ConfigError
from mdg.models import build_model
from mdg.registry import METHODS


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Where the runs of two processes lie, and what they say."""
    folder = tmp_path_factory.mktemp("sharded")
    yaml = folder / "tiny.yaml"
    yaml.write_text(TINY_YAML)
    launch = [sys.executable, "-m", "mdg.launch", "--nproc-per-node", "2"]
    done = shell(*launch, REPOSITORY / "tests" / "support" / "sharded.py", yaml, folder)
    assert done.returncode == 0, done.stderr
    return folder, json.loads(next(line for line in done.stdout.splitlines() if line.startswith('{"split"')))


TINY_YAML = """
custom_imports: [reliability.tiny]
data: {type: Synthetic, height: 40, width: 48, train_images: 7, val_images: 3, test_images: 3, cache: ram}
pipeline: {train: [{type: HorizontalFlip, p: 0.5}], workers: 0}
model: {type: TinySegmentor, width: 12}
optimizer: {type: AdamW, lr: 1e-2}
train: {epochs: 3, batch_size: 2}
log: {trackers: []}
device: cpu
threads: 1
"""


def test_each_process_holds_its_part(runs):
    _, said = runs
    assert said["split"] == [False, True]
    assert sum(said["numbers"]) == said["all"] and max(said["numbers"]) < 0.6 * said["all"]


def test_it_is_the_run_of_whole_copies(runs):
    """Of gradients only their norm is summed in another order."""
    _, said = runs
    assert said["sgd"] < 1e-6 and said["adamw"] < 1e-5
    assert said["scores"][0] == pytest.approx(said["scores"][1], abs=1e-4)


def test_two_processes_train_and_count_the_same_integers(runs):
    """What both counted together, one process counts alone, from the file that they saved."""
    folder, said = runs
    opts = ["train.ema_decay=0.9", "eval.pictures=0"]
    result = evaluate(folder / "ddp" / "checkpoints" / "last.pt", folder / "tiny.yaml", opts=opts, split="val")
    assert result.evaluation.confusion.counts.tolist() == said["counts"] and result.evaluation.images == 3


def test_a_run_that_was_stopped_ends_as_one_that_was_not(runs):
    _, said = runs
    assert said["stopped_at"] == 3 and said["resumed"] == 0.0


def test_what_is_not_finite_is_found_though_processes_find_different_things(runs):
    _, said = runs
    assert "were skipped" in said["told"] and ", process " in said["told"]
    assert "nothing when the step was done again" not in said["told"]


def test_its_checkpoints_are_those_of_any_run(runs):
    folder, said = runs
    yaml = folder / "tiny.yaml"
    opts = [f"train.{key}" for key in ("clip_grad_norm=0.5", "ema_decay=0.9", "channels_last=false")]
    evaluation = evaluate(folder / "fsdp2" / "checkpoints" / "best.pt", yaml, opts=opts, split="val")
    assert evaluation.evaluation.means()["mIoU"] == pytest.approx(said["scores"][1], abs=1e-6)
    opts += ["optimizer={type: SGD, lr: 0.05}", "train.epochs=4"]
    train(yaml, opts, resume=folder / "fsdp2", allow_changes=True)  # by one process
    state = torch.load(folder / "fsdp2" / "checkpoints" / "last.pt", weights_only=True)
    assert state["progress"]["epoch"] == 4 and "processes 2 to 1" in str(state["changes"])


def test_one_process_splits_nothing(tiny_yaml):
    config = load_config(tiny_yaml, ["train.parallel=fsdp2", "train.ema_decay=0.9"])
    method = METHODS.create(config.train.method, config=config, num_classes=4)
    weights = Weights(build_model(config.model, 4), method, World())
    assert not weights.sharded and not is_sharded(weights.model)
    assert weights.connect() is weights.model and weights.scored() is weights.average.module
    tensor = torch.ones(3)
    assert split_like(tensor, torch.zeros(3)) is tensor and whole({"a": [tensor]})["a"][0] is tensor


@pytest.mark.parametrize("opts", [["train.compile=true"], ["train.precision=fp16"]])
def test_what_it_does_not_go_with_is_refused(opts, tiny_yaml):
    with pytest.raises(ConfigError, match="train.*fsdp2 goes with fp32 and bf16"):
        load_config(tiny_yaml, ["train.parallel=fsdp2", *opts])
