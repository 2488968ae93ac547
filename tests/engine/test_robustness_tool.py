"""The tool that measures runs under corruption: its scores, going on, tables, page and mistakes.

Legend: H W size of a label, K classes.
"""

from __future__ import annotations

import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from pages import parse

from mdg.commands import robustness as command
from mdg.data import build_dataset
from mdg.data.corruptions import CORRUPTIONS, Corrupted, every_corruption
from mdg.engine import evaluate, train
from mdg.engine.evaluation.result_files import read_result
from mdg.engine.predictor import Predictor
from mdg.engine.robustness import measure
from mdg.engine.robustness.cells import Task
from mdg.engine.robustness.measure import open_subjects, session
from mdg.engine.robustness.pictures import index_of, richest
from mdg.engine.robustness.results import miou, miou_in
from mdg.engine.robustness.robustness import robustness
from mdg.errors import ConfigError, DataError, UserError, WeightsError
from mdg.metrics import ConfusionMatrix
from mdg.metrics.visibility import SHOWN_IN
from mdg.utils.files import plain

FEW = {"corruptions": ["Fog", "MissingBlack", "Frozen"], "severities": [1, 5]}
CELLS = 1 + 5 * 2


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two runs of the tiny network and their configuration; ``results.json`` beside it is of the first on test."""
    from tests.engine.conftest import TINY

    folder = tmp_path_factory.mktemp("robust")
    file = folder / "tiny.yaml"
    file.write_text(yaml.safe_dump({**TINY, "name": "one & 'two'", "exp_dir": str(folder / "exp")}))
    runs = [train(file, [f"seed={seed}", "train.epochs=6"], run_dir=folder / f"run{seed}").path for seed in (1, 2)]
    checkpoint = shutil.copyfile(runs[0] / "checkpoints" / "best.pt", folder / "of no run.pt")
    evaluate(checkpoint, file, opts=["eval.objects=true"], json_file=folder / "results.json")
    return runs, file


@pytest.fixture(scope="module")
def whole(trained, tmp_path_factory):
    """Both runs under every corruption at one severity, objects apart, and the folder of it."""
    runs, file = trained
    out = tmp_path_factory.mktemp("whole")
    opts = ["eval.objects=true"]
    return robustness(runs, severities=[3], reference=runs[1], config=file, out=out, opts=opts), out


def measured(trained, out: Path, *runs: Path, **options):
    """The few corruptions of the first run, or of those named."""
    return robustness(runs or trained[0][:1], config=trained[1], out=out, **{**FEW, **options})


def cells_in(out: Path) -> dict[str, bytes]:
    return {file.relative_to(out).as_posix(): file.read_bytes() for file in sorted(out.glob("cells/*/*.json"))}


@pytest.fixture
def counted(monkeypatch):
    """The data sets that are scored."""
    scored = []
    original = measure.evaluate_model

    def evaluate_model(model, loader, dataset, *rest, **options):
        scored.append(dataset.preparation())
        return original(model, loader, dataset, *rest, **options)

    monkeypatch.setattr(measure, "evaluate_model", evaluate_model)
    return scored


# Scores


def test_severity_zero_is_the_clean_score_and_that_is_the_score_of_val_mm(trained, whole, tmp_path):
    runs, file = trained
    (subject,) = open_subjects(runs[:1], file, ["eval.objects=true"], "test", 0, tmp_path)
    result = read_result(file.with_name("results.json")).content
    keys = ("scores", "rules", "per_class", "groups", "confusion_matrix")
    with session(subject) as loaded:
        for task in [Task(None, 0), *[Task(one, 0) for one in every_corruption()[::5]]]:
            cell = json.loads(json.dumps(plain(loaded.measure(task, 0))))
            assert {key: cell[key] for key in keys} == {key: result[key] for key in keys}, task.title
    assert miou(whole[0].runs[0].clean) == result["scores"]["mIoU"]


def test_a_cell_is_what_the_network_says_of_the_corrupted_frames(trained, whole):
    """Counted again frame by frame, in all and by day and by night."""
    runs, file = trained
    predictor = Predictor(runs[0] / "checkpoints" / "best.pt", file)
    clean = build_dataset(predictor.config.data, "test")
    dataset = Corrupted(clean, CORRUPTIONS["MissingBlack"]("thermal"), 3, 0)
    K = len(clean.classes)
    counts = {name: np.zeros((K, K), np.int64) for name in ("all", "day", "night")}
    for index in range(len(dataset)):
        frame = dataset[index]
        pair = [(frame.rgb_HW3, frame.thermal_HW)]
        mask_HW = predictor.predict(pair, [frame.name], probabilities=False, divergence=False)[0].mask
        pairs = K * frame.label_HW.astype(np.int64) + mask_HW
        counted_KK = np.bincount(pairs[frame.label_HW != 255], minlength=K * K).reshape(K, K)
        for name in ("all", dataset.condition(index)):
            counts[name] += counted_KK
    rule = clean.scoring_rules()[0]
    expected = {n: 100 * rule.means(ConfusionMatrix(K, c), clean.classes)["mIoU"] for n, c in counts.items()}
    cell = whole[0].runs[0].cells["MissingBlack of thermal"][3.0]
    assert cell["confusion_matrix"] == counts["all"].tolist()
    assert expected["day"] != expected["night"]
    assert miou(cell) == pytest.approx(expected["all"])
    for condition in ("day", "night"):
        assert miou_in(condition)(cell) == pytest.approx(expected[condition])


def test_the_protocol_of_a_cell_says_what_was_done(whole):
    for one in every_corruption():
        told = whole[0].runs[0].cells[one.name][3.0]["protocol"]["preparation"]
        assert told == f"as stored; corrupted: {one.name} at severity 3 of 5, seed 0"
    assert whole[0].runs[0].protocol.preparation == "as stored"


def test_what_shows_an_object_is_judged_before_the_corruption(whole):
    """Else nothing would be lost of objects that only a missing camera shows: there would be none of them."""
    run = whole[0].runs[0]
    assert set(run.kinds()) <= set(SHOWN_IN) and len(run.kinds()) >= 3
    for by_severity in run.cells.values():
        for kind in SHOWN_IN:
            labelled = [np.sum(c["groups"][kind]["confusion_matrix"], axis=1) for c in (run.clean, by_severity[3.0])]
            np.testing.assert_array_equal(*labelled)
    kind = run.kinds()[0]
    counts_KK = np.array(run.clean["groups"][kind]["confusion_matrix"])[1:]  # class 0 is no object
    assert run.clean["found"][kind] == pytest.approx(100 * np.trace(counts_KK[:, 1:]) / counts_KK.sum())


def test_the_same_numbers_twice_with_and_without_loader_processes(trained, tmp_path):
    short = {"corruptions": ["Frozen", "Rain"], "severities": [2.5]}
    measured(trained, tmp_path / "a", **short)
    measured(trained, tmp_path / "b", opts=["pipeline.workers=2"], **short)
    first = cells_in(tmp_path / "a")
    assert len(first) == 1 + 1 + 3 and first == cells_in(tmp_path / "b")


# Going on


def test_what_was_killed_goes_on_and_measures_only_the_rest(trained, tmp_path, monkeypatch, counted):
    written = []
    original = measure.CellStore.write

    def write(store, task, content):
        if len(written) == 4:
            raise KeyboardInterrupt
        original(store, task, content)
        written.append(task.title)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(measure.CellStore, "write", write)
        measured(trained, tmp_path / "a")
    assert len(written) == 4 and len(counted) == 5
    counted.clear()
    first = measured(trained, tmp_path / "a")
    assert len(counted) == CELLS - 4 and len(set(counted)) == CELLS - 4
    counted.clear()
    measured(trained, tmp_path / "a")
    assert not counted
    again = measured(trained, tmp_path / "b")
    assert len(counted) == CELLS and cells_in(tmp_path / "a") == cells_in(tmp_path / "b")
    assert first.runs[0].cells == again.runs[0].cells


def test_more_severities_are_added_and_another_setting_is_measured_anew(trained, tmp_path, counted):
    short = {"corruptions": ["Fog", "SensorNoise"]}
    measured(trained, tmp_path, severities=[1], **short)
    counted.clear()
    measured(trained, tmp_path, severities=[1, 5], **short)
    assert [told.partition("severity ")[2][:1] for told in counted] == ["5", "5"]
    runs = trained[0]
    for options in ({"seed": 1}, {"opts": ["eval.flip=true"]}, {"frames": 2}):
        counted.clear()
        measured(trained, tmp_path, severities=[1], **short, **options)
        assert len(counted) == 3, options
    counted.clear()
    measured(trained, tmp_path, runs[1], severities=[1], **short)
    assert len(counted) == 3
    assert len(list((tmp_path / "cells").iterdir())) == 5


def test_a_cell_that_somebody_changed_is_measured_anew(trained, tmp_path, counted):
    short = {"corruptions": ["Fog", "ThermalNoise"], "severities": [1]}
    measured(trained, tmp_path, **short)
    kept = cells_in(tmp_path)
    fog, noise, clean = (
        next(tmp_path.glob(f"cells/*/{n}.json")) for n in ("Fog-rgb-1", "ThermalNoise-thermal-1", "clean")
    )
    shutil.copyfile(clean, fog)  # the score of another cell
    noise.write_text(noise.read_text()[:100])
    counted.clear()
    measured(trained, tmp_path, **short)
    assert len(counted) == 2 and cells_in(tmp_path) == kept


# What is written


def test_the_files_hold_the_same_numbers(whole):
    found, out = whole
    tree = json.loads((out / "robustness.json").read_text())
    text = (out / "table.md").read_text()
    for run, told in zip(found.runs, tree["runs"], strict=True):
        summary = run.retained(miou)
        assert told["summary"]["mpc"] == summary.mpc and told["summary"]["rpc"] == summary.rpc
        assert len(told["cells"]) == len(every_corruption()) == len(summary.corruptions)
        assert set(told["conditions"]) == {"day", "night"} and told["checkpoint_sha256"]
        errors = found.errors(run)
        row = [summary.clean, *summary.groups.values(), *summary.cameras.values(), summary.mpc]
        last = [f"{value:.1f}" for value in (summary.rpc, errors.mce, errors.relative_mce)]
        assert f"| {' | '.join([run.name, *[f'{value:.2f}' for value in row], *last])} |" in text
        for name, by_severity in run.cells.items():
            line = f"| {name} | {summary.clean:.2f} | {miou(by_severity[3.0]):.2f} | {summary.corruptions[name]:.2f} |"
            assert line in text
    assert found.errors(found.runs[1]).mce == 100 and tree["reference"] == found.runs[1].name
    assert {run["name"] for run in tree["runs"]} == {"one & 'two' (seed 1)", "one & 'two' (seed 2)"}
    assert "objects in thermal only" in text and ", night |" in text


def test_the_page_has_a_curve_for_every_corruption_and_no_address(whole):
    page = (whole[1] / "robustness.html").read_text(encoding="utf-8")
    text = "".join(parse(page).text)
    charts = re.findall(r'<svg viewBox="[^"]+" role="img" aria-label="(.*?): one', page)
    assert sorted(charts) == sorted(one.name for one in every_corruption())
    assert page.count("<polyline") == 2 * len(charts) == page.count("at severity 3</title>")
    axes = [re.findall(r'class="y" .*?>(.*?)<', part) for part in page.split('<figure class="card chart">')[1:]]
    assert len(axes) == len(charts) and all(axis == axes[0] and axis[0] == "0" for axis in axes)
    assert "severity 3" in text and "one & 'two' (seed 1)" in text and "one & 'two'" not in page
    assert not re.search(r"(?:https?:)?//\w", re.sub(r"base64,[^\"]+", "", page))
    assert page.count("<img") == 3 + 2 + len(charts) * 3
    assert all(value.startswith("data:image/") for name, value in parse(page).attributes if name == "src")


def test_the_scene_is_the_one_named_or_has_the_most_classes_by_day(trained, tmp_path):
    (subject,) = open_subjects(trained[0][:1], trained[1], [], "test", 0, tmp_path)
    dataset = subject.dataset
    classes = {index: len(np.unique(dataset[index].label_HW)) for index in range(len(dataset))}
    days = [index for index in classes if dataset.condition(index) == "day"]
    assert 0 < len(days) < len(dataset)
    place = richest(dataset)
    assert place in days and classes[place] == max(classes[index] for index in days)
    assert index_of(dataset, dataset.names[3]) == 3


def test_the_command_prints_the_table_and_takes_the_run_for_its_folder(trained, tmp_path, capsys):
    run = shutil.copytree(trained[0][0], tmp_path / "run")
    json_file = tmp_path / "numbers.json"
    arguments = [
        run,
        "--config",
        trained[1],
        "--split",
        "val",
        "--corruptions",
        "Fog",
        "--severities",
        "5",
        "--frames",
        "2",
    ]
    command.main([*map(str, arguments), "--json", str(json_file)])
    said = capsys.readouterr().out
    assert "mPC" in said and "Fog of rgb" in said and "rPC: mPC in per cent" in said
    folder = run / "robustness" / "val"
    assert {file.name for file in folder.iterdir()} == {"cells", "robustness.json", "table.md", "robustness.html"}
    assert json_file.read_bytes() == (folder / "robustness.json").read_bytes()
    assert json.loads(json_file.read_text())["runs"][0]["protocol"]["images"] == 2


# Mistakes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"corruptions": ["Fogg"]}, r"--corruptions Fogg: no such corruption.*Did you mean 'Fog'\?"),
        ({"corruptions": ["Fog of thermal"]}, r"--corruptions Fog of thermal.*Did you mean 'Fog of rgb'\?"),
        ({"severities": [1, 6]}, "--severities 6: expected numbers above 0 and up to 5"),
        ({"severities": [0]}, "--severities 0: .*clean score"),
        ({"severities": [math.nan]}, "--severities nan"),
        ({"severities": []}, "--severities: got none"),
        ({"split": "dev"}, "--split dev"),
        ({"scene": "nowhere"}, "--scene nowhere: Synthetic test has no such frame"),
        ({"reference": "elsewhere"}, "--reference elsewhere: expected one of the runs"),
        (
            {"frames": 4},
            "Frozen of rgb at severity 5 shows the frame 16 places earlier, which in a split of 4 is the same",
        ),
    ],
)
def test_a_mistake_is_one_sentence_before_anything_is_measured(trained, tmp_path, counted, options, message):
    with pytest.raises(ConfigError, match=message) as caught:
        measured(trained, tmp_path, **options)
    assert "\n" not in str(caught.value) and not counted and not list(tmp_path.iterdir())


def test_runs_that_are_not_there_or_named_twice(trained, tmp_path):
    runs = trained[0]
    with pytest.raises(ConfigError, match="does not exist; expected a run directory"):
        measured(trained, tmp_path, tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"has no checkpoints/best\.pt or last\.pt"):
        measured(trained, tmp_path, tmp_path / "empty")
    with pytest.raises(ConfigError, match="name each once"):
        measured(trained, tmp_path, runs[0], runs[0] / "checkpoints" / "best.pt")
    with pytest.raises(WeightsError):
        measured(trained, tmp_path, trained[1])
    checkpoint = runs[0] / "checkpoints" / "best.pt"
    with pytest.raises(ConfigError, match="this is a checkpoint"):
        measured(trained, tmp_path, json_file=checkpoint)


def test_a_data_set_that_is_absent_or_another(trained, tmp_path):
    runs, file = trained
    absent = tmp_path / "absent.yaml"
    absent.write_text(
        yaml.safe_dump({**yaml.safe_load(file.read_text()), "data": {"type": "MFNet", "root": str(tmp_path / "no")}})
    )
    with pytest.raises(UserError, match="no"):
        robustness(runs[:1], config=absent, out=tmp_path, **FEW)
    subject, other = open_subjects(runs, file, [], "test", 0, tmp_path)
    frames = replace(other, dataset=build_dataset(other.config.data, "val"))
    with pytest.raises(DataError, match=r"frames: 3 of hash .*run1: 5 of hash"):
        measure._require_same(frames, subject)
    classes = replace(other, dataset=build_dataset(other.config.data, "test"))
    classes.dataset.classes = tuple("abcdefghi")
    with pytest.raises(DataError, match="classes: a, b, c"):
        measure._require_same(classes, subject)


def test_several_processes_are_refused(trained, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="one process"):
        measured(trained, tmp_path)


def test_a_run_trains_with_corruptions(trained, tmp_path):
    """The documented way, and its scores are measured like any others."""
    chain = (
        "pipeline.train=[{type: ThermalDrift, p: 0.2}, {type: MissingBlack, camera: thermal, p: 1.0, severity: [5, 5]}]"
    )
    run = train(trained[1], [chain, "train.epochs=1", "schedule.warmup_epochs=0"], run_dir=tmp_path / "run")
    assert [one.type for one in run_config(run.path)] == ["ThermalDrift", "MissingBlack"]
    found = measured(trained, tmp_path / "out", run.path, corruptions=["ThermalDrift"], severities=[1])
    assert math.isfinite(miou(found.runs[0].clean))


def run_config(run: Path):
    from mdg import load_config

    return load_config(run / "config.yaml", []).pipeline.train
