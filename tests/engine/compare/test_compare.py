"""Comparison of runs: means over seeds, and a wall between protocols."""

from __future__ import annotations

import csv
import json
import os
import statistics

import numpy as np
import pytest
from invented_results import CLASSES, CONFIG, RULES, counts, invented_result
from pages import parse

from mdg.commands import compare as command
from mdg.config.load import ABSENT
from mdg.engine import evaluate
from mdg.engine.compare.comparison import compare, letter
from mdg.engine.compare.output import write_comparison
from mdg.engine.compare.page import make_page
from mdg.engine.compare.tables import as_csv, as_markdown, as_tree, fold, notes, score_grid
from mdg.errors import MachineError, UserError
from mdg.metrics import ConfusionMatrix, ScoringRule
from mdg.utils.files import write_json


@pytest.fixture
def result(tmp_path):
    """Writes results with invented counts: ``result("name", seed=1, config={...}, input_size=...)`` gives the file."""

    def write(name: str, *args, **options):
        file = tmp_path / name / "results.json"
        write_json(file, invented_result(name, *args, **options))
        return file

    return write


def grid_of(comparison) -> list[dict[str, str]]:
    header, *rows = score_grid(comparison)
    return [dict(zip(header, row, strict=True)) for row in rows]


def test_seeds_form_one_row_with_mean_and_deviation(result):
    files = [result(f"s{seed}", seed) for seed in (3, 1, 2)]
    comparison = compare(files)
    (row,), (setting,) = comparison.rows, comparison.settings
    assert row.seeds == [1, 2, 3] and setting.number == 1 and not setting.differs
    values = [100 * RULES[0].means(ConfusionMatrix(3, counts(seed)), CLASSES)["mIoU"] for seed in (1, 2, 3)]
    cell = row.cell(setting, "mIoU (C)")
    assert cell.mean == pytest.approx(statistics.mean(values)) and cell.std == pytest.approx(statistics.stdev(values))
    expected = f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}"
    line = grid_of(comparison)[0]
    assert line["[1] mIoU (C)"] == expected and line["seeds"] == "1, 2, 3"
    other = [100 * RULES[1].means(ConfusionMatrix(3, counts(seed)), CLASSES)["mIoU"] for seed in (1, 2, 3)]
    assert line["[1] mIoU (A)"].startswith(f"{statistics.mean(other):.2f} ")
    names = ["mIoU (C)", "mIoU (A)", "mAcc", "pixel accuracy", "mIoU day", "mIoU night"]
    assert list(line) == ["run", "seeds", *[f"[1] {name}" for name in names]]


def test_one_run_has_no_deviation(result):
    comparison = compare([result("a")])
    assert comparison.rows[0].cell(comparison.settings[0], "mAcc").std is None
    assert "±" not in grid_of(comparison)[0]["[1] mAcc"]


def test_what_cannot_change_a_score_does_not_split_a_row(result):
    neutral = {
        "name": "other",
        "exp_dir": "elsewhere",
        "device": "cuda",
        "threads": None,
        "log": {"every_steps": 1},
        "data": {"type": "Synthetic", "cache": "memory", "cache_dir": "/tmp"},
        "pipeline": {**CONFIG["pipeline"], "workers": 0, "prefetch": 9},
    }
    assert len(compare([result("a", 1), result("b", 2, neutral)]).rows) == 1


@pytest.mark.parametrize(
    ("config", "difference"),
    [
        ({"model": {"width": 16}}, "model.width: 16; a: 8"),
        ({"pipeline": {"workers": 4, "prefetch": 2, "train": []}}, "pipeline.train: []; a: (...)"),
        ({"ema": True}, "ema: True; a: (not set)"),
    ],
)
def test_another_configuration_is_another_row_and_says_why(result, config, difference):
    comparison = compare([result("a", 1), result("b", 1, config)])
    assert [row.letter for row in comparison.rows] == ["a", "b"] and len(comparison.settings) == 1
    assert any(f"differs from a in {difference}" in line for line in notes(comparison))


