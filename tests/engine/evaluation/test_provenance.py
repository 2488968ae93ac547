"""Leaks: frames that trained or chose a checkpoint and are scored with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from mdg.data import build_dataset
from mdg.engine import train
from mdg.engine.checkpoint import load_checkpoint, save_checkpoint
from mdg.engine.evaluation.provenance import frame_set, joined, overlap, provenance
from mdg.errors import UserError

OPTIONS = {"type": "Synthetic", "train_images": 20, "val_images": 6, "test_images": 5}


def split(role: str, **options):
    return build_dataset({**OPTIONS, **options}, role)


def state(trained=None, selected=None, selection="val", ema=None, **extra):
    """A checkpoint without weights; older ones have no frame sets."""
    config = {"seed": 1, "train": {"ema_decay": ema}, "eval": {"selection": selection, "metric": "mIoU"}}
    known = {"trained_on": frame_set(trained), "selected_on": selected and frame_set(selected)} if trained else {}
    return {"config": yaml.safe_dump(config), "progress": {"epoch": 3}, **known, **extra}


def said(state, scored):
    return provenance(state, Path("best.pt"), scored)


def test_disjoint_splits_are_honest():
    result = said(state(split("train"), split("val")), split("test"))
    assert result.selection == "best mIoU on val" and result.epoch == 3 and result.weights == "raw"
    assert result.trained_on == f"train (20 frames, {split('train').fingerprint()[:8]})"


def test_another_name_for_the_same_frames_does_not_hide_them():
    scored = split("test", test_split="val", val_split=None)
    result = said(state(split("train"), split("val")), scored)
    assert result.selection == "best mIoU SELECTED ON val (6 of 6 scored frames)"
    assert "TRAINED ON" not in result.trained_on


def test_a_partial_overlap_is_counted():
    limited = split("train", limit=5)
    result = said(state(limited, split("val", limit=2)), split("test", test_split="train"))
    assert result.trained_on.endswith("TRAINED ON 5 of the 20 scored frames")
    result = said(state(limited, split("val", limit=2)), split("val"))
    assert result.selection == "best mIoU SELECTED ON val (2 of 6 scored frames)"


def test_a_hold_out_is_clean_and_is_named():
    held = {"val_split": None, "holdout": 0.25}
    checkpoint = state(split("train", **held), split("val", **held))
    result = said(checkpoint, split("test"))
    assert result.selection == "best mIoU on train, held-out 25 % (seed 0) as val"
    assert result.trained_on.startswith("train, without the held-out 25 % (seed 0) (15 frames, ")
    on_val = said(checkpoint, split("val", **held))
    assert "SELECTED ON" in on_val.selection and "(5 of 5 scored frames)" in on_val.selection
    assert "TRAINED ON" not in on_val.trained_on
    # Another hold-out seed takes other frames: some of them were trained on.
    leaked = said(checkpoint, split("val", **held, holdout_seed=1))
    assert "TRAINED ON" in leaked.trained_on


def test_equal_names_in_another_data_set_are_other_frames(monkeypatch):
    trained, chosen = split("train"), split("val")
    checkpoint = state(trained, chosen)
    scored = split("test", test_split="train")
    monkeypatch.setattr(type(scored), "dataset_name", "Other")
    assert overlap(checkpoint["trained_on"], scored) == (0, 20)
    result = said(checkpoint, scored)
    assert result.selection == "best mIoU on Synthetic val"
    assert result.trained_on.startswith("Synthetic train (20 frames") and "TRAINED ON" not in result.trained_on


def test_selecting_on_test_is_loud_even_where_other_frames_are_scored():
    result = said(state(split("train"), split("test"), "test"), split("val"))
    assert result.selection == "best mIoU SELECTED ON test (0 of 6 scored frames)"


def test_the_last_state_was_chosen_by_nothing():
    for checkpoint in (state(split("train"), split("val"), optimizer={}), state(split("train"), None, "last")):
        assert said(checkpoint, split("val")).selection == "last epoch"


def test_older_checkpoints_fall_back_to_the_roles():
    assert said(state(), split("test")).selection == "best mIoU on val"
    assert said(state(), split("val")).selection == "best mIoU SELECTED ON val"
    assert said(state(selection="test"), split("test")).selection == "best mIoU SELECTED ON test"
    assert said(state(), split("test")).trained_on.startswith("unknown")
    assert "TRAINED ON" not in said(state(), split("test")).trained_on
    assert "TRAINED ON" in said(state(), split("train")).trained_on


def test_the_moving_average_is_the_one_of_the_run():
    assert said(state(split("train"), ema=0.99), split("test")).weights == "ema 0.99"


def test_changes_on_resume_are_a_part_of_the_protocol():
    assert said(state(), split("test")).changes == "none"
    changes = ["step 120: optimizer.weight_decay 0.01 to 0.2", "step 300: seed 1 to 2"]
    assert said(state(changes=changes), split("test")).changes == "; ".join(changes)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("seed: 1", "train: missing"),
        ("{seed: x, train: {}, eval: {selection: val, metric: mIoU}}", "seed: got 'x'"),
        ("{seed: 1, train: {ema_decay: x}, eval: {selection: val, metric: mIoU}}", "train.ema_decay: got 'x'"),
        ("{seed: 1, train: {}, eval: {selection: 3, metric: mIoU}}", "eval.selection: got 3"),
        ("[1]", "expected a mapping"),
    ],
)
def test_a_configuration_that_is_none_is_named(config, words):
    with pytest.raises(UserError, match=rf"configuration inside best\.pt: {words}"):
        said({**state(), "config": config}, split("test"))


def test_names_that_are_not_utf8_can_be_joined():
    first = {**frame_set(split("train")), "identities": ["名\udcd6"]}
    both = joined(first, frame_set(split("val")))
    assert "名\udcd6" in both["identities"] and len(both["sha256"]) == 64


def test_a_resume_keeps_the_frames_of_before():
    first, second = frame_set(split("train", limit=5)), frame_set(split("test"))
    both = joined(first, second)
    assert set(both["identities"]) == {*first["identities"], *second["identities"]}
    assert both["split"] == "train, then test" and both["sha256"] not in (first["sha256"], second["sha256"])
    assert overlap(both, split("test")) == (5, 5)
    assert joined(first, first) == first and joined(None, second) == second and joined(first, None) is None


def test_what_was_once_chosen_on_test_stays_so():
    both = joined(frame_set(split("test")), frame_set(split("val")))
    assert both["role"] == "test" and both["split"] == "test, then val"


def test_a_resume_on_another_data_set_is_refused():
    with pytest.raises(UserError, match="started on MFNet, now data.type is Synthetic"):
        joined({**frame_set(split("val")), "dataset": "MFNet", "sha256": "x"}, frame_set(split("val")))


def test_checkpoints_name_their_frames_and_a_resume_adds_to_them(tiny_run, tiny_yaml):
    run = tiny_run("run", "train.epochs=2", "train.stop_epoch=1")
    for file in (run.best, run.last):
        content = load_checkpoint(file)
        assert content["trained_on"]["identities"] == [f"0/40x48/{k:05d}{'DN'[k % 2]}" for k in range(7)]
        assert content["selected_on"]["identities"] == ["0/40x48/50000D", "0/40x48/50001N", "0/40x48/50002D"]
        assert content["selected_on"]["role"] == "val" and content["world_size"] == 1
    train(tiny_yaml, ["train.epochs=2", "data.train_split=test"], resume=run.path, allow_changes=True)
    content = load_checkpoint(run.last)
    resumed = content["trained_on"]
    assert len(resumed["identities"]) == 12 and resumed["split"] == "train, then test"
    assert "data.train_split train to test" in provenance(content, run.last, split("test")).changes


def test_a_checkpoint_of_before_still_evaluates(tiny_run, tiny_yaml, tmp_path):
    from mdg.engine import evaluate

    run = tiny_run("run", "train.epochs=1", "eval.selection=last")
    content = load_checkpoint(run.best)
    assert content["selected_on"] is None
    for key in ("trained_on", "selected_on", "world_size"):
        del content[key]
    save_checkpoint(tmp_path / "old.pt", content)
    result = evaluate(tmp_path / "old.pt", tiny_yaml, opts=["eval.pictures=0"], json_file=tmp_path / "old.json")
    assert result.protocol.trained_on.startswith("unknown") and result.protocol.selection == "last epoch"
    assert json.loads((tmp_path / "old.json").read_text())["training_processes"] is None
