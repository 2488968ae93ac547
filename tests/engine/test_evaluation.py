"""Evaluation: the protocol, the files, and the same integers whatever the number of processes."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix

from mdg.config import load_config
from mdg.data import build_dataset, read_batch
from mdg.engine import evaluate
from mdg.engine.checkpoint import load_checkpoint
from mdg.engine.distributed import World
from mdg.engine.evaluate import config_inside, load_model
from mdg.engine.evaluator import evaluate_model, make_eval_loader
from mdg.errors import UserError
from mdg.metrics.protocol import selection_rule


def one_trained_run(tiny_run):
    return tiny_run("run", "train.epochs=2")


def test_scores_follow_from_an_independent_count(tiny_run, tiny_yaml, tmp_path):
    """The matrix equals scikit-learn's over predictions made here, frame by frame at native size."""
    run = one_trained_run(tiny_run)
    result = evaluate(run.best, tiny_yaml, split="test", out_dir=tmp_path / "out")
    config = load_config(tiny_yaml)
    dataset = build_dataset(config.data, "test")
    model = load_model(load_checkpoint(run.best), config, dataset.classes, run.best, torch.device("cpu")).eval()
    counts = {"all": 0, "day": 0, "night": 0}
    for index in range(len(dataset)):
        batch = read_batch(dataset, index, None)
        with torch.inference_mode():
            prediction = model(batch.rgb_B3HW, batch.thermal_B1HW).logits.argmax(1)
        matrix = confusion_matrix(batch.label_BHW.flatten(), prediction.flatten(), labels=range(9))
        counts["all"] = counts["all"] + matrix
        counts[dataset.condition(index)] = counts[dataset.condition(index)] + matrix
    assert np.array_equal(result.evaluation.confusion.counts, counts["all"])
    for group in ("day", "night"):
        assert np.array_equal(result.evaluation.groups[group].counts, counts[group])
    assert result.evaluation.images == 5 and counts["all"].sum() == 5 * 40 * 48


@pytest.mark.parametrize("size", [2, 3, 5])
def test_shares_of_several_processes_add_up(tiny_run, tiny_yaml, size):
    run = one_trained_run(tiny_run)
    config = load_config(tiny_yaml, ["eval.batch_size=2"])
    dataset = build_dataset(config.data, "test")
    model = load_model(load_checkpoint(run.best), config, dataset.classes, run.best, torch.device("cpu"))

    def count(world):
        return evaluate_model(
            model, make_eval_loader(config, dataset, world), dataset, config, World()
        ).confusion.counts

    parts = [count(World(rank=rank, size=size)) for rank in range(size)]
    assert np.array_equal(sum(parts), count(World()))


def test_results_carry_protocol_matrix_and_pictures(tiny_run, tiny_yaml, tmp_path, capsys):
    run = one_trained_run(tiny_run)
    json_file = tmp_path / "copy.json"
    result = evaluate(run.best, tiny_yaml, split="test", json_file=json_file)
    folder = run.path / "results" / "test"
    assert result.folder == folder
    content = json.loads((folder / "results.json").read_text())
    assert content == json.loads(json_file.read_text())
    protocol = content["protocol"]
    assert protocol["dataset"] == "Synthetic" and protocol["images"] == 5 and protocol["honest"]
    assert protocol["selection"].startswith("best mIoU on val (epoch ")
    assert protocol["files_sha256"] == build_dataset(load_config(tiny_yaml).data, "test").fingerprint()
    assert np.sum(content["confusion_matrix"]) == 5 * 40 * 48
    assert [row["class"] for row in content["per_class"]][:2] == ["unlabeled", "car"]
    pictures = sorted(path.name for path in (folder / "pictures").iterdir())
    assert "overview.png" in pictures and len(pictures) == 6
    assert cv2.imread(str(folder / "pictures" / "overview.png")).std() > 10
    printed = capsys.readouterr().out
    assert "color_cone" in printed and "pixel accuracy" in printed and "best mIoU on val" in printed


def test_results_are_never_overwritten(tiny_run, tiny_yaml):
    run = one_trained_run(tiny_run)
    folders = [evaluate(run.best, tiny_yaml, split="val", opts=["eval.pictures=0"]).folder.name for _ in range(2)]
    assert folders == ["val", "val-2"]


def test_images_are_resized_and_labels_are_not(tiny_run, tiny_yaml, tmp_path):
    run = one_trained_run(tiny_run)
    result = evaluate(
        run.best, tiny_yaml, opts=["pipeline.eval_size=[64, 64]", "eval.pictures=0"], out_dir=tmp_path / "out"
    )
    assert result.evaluation.confusion.counts.sum() == 5 * 40 * 48
    assert "64x64, logits resized to the label" in result.protocol.input_size


def test_the_moving_average_is_what_last_is_scored_with(tiny_run, tiny_yaml, tmp_path):
    run = tiny_run("run", "train.epochs=2", "train.ema_decay=0.5", "eval.selection=last")
    opts = ["train.ema_decay=0.5", "eval.pictures=0"]
    last, best = (evaluate(file, tiny_yaml, opts=opts, out_dir=tmp_path / file.stem) for file in (run.last, run.best))
    assert np.array_equal(last.evaluation.confusion.counts, best.evaluation.confusion.counts)
    assert last.protocol.weights == "ema 0.5"


def test_selection_on_the_scored_split_is_shouted():
    assert selection_rule("val", "mIoU", "test", 7) == "best mIoU on val (epoch 7)"
    assert selection_rule("last", "mIoU", "test", 7) == "last epoch (7)"
    for selection, scored in (("test", "test"), ("test", "val"), ("train", "test"), ("val", "val")):
        assert f"SELECTED ON {selection}" in selection_rule(selection, "mIoU", scored, 7)


def test_selecting_on_test_marks_the_results(tiny_run, tiny_yaml, tmp_path):
    run = tiny_run("run", "train.epochs=1", "eval.selection=test")
    result = evaluate(run.best, tiny_yaml, opts=["eval.pictures=0"], out_dir=tmp_path / "out")
    assert "SELECTED ON test" in result.protocol.summary() and not result.protocol.honest


def test_the_checkpoint_inside_knows_its_configuration(tiny_run, tiny_yaml):
    state = load_checkpoint(one_trained_run(tiny_run).best)
    with pytest.raises(UserError, match="imports tiny_segmentor.*must not decide what code runs"):
        config_inside(state, "best.pt", [])
    state["config"] = (
        state["config"].replace("- tiny_segmentor", "[]").replace("custom_imports:\n[]", "custom_imports: []")
    )
    assert config_inside(state, "best.pt", ["train.epochs=9"]).train.epochs == 9


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["model.width=9"], r"4 tensors do not fit|tensors do not fit"),
        (["data.test_split=null"], "data.test_split is null"),
    ],
)
def test_what_does_not_fit_is_named(tiny_run, tiny_yaml, opts, message):
    run = one_trained_run(tiny_run)
    with pytest.raises(UserError, match=message):
        evaluate(run.best, tiny_yaml, opts=opts)


def test_unknown_split_and_missing_checkpoint(tiny_yaml, tmp_path):
    with pytest.raises(UserError, match="expected one of train, val, test"):
        evaluate(tmp_path / "x.pt", tiny_yaml, split="tests")
    with pytest.raises(UserError, match=r"x\.pt: no such file"):
        evaluate(tmp_path / "x.pt", tiny_yaml)
    with pytest.raises(UserError, match="no run with a checkpoint"):
        evaluate(opts=[f"exp_dir={tmp_path}"])
