"""Evaluation: the protocol, the files, and the same integers whatever the number of processes."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import os
import stat
import sys

import cv2
import numpy as np
import pytest
import torch
from commands import REPOSITORY, shell
from rich.console import Console
from sklearn.metrics import confusion_matrix

from mdg.config import load_config
from mdg.data import build_dataset, read_batch
from mdg.data.base import day_or_night
from mdg.data.datasets.mfnet import MFNet
from mdg.engine import evaluate
from mdg.engine.checkpoint import config_inside, load_checkpoint, load_model, save_checkpoint
from mdg.engine.distributed import World
from mdg.engine.evaluation.evaluator import evaluate_model, make_eval_loader
from mdg.engine.evaluation.results import file_names
from mdg.engine.evaluation.scores import Tally, score_table
from mdg.errors import MachineError, NonFiniteError, UserError
from mdg.metrics import Protocol, ScoringRule
from mdg.metrics.scoring import all_classes
from mdg.metrics.visibility import SHOWN_IN, visibility
from mdg.models.segmentor import SegmentationOutput
from mdg.utils.logging import console


def test_scores_follow_from_an_independent_count(trained_run, tiny_yaml, tmp_path):
    """The matrix equals scikit-learn's over predictions made here, frame by frame at native size."""
    result = evaluate(trained_run.best, tiny_yaml, split="test", out_dir=tmp_path / "out")
    config = load_config(tiny_yaml)
    dataset = build_dataset(config.data, "test")
    model = load_model(
        load_checkpoint(trained_run.best), config, dataset.classes, trained_run.best, torch.device("cpu")
    ).eval()
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


def test_objects_are_scored_apart_by_what_shows_them(trained_run, tiny_yaml, tmp_path, capsys):
    """The matrix of a kind equals scikit-learn's over the pixels of its objects and of the background."""
    result = evaluate(trained_run.best, tiny_yaml, split="test", opts=["eval.objects=true"], out_dir=tmp_path / "out")
    config = load_config(tiny_yaml)
    dataset = build_dataset(config.data, "test")
    model = load_model(
        load_checkpoint(trained_run.best), config, dataset.classes, trained_run.best, torch.device("cpu")
    ).eval()
    counts = np.zeros((len(SHOWN_IN), 9, 9), int)
    for index in range(len(dataset)):
        frame, batch = dataset[index], read_batch(dataset, index, None)
        shown = visibility(frame.rgb_HW3, frame.thermal_HW, frame.label_HW).flatten()
        with torch.inference_mode():
            prediction = model(batch.rgb_B3HW, batch.thermal_B1HW).logits.argmax(1).flatten().numpy()
        for kind in range(len(SHOWN_IN)):
            counted = (shown == kind) | (frame.label_HW.flatten() == 0)
            labels = frame.label_HW.flatten()[counted]
            counts[kind] += confusion_matrix(labels, prediction[counted], labels=range(9))
    for kind, name in enumerate(SHOWN_IN):
        assert np.array_equal(result.evaluation.groups[name].counts, counts[kind])
    assert len({matrix[1:].sum() for matrix in counts}) > 1
    content = json.loads((tmp_path / "out" / "results.json").read_text())
    assert set(SHOWN_IN) < content["groups"].keys()
    assert all(f" {name} " in capsys.readouterr().out for name in SHOWN_IN[:1])


@pytest.mark.parametrize("size", [2, 3, 5])
def test_shares_of_several_processes_add_up(trained_run, tiny_yaml, size):
    config = load_config(tiny_yaml, ["eval.batch_size=2"])
    dataset = build_dataset(config.data, "test")
    model = load_model(
        load_checkpoint(trained_run.best), config, dataset.classes, trained_run.best, torch.device("cpu")
    )

    def count(world):
        return evaluate_model(
            model, make_eval_loader(config, dataset, world), dataset, config, World()
        ).confusion.counts

    parts = [count(World(rank=rank, size=size)) for rank in range(size)]
    assert np.array_equal(sum(parts), count(World()))