def test_protocols_never_share_a_column(result):
    comparison = compare([result("a", 1), result("b", 1, {"model": {"width": 9}}, input_size="480x640", mode="slide")])
    one, two = grid_of(comparison)
    for name in ("mIoU (C)", "mAcc", "mIoU night"):
        assert one[f"[1] {name}"] and not one[f"[2] {name}"]
        assert two[f"[2] {name}"] and not two[f"[1] {name}"]
    text = "\n".join(notes(comparison))
    assert "differs from [1] in input_size: 480x640; [1]: x" in text and "in mode: slide; [1]: x" in text
    assert text.count("differs from [1]") == 2
    for setting in comparison.settings:
        assert setting.protocol.text() in text


def test_rules_of_one_name_and_another_meaning_do_not_share_a_column(result):
    others = (RULES[0], ScoringRule("A", CLASSES[1:], ("road",)))
    comparison = compare([result("a", 1), result("b", 1, {"model": {"width": 9}}, rules=others)])
    assert len(comparison.settings) == 2
    assert "differs from [1] in rules" in "\n".join(notes(comparison))


def test_a_part_left_out_is_one_difference():
    differs = {
        "model.interaction": (None, ABSENT),
        "model.interaction.type": (ABSENT, "MDI"),
        "model.interaction.write_back": (ABSENT, "change"),
        "model.interaction_stages": ([1], [2]),
        "optimizer.groups.0.match": ("*", ABSENT),
        "optimizer.groups": (ABSENT, []),
    }
    assert fold(differs) == {
        "model.interaction": (None, "MDI"),
        "model.interaction_stages": ([1], [2]),
        "optimizer.groups": ("(...)", []),
    }


def test_the_same_seeds_under_two_protocols_are_one_row_in_two_columns(result):
    files = [result(f"{mode}{seed}", seed, mode=mode) for mode in ("whole", "slide") for seed in (1, 2)]
    comparison = compare(files)
    assert len(comparison.rows) == 1 and len(comparison.settings) == 2
    assert all("±" in text for name, text in grid_of(comparison)[0].items() if name.startswith("["))


def test_seeds_under_different_protocols_have_no_mean(result):
    files = [result("a", 1), result("b", 2), result("c", 3, test_time_augmentation="flip", files_sha256="y")]
    with pytest.raises(UserError, match=r"seeds of 'net' were not scored alike") as error:
        compare(files)
    assert "files_sha256" in str(error.value) and "test_time_augmentation: flip" in str(error.value)
    assert "mode" not in str(error.value)


def test_epochs_of_the_checkpoints_may_differ(result):
    assert len(compare([result("a", 1), result("b", 2)]).settings) == 1  # the fixture sets epoch = seed


def test_duplicates_are_refused(result, tmp_path):
    file = result("a", 1)
    with pytest.raises(UserError, match="the same file"):
        compare([file, tmp_path / "a"])
    copied = tmp_path / "copy" / "results.json"
    copied.parent.mkdir()
    copied.write_text(file.read_text())
    with pytest.raises(UserError, match="the same checkpoint"):
        compare([file, copied])
    with pytest.raises(UserError, match=r"the same configuration and seed \(seed 1\)"):
        compare([file, result("again", 1)])


def test_a_dishonest_score_is_marked_everywhere(result):
    loud = "best mIoU SELECTED ON test (5 of 5 scored frames)"
    comparison = compare([result("a", 1), result("b", 1, {"model": {"width": 9}}, selection=loud)])
    assert "[2]! mAcc" in score_grid(comparison)[0] and "[1] mAcc" in score_grid(comparison)[0]
    for text in ("\n".join(notes(comparison)), as_markdown(comparison), as_csv(comparison)):
        assert f"! no honest test: {loud}" in text
    assert [s["protocol"]["honest"] for s in as_tree(comparison)["settings"]] == [True, False]


def test_nan_stays_nan(result):
    empty = np.array([[5, 1, 0], [2, 3, 0], [0, 0, 0]])
    files = [result("a", 1, matrix=empty), result("b", 2, matrix=empty)]
    comparison = compare(files)
    rows = [line for line in as_markdown(comparison, per_class=True).splitlines() if line.startswith("| person")]
    assert rows == ["| person | NaN |"]
    assert "NaN" not in grid_of(comparison)[0]["[1] mIoU (C)"]


