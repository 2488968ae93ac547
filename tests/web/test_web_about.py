"""What the page says of its network is what the file and its run say."""

from __future__ import annotations

import json

import pytest
import yaml
from pages import parse

import mdg
from mdg.engine import evaluate, train
from mdg.web.about import describe
from tests.engine.conftest import TINY


def test_a_run_and_its_score(tmp_path):
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump({**TINY, "exp_dir": str(tmp_path / "exp")}))
    run = train(file, ["train.epochs=1"], run_dir=tmp_path / "run")
    before = describe(mdg.load(run.best, file, device="cpu"))
    assert before.scores == [] and "None lie beside these weights" in before.page()
    evaluate(run.best, file, split="test", opts=["eval.pictures=0"])
    about = describe(mdg.load(run.best, file, device="cpu"))
    result = json.loads((run.path / "results" / "test" / "results.json").read_text())
    (score,) = about.scores
    assert score.text == f"{result['scores']['mIoU']:.2f}" and "Synthetic test (5 images" in score.protocol.summary()
    assert about.dataset == "Synthetic" and about.trained_on == "Synthetic train, 7 frames"
    assert about.network == "TinySegmentor" and dict(about.facts)["runs on"] == "cpu"
    assert about.classes[:2] == [("unlabeled", "#000000"), ("car", "#400080")]
    text = " ".join(parse(about.page()).text)
    assert score.text in text and "guardrail" in text and mdg.__version__ in text


def test_weights_alone(tiny):
    about = describe(tiny)
    assert about.trained_on == "not known" and about.dataset == "Synthetic" and about.scores == []
    assert dict(about.facts)["chosen by"] == "mIoU 25.00 on the selection split"


def test_hostile_names_stay_text(tiny):
    about = describe(tiny)._replace(classes=[("<script>alert(1)</script>", "#000000")])
    page = parse(about.page())
    assert "script" not in page.tags and "<script>alert(1)</script>" in " ".join(page.text)


@pytest.mark.parametrize("part", ["results", "results/test"])
def test_results_of_other_weights_are_not_shown(tiny_checkpoint, tmp_path, part):
    folder, config = tmp_path / "run", tiny_checkpoint.with_name("config.yaml")
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "best.pt").write_bytes(tiny_checkpoint.read_bytes())
    (folder / part).mkdir(parents=True)
    if part != "results":
        (folder / part / "results.json").write_text("{}")
    assert describe(mdg.load(folder / "checkpoints" / "best.pt", config, device="cpu")).scores == []