def test_results_carry_protocol_matrix_and_pictures(trained_run, tiny_yaml, tmp_path, capsys):
    json_file = tmp_path / "copy.json"
    result = evaluate(trained_run.best, tiny_yaml, split="test", json_file=json_file)
    folder = trained_run.path / "results" / "test"
    assert result.folder == folder
    content = json.loads((folder / "results.json").read_text())
    assert content == json.loads(json_file.read_text())
    protocol = content["protocol"]
    assert protocol["dataset"] == "Synthetic" and protocol["images"] == 5 and protocol["honest"]
    assert protocol["selection"] == "best mIoU on val" and protocol["epoch"] in (1, 2)
    assert protocol["trained_on"].startswith("train (7 frames, ")
    assert (protocol["mode"], protocol["test_time_augmentation"]) == ("whole image", "none")
    assert protocol["files_sha256"] == build_dataset(load_config(tiny_yaml).data, "test").fingerprint()
    assert np.sum(content["confusion_matrix"]) == 5 * 40 * 48
    assert [row["class"] for row in content["per_class"]][:2] == ["unlabeled", "car"]
    names = [f"{scene}.png" for scene in ("75000D", "75001N", "75002D", "75003N", "75004D")]
    assert sorted(path.name for path in (folder / "pictures").iterdir()) == [*names, "overview.png"]
    assert cv2.imread(str(folder / "pictures" / "overview.png")).std() > 10
    printed = capsys.readouterr().out
    assert "color_cone" in printed and "pixel accuracy" in printed and "best mIoU on val" in printed


def test_results_are_never_overwritten(trained_run, tiny_yaml):
    folders = [
        evaluate(trained_run.best, tiny_yaml, split="val", opts=["eval.pictures=0"]).folder.name for _ in range(2)
    ]
    assert folders == ["val", "val-2"]


def test_images_are_resized_and_labels_are_not(trained_run, tiny_yaml, tmp_path):
    result = evaluate(
        trained_run.best, tiny_yaml, opts=["pipeline.eval_size=[64, 64]", "eval.pictures=0"], out_dir=tmp_path / "out"
    )
    assert result.evaluation.confusion.counts.sum() == 5 * 40 * 48
    assert "64x64, logits resized to the label" in result.protocol.input_size


def test_the_moving_average_is_what_last_is_scored_with(tiny_run, tiny_yaml, tmp_path):
    run = tiny_run("run", "train.epochs=2", "train.ema_decay=0.5", "eval.selection=last")
    opts = ["train.ema_decay=0.5", "eval.pictures=0"]
    last, best = (evaluate(file, tiny_yaml, opts=opts, out_dir=tmp_path / file.stem) for file in (run.last, run.best))
    assert np.array_equal(last.evaluation.confusion.counts, best.evaluation.confusion.counts)
    assert last.protocol.weights == "ema 0.5"


def test_selecting_on_test_marks_every_file_and_table(tiny_run, tiny_yaml, tmp_path, capsys):
    run = tiny_run("run", "train.epochs=1", "eval.selection=test")
    capsys.readouterr()
    result = evaluate(run.best, tiny_yaml, opts=["eval.pictures=0"], out_dir=tmp_path / "out")
    text = "best mIoU SELECTED ON test (5 of 5 scored frames)"
    assert text in result.protocol.summary() and not result.protocol.honest
    assert capsys.readouterr().out.count(text) == 2  # above the table and below it
    assert json.loads((tmp_path / "out" / "results.json").read_text())["protocol"]["selection"] == text


def test_the_checkpoint_inside_knows_its_configuration(trained_run, tiny_yaml):
    state = load_checkpoint(trained_run.best)
    with pytest.raises(UserError, match="imports reliability.tiny.*must not decide what code runs"):
        config_inside(state, "best.pt", [])
    state["config"] = (
        state["config"].replace("- reliability.tiny", "[]").replace("custom_imports:\n[]", "custom_imports: []")
    )
    assert config_inside(state, "best.pt", ["train.epochs=9"]).train.epochs == 9


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["model.width=9"], r"4 tensors do not fit|tensors do not fit"),
        (["data.test_split=null"], "data.test_split is null"),
    ],
)
def test_what_does_not_fit_is_named(trained_run, tiny_yaml, opts, message):
    with pytest.raises(UserError, match=message):
        evaluate(trained_run.best, tiny_yaml, opts=opts)