def test_files_hold_what_the_table_shows(result, tmp_path):
    files = [result("a", 1), result("b", 2), result("c", 1, {"model": {"width": 9}}, input_size="480x640")]
    comparison = compare(files)
    lines = as_csv(comparison, per_class=True).splitlines()
    header, first, second = csv.reader(line for line in lines if not line.startswith("#"))
    row = dict(zip(header, first, strict=True))
    cell = comparison.rows[0].cell(comparison.settings[0], "IoU car")
    assert float(row["[1] IoU car"]) == pytest.approx(cell.mean, abs=1e-6)
    assert float(row["[1] IoU car std"]) == pytest.approx(cell.std, abs=1e-6)
    assert row["[2] IoU car"] == row["[2] mAcc std"] == "" and dict(zip(header, second, strict=True))["[1] mAcc"] == ""
    write_json(tmp_path / "c.json", as_tree(comparison))
    content = json.loads((tmp_path / "c.json").read_text())
    assert content["rows"][0]["scores"].keys() == {"1"} and content["rows"][1]["scores"].keys() == {"2"}
    assert content["rows"][0]["scores"]["1"]["mAcc"]["count"] == 2
    markdown = as_markdown(comparison).splitlines()
    table = [line for line in markdown if line.startswith("|")]
    assert len(table) == 4 and len({line.count("|") for line in table}) == 1


def test_a_run_directory_gives_its_newest_results(result, tmp_path):
    run = tmp_path / "run"
    for place, (name, seed) in enumerate((("test", 5), ("test-2", 6), ("val", 7), ("test_day", 8))):
        folder = run / "results" / name
        folder.parent.mkdir(parents=True, exist_ok=True)
        os.rename(result(f"r{seed}", seed).parent, folder)
        os.utime(folder / "results.json", (1000 + place, 1000 + place))
    assert compare([run]).rows[0].seeds == [6]
    assert compare([run], split="val").rows[0].seeds == [7]
    os.utime(run / "results" / "test" / "results.json", (2000, 2000))
    assert compare([run]).rows[0].seeds == [5]
    with pytest.raises(UserError, match=r"found results/test, results/test-2, results/test_day, .*val_mm.py"):
        compare([run], split="train")


def changed(file, path: str, value) -> None:
    """Sets, or with ``...`` removes, one value of a file by its dotted path."""
    content = json.loads(file.read_text())
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    place = content
    for part in parents:
        place = place[part]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    file.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("rules", ..., "rules: missing"),
        ("rules", {}, "rules: .*at least 1"),
        ("rules", [], "rules: got a list, expected a mapping"),
        ("rules.A", 3, "rules.A: got 3"),
        ("rules.A.description", None, "rules.A.description: got None"),
        ("rules.A.scores", {}, "rules.A.scores: without mIoU"),
        ("rules.A.scores.mIoU", "61", "rules.A.scores.mIoU: got '61', expected a valid number"),
        ("config", ..., "config: missing"),
        ("config", [1], "config: got a list"),
        ("seed", 1.5, "seed: got 1.5"),
        ("seed", True, "seed: got True"),
        ("seed", 10**100, "seed: got 1000"),
        ("scores.mAcc", ..., "scores: without mAcc"),
        ("groups.day", [], "groups.day: got a list"),
        ("groups.day.scores.mIoU", [], "groups.day.scores.mIoU: got a list"),
        ("per_class", "x", "per_class: got 'x'"),
        ("per_class.1.class", 7, "per_class.1.class: got 7"),
        ("per_class.1.iou", {}, "per_class.1.iou: got a dict"),
        ("per_class.1.class", "bus", "per_class lists road, bus, person, protocol.classes says road, car, person"),
        ("confusion_matrix", 3, "confusion_matrix: got 3"),
        ("confusion_matrix.0.0", -1, "confusion_matrix.0.0: got -1"),
        ("calibration", 3, "calibration: got 3"),
        ("calibration", {"bins": []}, "calibration.expected_calibration_error: missing"),
        ("calibration", {"bins": [3], "expected_calibration_error": 1.0}, "calibration.bins.0: got 3"),
        ("checkpoint_sha256", None, "checkpoint_sha256: got None"),
        ("training_processes", "1", "training_processes: got '1'"),
        ("format", "2", "format: got '2', expected a valid integer"),
        ("format", None, "format: got None"),
        ("protocol", 3, "protocol: got 3"),
        ("protocol", [], "protocol: got a list"),
        ("protocol.images", "4", "protocol.images: got '4', expected int"),
        ("protocol.classes", {}, "protocol.classes: got {}, expected tuple"),
        ("protocol.dataset", ..., "protocol does not say dataset"),
    ],
)
def test_a_field_of_the_wrong_kind_is_one_line(result, path, value, words):
    file = result("a")
    changed(file, path, value)
    with pytest.raises(UserError, match=rf"results\.json: (its )?{words}") as caught:
        compare([file])
    assert "\n" not in str(caught.value) and "val_mm.py" in str(caught.value) or path.startswith("protocol.")


