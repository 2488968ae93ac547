"""Scores of given weights: of the results in their run and of what exported weights tell."""

from __future__ import annotations

import os

import pytest

from mdg.engine.evaluation.known_scores import known_scores, results_of
from mdg.utils.files import file_sha256, write_json
from tests.support.invented_results import invented_result, protocol


@pytest.fixture
def checkpoint(tmp_path):
    file = tmp_path / "run" / "checkpoints" / "best.pt"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"weights")
    return file


def write_result(checkpoint, folder: str, *, age: int, sha256: str | None = None, miou="as counted", **changes) -> None:
    content = invented_result("net", **changes)
    content["checkpoint_sha256"] = sha256 or file_sha256(checkpoint)
    if miou != "as counted":
        content["scores"]["mIoU"] = miou
    file = checkpoint.parent.parent / "results" / folder / "results.json"
    write_json(file, content)
    os.utime(file, (1e9 - age, 1e9 - age))


def told(miou, **changes) -> dict:
    return {"protocol": protocol(epoch=1, **changes).as_dict(), "scores": {"mIoU": miou}}


def test_the_newest_of_every_protocol_and_tests_first(checkpoint):
    write_result(checkpoint, "val", age=1, role="val", miou=61.704)
    write_result(checkpoint, "val-2", age=9, role="val", miou=1.0)
    write_result(checkpoint, "test", age=5, role="test", miou=50.0)
    found = known_scores({}, checkpoint)
    assert [(score.protocol.role, score.text) for score in found] == [("test", "50.00"), ("val", "61.70")]


def test_results_of_other_weights_do_not_count(checkpoint):
    write_result(checkpoint, "test", age=1, role="test", sha256="another")
    write_json(checkpoint.parent.parent / "results" / "val" / "results.json", {})
    assert known_scores({}, checkpoint) == [] == results_of(None, "another")


def test_what_the_file_tells_stands_until_it_is_measured_again(checkpoint):
    state = {"scores": [told(40.0, role="test"), told(30, role="val")]}
    assert [score.miou for score in known_scores(state, checkpoint)] == [40.0, 30.0]
    write_result(checkpoint, "test", age=1, role="test", miou=41.0)
    assert [score.miou for score in known_scores(state, checkpoint)] == [41.0, 30.0]


def test_a_score_that_does_not_exist_is_said_so(checkpoint):
    write_result(checkpoint, "test", age=1, role="test", miou=None)
    (score,) = known_scores({}, checkpoint)
    assert score.miou is None and score.text == "n/a"


@pytest.mark.parametrize("entry", [{}, {"protocol": {}}, told("high", role="test"), told([1], role="test"), None])
def test_what_another_version_told_is_left_out(checkpoint, entry):
    assert known_scores({"scores": [entry]}, checkpoint) == []