def frames(opts, role: str = "test"):
    """The split that plays a role under the overrides."""
    return build_dataset({"type": "Synthetic", "height": 40, "width": 48, **opts}, role)


def test_frames_that_chose_or_trained_are_found_whatever_their_split_is_called(trained_run, tiny_yaml, tmp_path):

    def protocol(file, split):
        # What the options of the evaluation say about selection changes nothing: the checkpoint knows.
        opts = [f"data.test_split={split}", "data.val_split=null", "eval.selection=last", "eval.pictures=0"]
        return evaluate(file, tiny_yaml, opts=opts, out_dir=tmp_path / f"{file.stem}-{split}").protocol

    chosen, trained = protocol(trained_run.best, "val"), protocol(trained_run.best, "train")
    assert chosen.selection == "best mIoU SELECTED ON val (3 of 3 scored frames)" and not chosen.honest
    assert "TRAINED ON" not in chosen.trained_on
    assert trained.trained_on.endswith("TRAINED ON 7 of the 7 scored frames") and not trained.honest
    # `last.pt` was chosen by nothing, but it was trained.
    last = protocol(trained_run.last, "val")
    assert last.selection == "last epoch" and last.honest
    assert not protocol(trained_run.last, "train").honest


def test_results_explain_how_they_were_made(tiny_run, tiny_yaml, tmp_path):
    run = tiny_run("run", "train.epochs=1", "seed=11")
    opts = ["pipeline.eval_size=[32, 32]", "eval.pictures=0", "seed=5"]
    evaluate(run.best, tiny_yaml, opts=opts, out_dir=tmp_path / "out")
    content = json.loads((tmp_path / "out" / "results.json").read_text())
    assert content["seed"] == content["config"]["seed"] == 11  # of the run, not of the evaluation
    assert content["config"]["train"]["epochs"] == 1 and content["training_processes"] == 1
    assert content["evaluated_with"]["pipeline.eval_size.0"] == 32 and content["evaluated_with"]["seed"] == 5
    assert content["checkpoint_sha256"] == hashlib.sha256(run.best.read_bytes()).hexdigest()


class TwoRules(MFNet):
    """A, which ignores a class, and C; without files."""

    def __init__(self):
        self.split, self.names = "test", ["test/1D", "test/2N", "test/3D"]

    def scoring_rules(self):
        return ScoringRule("A", self.classes[1:], ("unlabeled",), 0.0), all_classes(self.classes, "C")

    def condition(self, index):
        return day_or_night(self.names[index])


def tally_of(dataset, frames_HW, world: World | None = None):
    tally = Tally(dataset)
    for index, (prediction, label) in frames_HW.items():
        tally.add(index, torch.as_tensor(prediction), torch.as_tensor(label))
    return tally.gather(world or World(), 0.0)


def random_frames(count: int, seed: int = 0) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return {index: (rng.integers(0, 4, (6, 7)), rng.integers(0, 3, (6, 7))) for index in range(count)}


def test_every_rule_is_reported_from_the_one_matrix():
    dataset = TwoRules()
    evaluation = tally_of(dataset, random_frames(3))
    primary, other = dataset.scoring_rules()
    content = evaluation.as_dict(Protocol(*[()] * 19))
    assert content["scores"] == content["rules"]["A"]["scores"] != content["rules"]["C"]["scores"]
    assert content["rules"]["A"]["ignored"] == ["unlabeled"] and content["rules"]["C"]["absent"] is None
    for rule in (primary, other):
        for group in (None, "day", "night"):
            matrix = evaluation.confusion if group is None else evaluation.groups[group]
            where = content if group is None else content["groups"][group]
            expected = 100 * rule.means(matrix, dataset.classes)["mIoU"]
            assert where["rules"][rule.name]["scores"]["mIoU"] == pytest.approx(expected)
    assert np.sum(content["confusion_matrix"]) == 3 * 42  # before any rule
    # Rows of classes are those of the primary rule: their mean is its mIoU.
    iou = [0 if np.isnan(row["iou"]) else row["iou"] for row in content["per_class"]]
    assert sum(iou[1:]) / 8 == pytest.approx(content["scores"]["mIoU"]) and iou[0] == 0