def test_what_no_reader_should_follow_is_refused(result, monkeypatch):
    file = result("a")
    deep: list = []
    for _ in range(60):
        deep = [deep]
    changed(file, "config.model", deep)
    with pytest.raises(UserError, match="config: nested more than 50 levels deep"):
        compare([file])
    whole = file.read_text()
    for text, words in (
        ("[" * 100_000, "nested too deeply"),
        ('{"a": NaN}', "NaN is no number of JSON"),
        ('{"a": ' + "1" * 5000 + "}", "not a readable results.json"),
        ('{"a": "\xff"}'.encode("latin-1"), "not a readable results.json"),
    ):
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(UserError, match=rf"results\.json: .*{words}"):
            compare([file])
    file.write_text(whole.replace('"seed": 1', '"seed": 1e999'))
    with pytest.raises(UserError, match="seed: got inf"):
        compare([file])
    monkeypatch.setenv("MDG_LIMIT_JSON_BYTES", "100")
    with pytest.raises(UserError, match="--limit json_bytes="):
        compare([file])


def test_results_of_before_changes_were_noted_share_a_column(result):
    files = [result("a", 1), result("b", 2)]
    changed(files[0], "protocol.changes", ...)
    for file in files[1:]:
        changed(file, "protocol.changes", "none")
    comparison = compare(files)
    assert len(comparison.settings) == 1 and comparison.settings[0].protocol.changes == "none"
    changed(files[1], "protocol.changes", "step 3: optimizer.lr 0.1 to 0.2")
    with pytest.raises(UserError, match=r"not scored alike.*changes: step 3: optimizer.lr 0.1 to 0.2"):
        compare(files)


def test_names_that_are_not_utf8_go_through_a_comparison(result, tmp_path, capsys):
    file = result("a", config={"name": "名\udcd6", "model": {"note": "\ud800"}})
    comparison = compare([file])
    write_comparison(comparison, markdown=tmp_path / "a.md", csv_file=tmp_path / "a.csv", json_file=tmp_path / "a.json")
    assert "名".encode() + b"\xd6" in (tmp_path / "a.md").read_bytes()
    assert json.loads((tmp_path / "a.json").read_text())["rows"][0]["name"] == "名\udcd6"


def test_the_page_stands_alone_and_shows_what_the_tables_show(result):
    files = [
        result("a", config={"name": "<b>first"}),
        result("b", 2, config={"model": {"width": 9}}),
        result("c", 3, config={"model": {"width": 10}}, input_size="y"),
        result("d", 4, config={"model": {"width": 11}}, input_size="y", selection="best mIoU SELECTED ON TEST"),
    ]
    comparison = compare(files)
    page = make_page(comparison, per_class=True)
    reader = parse(page)
    text = "".join(reader.text)
    assert not {"b", "script", "link"} & set(reader.tags) and "http" not in page
    for grid in (score_grid(comparison), *[[[line.strip() for line in notes(comparison)[1:]]]]):
        for cell in (cell for row in grid for cell in row):
            assert cell.removeprefix("! no honest test: ").split(": ")[-1] in text
    pictures = [value for name, value in reader.attributes if name == "src"]
    assert len(pictures) == 1 and pictures[0].startswith("data:image/png;base64,")  # only [1] has two rows


