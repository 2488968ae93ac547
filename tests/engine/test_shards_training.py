"""Training and scoring over shards: a run that stops inside an epoch goes on exactly, and scores are those of the
original data set."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml

from mdg.config import load_config
from mdg.data.shards.make import Size, make_shards
from mdg.engine import train
from mdg.engine.checkpoint import load_checkpoint
from mdg.engine.evaluation.evaluate import evaluate
from mdg.errors import ConfigError


@pytest.fixture
def shards_yaml(tiny_yaml, tmp_path) -> Path:
    """The tiny configuration over shards of two frames, fetched into a cache for two of them."""
    made = make_shards(load_config(tiny_yaml).data, tmp_path / "shards", Size(2, None))
    largest = max(shard.bytes for split in made.content.splits.values() for shard in split.shards)
    content = yaml.safe_load(tiny_yaml.read_text())
    content["data"] = {
        "type": "Shards",
        "root": [str(tmp_path / "shards")],
        "cache": str(tmp_path / "cache"),
        "cache_gib": 2 * largest / 2**30,
        "shuffle_shards": 2,
    }
    file = tmp_path / "shards.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


def state_of(run) -> dict:
    state = load_checkpoint(run.last)
    return {key: state[key] for key in ("model", "optimizer", "progress")}


def test_a_run_that_stops_inside_an_epoch_goes_on_bit_for_bit(shards_yaml, tmp_path):
    """Elsewhere, too: where shards lie and what is kept of them may change."""
    straight = train(shards_yaml, run_dir=tmp_path / "straight")
    train(shards_yaml, ["train.max_steps=6"], run_dir=tmp_path / "stopped")
    (tmp_path / "shards").rename(tmp_path / "moved")
    moved = [f"data.root={tmp_path / 'moved'}", f"data.cache={tmp_path / 'other'}", "data.cache_gib=1"]
    stopped = train(shards_yaml, moved, resume=tmp_path / "stopped")
    one, two = state_of(straight), state_of(stopped)
    assert one["progress"] == two["progress"] and one["progress"]["step"] == 16
    for key, weight in one["model"].items():
        assert torch.equal(weight, two["model"][key]), key
    assert straight.metrics.read_text() == stopped.metrics.read_text()
    assert len(list((tmp_path / "cache").glob("*.tar"))) == 2


def test_another_window_is_another_run(shards_yaml, tmp_path):
    train(shards_yaml, ["train.max_steps=2"], run_dir=tmp_path / "run")
    with pytest.raises(ConfigError, match="data.shuffle_shards 2 to 3"):
        train(shards_yaml, ["data.shuffle_shards=3"], resume=tmp_path / "run")


def test_scores_are_those_of_the_original_data_set(shards_yaml, tiny_yaml, tmp_path):
    run = train(shards_yaml, ["train.max_steps=4"], run_dir=tmp_path / "run")
    results = []
    for name, config in (("scored", shards_yaml), ("original", tiny_yaml)):
        evaluate(run.last, config, json_file=tmp_path / f"{name}.json", out_dir=tmp_path / name)
        results.append(json.loads((tmp_path / f"{name}.json").read_text()))
    one, two = results
    assert one["protocol"] == two["protocol"] and one["protocol"]["dataset"] == "Synthetic"
    assert one["confusion_matrix"] == two["confusion_matrix"] and one["data"]["names"] == two["data"]["names"]
    for file in ("counts.csv", "images.csv"):
        assert (tmp_path / "scored" / file).read_bytes() == (tmp_path / "original" / file).read_bytes()