def test_the_table_has_a_row_per_rule_and_explains_them(capsys):
    evaluation = tally_of(TwoRules(), random_frames(3))
    protocol = dataclasses.replace(Protocol(*[""] * 19), selection="best mIoU SELECTED ON x")
    Console(width=200).print(score_table(evaluation, protocol))
    printed = capsys.readouterr().out
    rows = {line.split("│")[1].strip(): line.split("│")[2].strip() for line in printed.splitlines() if "│" in line}
    for rule in evaluation.rules:
        assert rows[rule.name] == f"{100 * evaluation.means(rule)['mIoU']:.2f}"
        assert f"{rule.name}: {rule.describe()}" in printed
    assert rows["bump"] == rows["unlabeled"] == "NaN"  # absent, ignored
    assert {"pixel accuracy (A)", "pixel accuracy (C)"} <= rows.keys()
    assert "SELECTED ON x" in printed.splitlines()[0]


def test_scores_of_single_images_come_together_from_all_processes():
    """Each of two processes counts its share; their sums are those of one process."""
    dataset, everything = TwoRules(), random_frames(3)
    shares = [{0: everything[0], 2: everything[2]}, {1: everything[1]}]
    sent: list[list[torch.Tensor]] = []

    class Sending(World):
        def sum(self, tensor):
            sent[-1].append(tensor.clone())
            return tensor

    class Receiving(World):
        def sum(self, tensor):
            return tensor + sent[1][next(turn)]

    for share in shares:
        sent.append([])
        tally_of(dataset, share, Sending())
    turn = iter(range(10))
    two, one = tally_of(dataset, shares[0], Receiving()), tally_of(dataset, everything)
    assert np.array_equal(two.confusion.counts, one.confusion.counts) and two.images == one.images == 3
    for field in ("iou_NK", "miou_N", "accuracy_N"):
        assert np.array_equal(getattr(two.per_image, field), getattr(one.per_image, field), equal_nan=True)


