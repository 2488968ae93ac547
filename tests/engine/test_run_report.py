"""The report on runs: a page that stands alone, says what the files say, and what is missing."""

from __future__ import annotations

import base64
import csv
import json
import re
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from pages import parse

from mdg.commands import report as command
from mdg.data import build_dataset
from mdg.engine import evaluate, train
from mdg.engine.compare.comparison import compare
from mdg.engine.evaluation.result_files import read_result
from mdg.engine.predictor import Predictor
from mdg.engine.run_report.frames import as_scored, choose, read_image_scores
from mdg.engine.run_report.report import report
from mdg.engine.run_report.runs import read_run
from mdg.engine.run_report.tables import class_rows, confusion_table, key_numbers
from mdg.errors import ConfigError
from mdg.utils.files import write_json
from mdg.utils.visualization import colorize

HOSTILE = '<script>alert(1)</script> & "b"'


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of the tiny network that was scored on test with mirrored views, and its configuration."""
    from tests.engine.conftest import TINY

    folder = tmp_path_factory.mktemp("trained")
    file = folder / "tiny.yaml"
    data = {**TINY["data"], "test_images": 7}
    file.write_text(yaml.safe_dump({**TINY, "data": data, "exp_dir": str(folder / "exp")}))
    run = train(file, ["train.epochs=12", "log.every_steps=3"], run_dir=folder / "run")
    evaluate(run.best, file, opts=["eval.flip=true", "eval.scales=[1.0, 0.5]", "eval.pictures=0"])
    return run.path, file


@pytest.fixture
def run(trained, tmp_path):
    """A copy of it to spoil."""
    return shutil.copytree(trained[0], tmp_path / "run"), trained[1]


@pytest.fixture(scope="module")
def page(trained, tmp_path_factory):
    """The page about it, with two frames of each kind."""
    file = tmp_path_factory.mktemp("page") / "page.html"
    report([trained[0]], out=file, frames=2, config=trained[1])
    return file.read_text(encoding="utf-8")


def text_of(page: str) -> str:
    return "".join(parse(page).text)


def changed(file, **values) -> None:
    write_json(file, {**json.loads(file.read_text()), **values})


def pictures(page: str) -> dict[str, np.ndarray]:
    """Pictures of the page by their alternative texts, RGB."""
    found = {}
    for kind, data, alt in re.findall(r'src="data:image/(\w+);base64,([^"]+)"[^>]* alt="([^"]+)"', page):
        assert kind in ("png", "jpeg")
        found[alt] = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR_RGB)
    return found


# What is told of scores


def test_frames_are_predicted_as_they_were_scored(trained):
    result = read_result(trained[0] / "results" / "test" / "results.json")
    assert set(as_scored(result)) == {"eval.flip=true", "eval.scales=[0.5, 1.0]", "eval.pictures=0"}
    shorter = {"eval.scales.0": 0.5, "eval.scales.1": "(not set)", "train.epochs": 3, "data.root": "/a b"}
    result.content.update(evaluated_with=shorter, config={**result.config, "eval": {"scales": [1, 2]}})
    assert as_scored(result) == ["eval.scales=[0.5]", 'data.root="/a b"']
    result.content["evaluated_with"] = None
    assert as_scored(result) == []


def test_classes_and_confusions_by_hand(trained):
    result = read_result(trained[0] / "results" / "test" / "results.json")
    classes, n = result.protocol.classes, len(result.protocol.classes)
    matrix = np.zeros((n, n), int)
    matrix[0, :3] = 15, 4, 1
    matrix[1, 1] = 2000
    result.content["confusion_matrix"] = matrix.tolist()
    table = confusion_table(result)
    assert table is not None
    name, pixels, cells = table.rows[0]
    assert (name, pixels) == (classes[0], 20)
    assert [(c.text, c.white) for c in cells[:4]] == [("75.0", True), ("20.0", False), ("5.0", False), ("", False)]
    assert table.rows[1][2][1].text == "100" and table.rows[2][1:] == (0, [])
    assert table.confused == [
        f"{share} % of the pixels of {classes[0]} are taken for {classes[guess]}"
        for share, guess in (("20.0", 1), ("5.0", 2))
    ]
    result.content["confusion_matrix"] = matrix[:, :-1].tolist()
    assert confusion_table(result) is None


def test_bars_hold_every_condition_and_know_what_is_absent(trained):
    result = read_result(trained[0] / "results" / "test" / "results.json")
    per_class, groups = result.content["per_class"], result.content["groups"]
    assert list(groups) == ["day", "night"]
    for place, row in enumerate(class_rows(result)):
        expected = [per_class[place]["iou"], *[groups[name]["per_class"][place]["iou"] for name in groups]]
        assert row.values == expected
    groups["day"]["per_class"] = "spoilt"
    assert [row.values[1] for row in class_rows(result)] == [None] * len(per_class)


def test_what_is_no_honest_test_is_said_aloud(run):
    folder, _ = run
    file = folder / "results" / "test" / "results.json"
    assert key_numbers(read_result(file))["warnings"] == []
    protocol = json.loads(file.read_text())["protocol"]
    changed(file, protocol={**protocol, "selection": "best mIoU SELECTED ON test"})
    report([folder], frames=0)
    page = (folder / "report.html").read_text()
    assert '<p class="loud bad"><strong>No honest test:</strong> best mIoU SELECTED ON test</p>' in page
    assert "no scored frame trained or chose it" not in page


# The page


def test_the_page_stands_alone(page):
    reader = parse(page)
    assert reader.tags.count("script") == reader.tags.count("style") == 1 and "link" not in reader.tags
    loading = ("src", "href", "srcset", "data", "action", "poster")
    loaded = [value for name, value in reader.attributes if name in loading]
    assert len(loaded) == 6 * 5 and all(value.startswith("data:image/") for value in loaded)
    code = "".join(re.findall(r"<(style|script)>(.*?)</\1>", page, re.S)[k][1] for k in (0, 1))
    assert len(code) > 5000 and not re.search(r"https?:|//|url\(|@import|fetch|XMLHttp", code)
    images = re.findall(r"<img [^>]*>", page)
    assert len(images) == 30 and all(re.search(r' alt="\w[^"]+"', image) for image in images)
    assert all(
        ' role="img" aria-label="' in svg or ' aria-hidden="true"' in svg for svg in re.findall(r"<svg[^>]*>", page)
    )
    for rule in ("@media print", "prefers-color-scheme: dark", "max-width: 600px"):
        assert rule in page


def test_the_page_says_what_the_files_say(trained, page):
    content = json.loads((trained[0] / "results" / "test" / "results.json").read_text())
    text = text_of(page)
    for key in ("mIoU", "mAcc", "pixel_accuracy"):
        assert f"{content['scores'][key]:.2f}" in text
    assert read_result(trained[0] / "results" / "test" / "results.json").protocol.summary() in text
    assert (trained[0] / "config.yaml").read_text() in text
    environment = json.loads((trained[0] / "environment.json").read_text())
    assert environment["command"] in text and environment["packages"]["torch"] in text
    assert "No results of" not in text and "loud warn" not in page


def test_pictures_are_those_of_the_network(trained, page):
    """Predicted with the overrides of the evaluation; a note would say where a score came out otherwise."""
    folder, config = trained
    rows = choose(read_image_scores(folder / "results" / "test" / "images.csv"), 2)
    shown = pictures(page)
    predictor = Predictor(folder / "checkpoints" / "best.pt", config, opts=["eval.flip=true", "eval.scales=[1.0, 0.5]"])
    dataset = build_dataset(predictor.config.data, "test")
    assert len(rows) == 3
    seen = set()
    for score in (score for _, found in rows for score in found):
        frame = dataset[dataset.names.index(score.name)]
        mask = predictor(frame.rgb_HW3, frame.thermal_HW).mask
        seen |= set(np.unique(mask).tolist())
        assert np.array_equal(shown[f"prediction of {score.name}"], colorize(mask, dataset.palette_K3))
        assert np.array_equal(shown[f"label of {score.name}"], colorize(frame.label_HW, dataset.palette_K3))
        assert np.abs(shown[f"RGB of {score.name}"].astype(int) - frame.rgb_HW3).mean() < 8
        red = (shown[f"errors of {score.name}"].astype(int) @ (2, -1, -1)) > 170
        assert abs(red.mean() - (mask != frame.label_HW).mean()) < 0.05
        assert f"mIoU {score.miou:.2f}" in page
        assert f"{100 * (mask != frame.label_HW).mean():.1f} % of pixels wrong" in page
    assert len(seen) > 1


def test_a_score_that_comes_out_otherwise_is_told(run):
    folder, config = run
    changed(folder / "results" / "test" / "results.json", evaluated_with={"eval.scales.0": 0.25})
    file = report([folder], frames=1, config=config)
    assert re.search(r"\S+: mIoU \d+\.\d\d here, \d+\.\d\d when it was scored\.", text_of(file.read_text()))


def test_everything_is_escaped(run):
    folder, config = run
    evil = f"{HOSTILE} <img src=https://nowhere.invalid/x.png> </pre></style>"
    (folder / "config.yaml").write_text(f"name: {json.dumps(evil)}\nseed: 1\n")
    (folder / "environment.json").write_text(json.dumps({"command": evil, evil: evil}))
    (folder / "metrics.jsonl").write_text(json.dumps({"kind": "train", "step": 1, evil: 2.0, "loss": 1}) + "\n")
    protocol = json.loads((folder / "results" / "test" / "results.json").read_text())["protocol"]
    changed(folder / "results" / "test" / "results.json", protocol={**protocol, "dataset": evil, "selection": evil})
    other = shutil.copytree(folder, folder.parent / evil.replace("/", "_"))
    for file in (report([folder], frames=0, config=config), report([folder, other], frames=0)):
        page = file.read_text()
        reader = parse(page)
        assert reader.tags.count("script") == 1 and "img" not in reader.tags and "b" not in reader.tags
        assert "nowhere.invalid" not in re.sub(r"&lt;.*?&gt;", "", page) and evil in "".join(reader.text)


# What is missing


def test_a_run_without_results_says_how_to_make_them(run):
    folder, _ = run
    shutil.rmtree(folder / "results")
    page = report([folder], split="val").read_text()
    best = folder / "checkpoints" / "best.pt"
    assert f"python tools/val_mm.py --checkpoint {best} --split val" in text_of(page)
    assert "<img" not in page and "training loss and its terms" in page
    shutil.rmtree(folder / "checkpoints")
    assert "no checkpoint that could be scored" in text_of(report([folder]).read_text())


def test_a_run_that_has_only_begun_has_a_page(tmp_path):
    (tmp_path / "config.yaml").write_text("name: young\n")
    text = text_of(report([tmp_path]).read_text())
    assert "young" in text and "Nothing is logged yet" in text and "No results of test yet" in text


@pytest.mark.parametrize(
    "opts, reason",
    [
        (["data={type: MFNet, root: /nowhere}"], "/nowhere: no such folder"),
        (["data.test_images=6"], "has other frames here (6) than were scored (7)"),
        (["nonsense=1"], "nonsense: unknown key"),
    ],
)
def test_without_its_data_the_page_goes_on_without_pictures(run, opts, reason):
    folder, config = run
    page = report([folder], config=config, opts=opts).read_text()
    text = text_of(page)
    assert "No pictures of frames: " in text and reason in text and "<img" not in page
    assert "Confusion matrix, test" in text


def test_damaged_files_are_told_and_the_rest_is_shown(run):
    folder, _ = run
    (folder / "environment.json").write_text("{")
    with open(folder / "metrics.jsonl", "a") as stream:
        stream.write('{"kind": "train", "step": -1}\n[1]\n{"kind": "tr')
    (folder / "results" / "test" / "results.json").write_text("[]")
    found = read_run(folder)
    assert len(found.problems) == 3 and found.train and not found.results
    told = " ".join(found.problems)
    assert "environment.json: not readable" in told and "3 lines are no records" in told and "results.json" in told
    text = text_of(report([folder]).read_text())
    assert all(problem in text for problem in found.problems)


def test_another_checkpoint_than_was_scored_is_told(run):
    folder, config = run
    changed(folder / "results" / "test" / "results.json", checkpoint_sha256="0" * 64)
    text = text_of(report([folder], frames=1, config=config).read_text())
    assert "The checkpoint that was scored is gone; best.pt predicted these frames." in text


def test_no_run_no_page(tmp_path, run):
    with pytest.raises(ConfigError, match="expected a run directory"):
        report([tmp_path / "nothing"])
    with pytest.raises(ConfigError, match="name each once"):
        report([run[0], run[0] / "." / ""])
    with pytest.raises(ConfigError, match="--split tset"):
        report([run[0]], split="tset")
    for name in ("config.yaml", "metrics.jsonl", "checkpoints/best.pt", "results/test/images.csv"):
        before = (run[0] / name).read_bytes()
        with pytest.raises(ConfigError, match="this is a file of the run"):
            report([run[0]], out=run[0] / name)
        assert (run[0] / name).read_bytes() == before


# Several runs


@pytest.fixture
def two(run):
    """The run, and one whose network and predictions differ."""
    folder, config = run
    other = shutil.copytree(folder, folder.parent / "other")
    file = other / "results" / "test" / "results.json"
    content = json.loads(file.read_text())
    model = {**content["config"]["model"], "width": 9}
    changed(file, checkpoint_sha256="1" * 64, config={**content["config"], "model": model, "name": "wider"})
    (other / "config.yaml").write_text((folder / "config.yaml").read_text().replace("name: tiny", "name: wider"))
    counts = other / "results" / "test" / "counts.csv"
    header, *rows = csv.reader(counts.read_text().splitlines())
    right = [place for place, name in enumerate(header) if name.endswith(" right")]
    for row in rows:
        for place in right:
            row[place] = str(int(row[place]) // 2)
    counts.write_text("".join(",".join(row) + "\n" for row in [header, *rows]))
    return folder, other


def test_several_runs_are_compared(two):
    file = report(two, frames=0)
    assert file == two[0] / "comparison.html"
    page, text = file.read_text(), text_of(file.read_text())
    comparison = compare(two)
    difference = comparison.difference(comparison.rows[1], comparison.settings[0])
    assert difference is not None and difference.high < 0 and str(difference) in text
    assert "b wider" in text and "model.width: 9; a: 8" in text and "2 runs" in text
    # A line for each run in the charts of all, beside those of every run.
    together = re.findall(r"<figure.*?</figure>", page, re.S)[:3]
    assert [figure.count("<polyline") for figure in together] == [2, 2, 2]
    assert all('href="#run-' in link for link in re.findall(r"<a [^>]*>", page))


def test_runs_that_cannot_be_compared_are_shown_all_the_same(run):
    folder, _ = run
    twin = shutil.copytree(folder, folder.parent / "twin")
    text = text_of(report([folder, twin], frames=0).read_text())
    assert "The runs cannot be compared: " in text and "the same checkpoint" in text
    assert text.count("Confusion matrix, test") == 2
    shutil.rmtree(twin / "results")
    assert "Not in the table, as they have no results of test: " in text_of(
        report([folder, twin], frames=0).read_text()
    )


# The command


def test_every_path_knows_the_home_folder():
    paths = [action for action in command.parse()._actions if action.metavar in ("RUN", "FILE", "YAML")]
    assert len(paths) == 3 and all(action.type("~/x") == str(Path.home() / "x") for action in paths)


def test_the_command(trained, tmp_path, capsys):
    out = tmp_path / "page.html"
    command.main([str(trained[0]), "--out", str(out), "--no-pictures"])
    assert capsys.readouterr().out == f"report: {out}\n" and "<img" not in out.read_text()
    for arguments, message in ((["--frames", "-1"], "expected a whole number"), (["--split", "x"], "--split x")):
        with pytest.raises(SystemExit) as stop:
            command.main([str(trained[0]), *arguments])
        assert stop.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Chromium")
@pytest.mark.parametrize("width", [380, 1200])
def test_a_browser_shows_it_without_scrolling_sideways(page, tmp_path, width):
    """Slow: it starts a browser. In a frame, as a window cannot be as narrow as a telephone."""
    sizes = "[document.documentElement.scrollWidth, document.querySelectorAll('.live').length]"
    told = f"<script>parent.postMessage({sizes}.join(' '), '*')</script>"
    (tmp_path / "page.html").write_text(page.replace("</html>", told + "</html>"))
    listening = "<script>addEventListener('message', event => { document.title = event.data })</script>"
    frame = f'<iframe src="page.html" style="width:{width}px;height:900px;border:0"></iframe>'
    (tmp_path / "outer.html").write_text(f"<!DOCTYPE html><title></title>{listening}{frame}")
    arguments = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1400,900"]
    arguments += ["--virtual-time-budget=3000", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    done = subprocess.run(
        ["chromium", *arguments, f"file://{tmp_path / 'outer.html'}"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert f"<title>{width} 6</title>" in done.stdout
