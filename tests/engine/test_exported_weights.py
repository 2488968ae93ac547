"""Weights that are passed on: what they hold, what they keep to themselves, and that they score as before."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from mdg.commands.export_weights import main
from mdg.engine import evaluate
from mdg.engine.checkpoint import load_checkpoint, save_checkpoint
from mdg.engine.evaluation.provenance import overlap, pseudonym
from mdg.engine.export import export_weights
from mdg.engine.slim_file import read_slim, rounded, write_slim
from mdg.errors import ConfigError, UserError, WeightsError
from mdg.utils.run_directory import RunDirectory
from tests.engine.conftest import write_tiny

NO_PICTURES = ["eval.pictures=0"]


@pytest.fixture(scope="module")
def scored(two_epochs, tmp_path_factory) -> RunDirectory:
    """A finished run with scores on test; only to be read."""
    folder = tmp_path_factory.mktemp("scored")
    done = RunDirectory(shutil.copytree(two_epochs.path, folder / "run"))
    evaluate(done.best, write_tiny(folder), opts=NO_PICTURES)
    return done


@pytest.fixture
def run(scored, tmp_path) -> RunDirectory:
    """A finished run with scores on test."""
    return RunDirectory(shutil.copytree(scored.path, tmp_path / "first"))


def test_the_score_is_that_of_the_run(run, tiny_yaml, tmp_path):
    done = export_weights(run.path)
    assert done.file == run.path / "export" / "tiny.safetensors" and done.size == done.file.stat().st_size
    before, after = (
        evaluate(file, tiny_yaml, opts=NO_PICTURES, out_dir=tmp_path / name)
        for file, name in ((run.best, "before"), (done.file, "after"))
    )
    assert np.array_equal(before.evaluation.confusion.counts, after.evaluation.confusion.counts)
    assert before.protocol == after.protocol
    card = done.card.read_text()
    scores = done.results[0].content["scores"]
    assert before.protocol.summary() in card and f"| mIoU | {scores['mIoU']:.2f} |" in card
    assert done.sha256 in card and "| 1 | car | #400080 |" in card


def test_nothing_else_is_told(run, tmp_path):
    """No optimizer, no frame by name, no path of this machine; the frames are recognised all the same."""
    state = load_checkpoint(run.best)
    state["config"] += "\n# a comment\n"
    state["config"] = state["config"].replace("  height:", f"  root: {tmp_path}/secret/MFNet\n  height:", 1)
    save_checkpoint(tmp_path / "checkpoints" / "best.pt", state)
    done = export_weights(tmp_path / "checkpoints" / "best.pt")
    told = done.file.read_bytes() + done.card.read_bytes() + (done.file.parent / "config.yaml").read_bytes()
    assert str(tmp_path).encode() not in told and b"data/MFNet" in told
    names = state["trained_on"]["identities"]
    assert len(names) == 7 and not any(f'"{name}"'.encode() in told for name in names)
    slim = load_checkpoint(done.file)
    assert "optimizer" not in slim and slim["trained_on"]["identities"] == [pseudonym(name) for name in names]
    named = export_weights(tmp_path / "checkpoints" / "best.pt", tmp_path / "named", frame_names=True)
    assert load_checkpoint(named.file)["trained_on"] == state["trained_on"]


def test_frames_are_recognised_by_pseudonyms(run, tiny_yaml):
    done = export_weights(run.path)
    leaked = evaluate(done.file, tiny_yaml, split="train", opts=NO_PICTURES).protocol
    assert "TRAINED ON 7 of the 7 scored frames" in leaked.trained_on

    class Frames:
        dataset_name = "Synthetic"

        def identities(self):
            return ["a", "b"]

    assert overlap({"dataset": "Synthetic", "identities": [pseudonym("a"), "c"]}, Frames()) == (1, 2)


def test_bf16_rounds_matrices_and_says_so(run, tiny_yaml):
    done = export_weights(run.path, precision="bf16")
    kept, stored = load_checkpoint(run.best)["model"], load_file(done.file)
    for name, value in stored.items():
        matrix = value.is_floating_point() and value.dim() > 1
        assert value.dtype == (torch.bfloat16 if matrix else kept[name].dtype)
        assert torch.equal(value, kept[name].bfloat16() if matrix else kept[name])
    assert all(value.dtype != torch.bfloat16 for value in load_checkpoint(done.file)["model"].values())
    protocol = evaluate(done.file, tiny_yaml, opts=NO_PICTURES).protocol
    assert protocol.weights == "raw rounded to bf16"
    assert "Measured before the weights were rounded to bf16" in done.card.read_text()


def test_what_the_scan_takes_exponentials_of_is_not_rounded():
    given = {
        "A_log": torch.rand(3, 4),
        "x.A_log": torch.rand(3, 4),
        "w": torch.rand(3, 4),
        "n": torch.ones(2, 2).long(),
    }
    kinds = {name: value.dtype for name, value in rounded(given).items()}
    assert kinds == {"A_log": torch.float32, "x.A_log": torch.float32, "w": torch.bfloat16, "n": torch.int64}


def test_the_moving_average_is_what_is_passed_on(tiny_run, tiny_yaml):
    run = tiny_run("ema", "train.epochs=1", "train.ema_decay=0.9")
    state, done = load_checkpoint(run.last), export_weights(run.last)
    assert set(load_file(done.file)) == set(state["model"])
    assert any(not torch.equal(value, state["model"][name]) for name, value in load_file(done.file).items())
    one, other = (evaluate(file, tiny_yaml, opts=NO_PICTURES) for file in (run.last, done.file))
    assert (
        np.array_equal(one.evaluation.confusion.counts, other.evaluation.confusion.counts)
        and one.protocol == other.protocol
    )
    assert one.protocol.weights == "ema 0.9"


def test_a_run_starts_from_it_and_does_not_resume_from_it(run, tiny_run):
    done = export_weights(run.path)
    second = tiny_run("second", f"train.init_from={done.file}", "train.epochs=1")
    assert load_checkpoint(second.last)["ancestors"][0]["identities"][0].startswith("#")
    with pytest.raises(WeightsError, match="no whole checkpoint to resume from"):
        load_checkpoint(done.file, training=True)


def test_scores_of_other_weights_are_not_told(run, tiny_yaml, tmp_path):
    assert len(export_weights(run.path).results) == 1
    done = export_weights(run.last, tmp_path / "last")
    assert not done.results and "None were measured" in done.card.read_text()
    (run.path / "results" / "test" / "results.json").write_text("{")
    assert not export_weights(run.path).results


def test_every_changed_byte_is_noticed(run, tmp_path):
    content = bytearray(export_weights(run.path).file.read_bytes())
    length = int.from_bytes(content[:8], "little")
    places = [*range(8 + length, len(content), max(1, (len(content) - length) // 40))]
    text = content.index(b'"mdg":')
    places += range(text + 8, text + 400, 7)
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 1
        (tmp_path / "damaged.safetensors").write_bytes(damaged)
        with pytest.raises(UserError):
            load_checkpoint(tmp_path / "damaged.safetensors")
    (tmp_path / "damaged.safetensors").write_bytes(content[:-10])
    with pytest.raises(WeightsError, match="not a readable .safetensors file"):
        load_checkpoint(tmp_path / "damaged.safetensors")


def test_other_files_of_tensors(tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match="tensors without a description of mdg; expected a checkpoint"):
        load_checkpoint(tmp_path / "a.safetensors")
    write_slim(tmp_path / "b.safetensors", {"format": 1, "classes": []}, {"a": torch.ones(2)})
    with pytest.raises(WeightsError, match="b.safetensors: config: missing"):
        load_checkpoint(tmp_path / "b.safetensors")
    write_slim(tmp_path / "c.safetensors", {"format": 9}, {"a": torch.ones(2)})
    with pytest.raises(WeightsError, match="checkpoint format 9"):
        load_checkpoint(tmp_path / "c.safetensors")


def test_a_view_is_written_as_what_it_shows(tmp_path):
    whole = torch.arange(12.0).view(3, 4)
    write_slim(tmp_path / "a.safetensors", {}, {"t": whole.t(), "row": whole[1], "none": torch.empty(0, 3)})
    found = read_slim(tmp_path / "a.safetensors")["model"]
    assert torch.equal(found["t"], whole.t()) and torch.equal(found["row"], whole[1]) and found["none"].shape == (0, 3)


def test_the_tool(run, tmp_path, capsys):
    main([str(run.path), "--out", str(tmp_path / "out"), "--name", "mine"])
    printed = capsys.readouterr().out
    assert "mine.safetensors: " in printed and "Synthetic test: mIoU" in printed
    header = (tmp_path / "out" / "mine.safetensors").read_bytes()
    text = json.loads(header[8 : 8 + int.from_bytes(header[:8], "little")])["__metadata__"]["mdg"]
    assert json.loads(text)["scores"][0]["protocol"]["dataset"] == "Synthetic"


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("", {}, "expected a run directory with checkpoints/best.pt"),
        ("none.pt", {}, "no such file of weights"),
        ("run", {"name": "a/b"}, "expected the name of a file, without a folder"),
        ("run", {"precision": "int8"}, "expected fp32 or bf16"),
    ],
)
def test_what_cannot_be_passed_on(tiny_run, tmp_path, source, options, message):
    run = tiny_run("run", "train.epochs=1") if source == "run" else None
    with pytest.raises((ConfigError, WeightsError), match=message):
        export_weights(run.path if run else tmp_path / source, tmp_path / "out", **options)