def test_scores_of_single_images_are_written_and_the_worst_are_shown(trained_run, tiny_yaml, tmp_path):
    result = evaluate(trained_run.best, tiny_yaml, opts=["eval.pictures=2"], out_dir=tmp_path / "out")
    with open(tmp_path / "out" / "images.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    dataset = frames({"test_images": 5})
    assert [row["name"] for row in rows] == dataset.names
    assert [row["condition"] for row in rows] == ["day", "night", "day", "night", "day"]
    pixels = sum(float(row["pixel accuracy"]) for row in rows) / 5  # all images have the same number
    assert pixels == pytest.approx(100 * result.evaluation.means()["pixel_accuracy"], abs=1e-3)
    for row in rows:
        iou = {name: float(row[name]) for name in dataset.classes if row[name] != "NaN"}
        assert float(row["mIoU"]) == pytest.approx(sum(iou.values()) / len(iou), abs=1e-3)
        assert float(row["worst IoU"]) == min(iou.values()) == iou[row["worst class"]]
    worst = sorted(rows, key=lambda row: float(row["mIoU"]))[:2]
    names = [f"{rank:02d}_{row['name']}.png" for rank, row in enumerate(worst, 1)]
    assert sorted(path.name for path in (tmp_path / "out" / "worst").iterdir()) == [*names, "overview.png"]


@pytest.mark.slow
def test_two_processes_write_the_same_scores_of_images(trained_run, tiny_yaml, tmp_path):
    evaluate(trained_run.best, tiny_yaml, opts=["eval.pictures=0"], out_dir=tmp_path / "one")
    command = ["bash", REPOSITORY / "tools" / "val_ddp.sh", "--config", tiny_yaml, "--checkpoint", trained_run.best]
    done = shell(*command, "--out", tmp_path / "two", "--opts", "eval.pictures=0", NPROC="2")
    assert done.returncode == 0, done.stderr
    one, two = ((tmp_path / name / "images.csv").read_bytes() for name in ("one", "two"))
    assert one == two and one.count(b"\n") == 6


def test_frames_in_folders_become_files():
    picture = np.zeros((2, 2, 3), np.uint8)
    assert [name for name, _ in file_names([("test/00001", picture), ("b", picture)])] == ["test_00001", "b"]


def test_unknown_split_and_missing_checkpoint(tiny_yaml, tmp_path):
    with pytest.raises(UserError, match="expected one of train, val, test"):
        evaluate(tmp_path / "x.pt", tiny_yaml, split="tests")
    with pytest.raises(UserError, match=r"x\.pt: no such file"):
        evaluate(tmp_path / "x.pt", tiny_yaml)
    with pytest.raises(UserError, match="no run with a checkpoint"):
        evaluate(opts=[f"exp_dir={tmp_path}"])


# --- what can go wrong around the scoring --------------------------------------------------------------------------


def test_file_names_are_short_and_each_its_own():
    picture = np.zeros((1, 1, 3), np.uint8)
    given = ["a/b", "a_b", "A_B", "overview", "n" * 300, "n" * 299, "名" * 100, "x\udcd6", "c\\d", ".."]
    names = [name for name, _ in file_names([(name, picture) for name in given])]
    assert names[0] == "a_b" and names[7:] == ["x\udcd6", "c_d", ".."]
    assert len({name.casefold() for name in names}) == len(given) and "overview" not in names
    assert all(len(os.fsencode(f"01_{name}.png")) < 255 and "/" not in name for name in names)


@pytest.mark.parametrize(
    ("places", "words"),
    [
        ({"out_dir": "file/below"}, "--out .*file/below: .*a part of the path is a file"),
        ({"out_dir": "/proc/x"}, "--out /proc/x: .*check the path"),
        ({"out_dir": "n" * 300}, "--out .*choose a shorter name"),
        ({"json_file": "file/below"}, "--json .*file/below: .*a part of the path is a file"),
        ({"json_file": "folder"}, "--json .*folder: .*a folder lies where a file is needed"),
        ({"json_file": "run/checkpoints/best.pt"}, "--json .*best.pt: this is the checkpoint"),
    ],
)
def test_places_that_cannot_be_written_are_known_before_the_scoring(trained_run, tiny_yaml, tmp_path, places, words):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    before = trained_run.best.read_bytes()
    with pytest.MonkeyPatch.context() as patch, pytest.raises(UserError, match=words):
        patch.setattr(sys.modules["mdg.engine.evaluation.evaluate"], "evaluate_model", None)  # never called
        evaluate(trained_run.best, tiny_yaml, **{key: tmp_path / value for key, value in places.items()})
    assert trained_run.best.read_bytes() == before and not (trained_run.path / "results").exists()


def test_a_full_device_ends_with_3_and_stays_a_device(trained_run, tiny_yaml, capsys):
    capsys.readouterr()
    with pytest.raises(MachineError, match="/dev/full: cannot be written") as caught:
        evaluate(trained_run.best, tiny_yaml, json_file="/dev/full", opts=["eval.pictures=0"])
    assert caught.value.exit_code == 3 and stat.S_ISCHR(os.stat("/dev/full").st_mode)
    assert "pixel accuracy" in capsys.readouterr().out  # the scores are not lost


def test_results_are_there_when_the_reader_of_the_output_has_gone(trained_run, tiny_yaml, tmp_path, monkeypatch):

    def gone(*args):
        raise BrokenPipeError

    monkeypatch.setattr(console, "print", gone)
    with pytest.raises(BrokenPipeError):
        evaluate(trained_run.best, tiny_yaml, out_dir=tmp_path / "out", json_file=tmp_path / "a.json")
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["confusion.png", "counts.csv", "images.csv", "pictures", "results.json", "worst"]
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "out" / "results.json").read_bytes()