def test_objects_scored_apart_are_columns_of_the_same_setting(result):
    """A result that has them and one that does not are of one protocol."""
    plain, apart = result("a"), result("b", 2, config={"model": {"width": 9}})
    content = json.loads(apart.read_text())
    content["groups"]["objects in RGB only"] = content["groups"]["day"]
    write_json(apart, content)
    first, second = grid_of(compare([plain, apart]))
    assert first["[1] mIoU objects in RGB only"] == "" and second["[1] mIoU objects in RGB only"]


def test_outputs_never_replace_what_is_compared_nor_each_other(result, tmp_path):
    file = result("a")
    before = file.read_bytes()
    comparison = compare([file])
    with pytest.raises(UserError, match="--json .*results.json: this is a result that is compared"):
        write_comparison(comparison, json_file=file)
    with pytest.raises(UserError, match="--csv .*: this is the file of --markdown too"):
        write_comparison(comparison, markdown=tmp_path / "x", csv_file=tmp_path / "x")
    assert file.read_bytes() == before and not (tmp_path / "x").exists()


@pytest.mark.parametrize("option", ["markdown", "csv_file", "json_file", "html"])
def test_outputs_that_cannot_be_written_are_one_line(result, tmp_path, option):
    comparison, folder = compare([result("a")]), tmp_path / "file"
    folder.write_text("")
    with pytest.raises(UserError, match="file/x.md: .*a part of the path is a file"):
        write_comparison(comparison, **{option: folder / "x.md"})
    with pytest.raises(MachineError, match="/dev/full: cannot be written"):
        write_comparison(comparison, **{option: "/dev/full"})
    with pytest.raises(UserError, match="choose a shorter name"):
        write_comparison(comparison, **{option: tmp_path / ("x" * 300)})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not a readable results.json"),
        ("[]", "not the results.json of tools/val_mm.py"),
        (
            '{"protocol": {}, "confusion_matrix": [], "checkpoint": "exp/r/best.pt", "mdg_version": "0.1"}',
            "format 1 .mdg 0.1.*evaluate its checkpoint again: tools/val_mm.py --checkpoint exp/r/best.pt",
        ),
        ('{"format": 2, "protocol": {}, "confusion_matrix": []}', "protocol does not say dataset"),
    ],
)
def test_files_that_cannot_be_compared_are_named(content, message, tmp_path):
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(UserError, match=message):
        compare([tmp_path])


def test_nothing_there(tmp_path):
    with pytest.raises(UserError, match="found no results"):
        compare([tmp_path])
    with pytest.raises(UserError, match="nothing to compare"):
        compare([])


def test_letters_go_on_after_z():
    assert [letter(place) for place in (0, 25, 26, 52, 701, 702)] == ["a", "z", "aa", "ba", "zz", "aaa"]


def test_the_tool_compares_trained_runs(tiny_run, tiny_yaml, tmp_path, repository, capsys):
    """Two seeds trained and evaluated for real, and what the tool prints and writes."""
    runs = [tiny_run(f"s{seed}", f"seed={seed}", "train.epochs=1") for seed in (1, 2)]
    scores = [evaluate(run.best, tiny_yaml, opts=["eval.pictures=0"]).evaluation.means()["mIoU"] for run in runs]
    capsys.readouterr()
    files = {kind: tmp_path / f"c.{kind}" for kind in ("markdown", "csv", "json", "html")}
    arguments = [*(str(run.path) for run in runs), "--per-class"]
    command.main(arguments + [part for k, f in files.items() for part in (f"--{k}", str(f))])
    printed = capsys.readouterr().out
    expected = f"{100 * np.mean(scores):.2f} ± {100 * np.std(scores, ddof=1):.2f}"
    assert expected in printed and "best mIoU on val" in printed and "color_cone" in printed
    assert expected in files["markdown"].read_text()
    assert json.loads(files["json"].read_text())["rows"][0]["seeds"] == [1, 2]
    assert expected in "".join(parse(files["html"].read_text()).text)
    assert files["csv"].read_text().startswith("run,seeds,[1] mIoU (all classes)")
    with pytest.raises(SystemExit):
        command.main([str(tmp_path)])
    assert capsys.readouterr().err.startswith("compare: error: ")