def test_scores_are_kept_and_shown_where_pictures_fail(trained_run, tiny_yaml, tmp_path, monkeypatch, capsys):
    capsys.readouterr()

    def full(*args):
        raise MachineError("no room")

    monkeypatch.setattr("mdg.engine.evaluation.results.confusion_picture", full)
    with pytest.raises(MachineError, match="no room"):
        evaluate(trained_run.best, tiny_yaml, out_dir=tmp_path / "out")
    printed = capsys.readouterr().out
    assert "pixel accuracy" in printed and f"results: {tmp_path / 'out' / 'results.json'}" in printed
    assert json.loads((tmp_path / "out" / "results.json").read_text())["images"] == 5


def test_results_say_which_copy_of_the_data_was_scored(trained_run, tiny_yaml, tmp_path):
    evaluate(trained_run.best, tiny_yaml, opts=["eval.pictures=0"], out_dir=tmp_path / "out")
    content = json.loads((tmp_path / "out" / "results.json").read_text())
    assert content["data"] == build_dataset(load_config(tiny_yaml).data, "test").content_state()
    assert content["protocol"]["changes"] == "none"


def test_a_checkpoint_that_is_not_finite_is_never_scored(trained_run, tiny_yaml, tmp_path):
    state = load_checkpoint(trained_run.best)
    name = next(iter(state["model"]))
    state["model"][name][0] = float("nan")
    torch.save(state, tmp_path / "nan.pt")  # as versions wrote it that did not look
    with pytest.raises(NonFiniteError, match=rf"nan\.pt: {name} holds NaN"):
        evaluate(tmp_path / "nan.pt", tiny_yaml, json_file=tmp_path / "a.json")
    assert not (tmp_path / "a.json").exists()


def test_a_network_whose_logits_are_not_finite_is_never_scored(tiny_yaml):
    config = load_config(tiny_yaml)
    dataset = build_dataset(config.data, "test")

    class Overflow(torch.nn.Module):
        def forward(self, rgb, thermal):
            return SegmentationOutput(torch.full((len(rgb), 9, 4, 4), float("nan")))

    with pytest.raises(NonFiniteError, match=f"not finite for {dataset.names[0]}"):
        evaluate_model(Overflow(), make_eval_loader(config, dataset, World()), dataset, config, World())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"config": "seed: [1"}, "configuration inside .*not valid YAML"),
        ({"config": "- 1"}, "configuration inside .*expected a mapping"),
        ({"config": ""}, "configuration inside .*data: missing"),
        ({"config": "custom_imports: 3"}, "imports 3. A checkpoint must not decide"),
        ({"config": "train: 3\neval: x"}, "configuration inside .*train: got 3"),
        ({"config": "a: &a [*a]"}, "configuration inside .*"),
    ],
)
def test_a_configuration_inside_that_is_none_is_one_line(trained_run, tmp_path, changes, words):
    state = load_checkpoint(trained_run.best)
    save_checkpoint(tmp_path / "odd.pt", {key: value for key, value in {**state, **changes}.items() if key != "format"})
    with pytest.raises(UserError, match=words) as caught:
        evaluate(tmp_path / "odd.pt")
    assert len(str(caught.value)) < 2000


def test_provenance_needs_a_whole_configuration(trained_run, tiny_yaml, tmp_path):
    """The configuration of the evaluation may be another one, but the run's own says how the weights came to be."""
    state = load_checkpoint(trained_run.best)
    save_checkpoint(tmp_path / "odd.pt", {**state, "config": "seed: 1"})
    with pytest.raises(UserError, match=r"configuration inside .*odd\.pt: "):
        evaluate(tmp_path / "odd.pt", tiny_yaml)
