"""Starting from the weights of another run: which tensors are taken, and what the protocol says of it later."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mdg.engine import evaluate
from mdg.engine.checkpoint import load_checkpoint, save_checkpoint
from mdg.engine.start import fit_tensors
from mdg.errors import NonFiniteError, WeightsError


class Net(nn.Module):
    """A stem, and a classifier of so many classes."""

    def __init__(self, classes: int, channels: int = 1):
        super().__init__()
        self.stem = nn.Conv2d(channels, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.classifier = nn.Conv2d(4, classes, 1)


def test_tensors_that_fit_are_taken():
    one, other = Net(3), Net(3)
    other.norm.num_batches_tracked += 7
    fit = fit_tensors(one, other.state_dict(), ["a", "b", "c"], ["a", "b", "c"])
    assert not fit.fresh and not fit.mapped and not fit.unused and len(fit.taken) == len(one.state_dict())
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name])


def test_classifiers_are_mapped_by_the_names_of_classes():
    """Person moves from row 2 to row 0, road keeps none, and dog is new."""
    one, other = Net(3), Net(3)
    before = one.classifier.weight.clone()
    fit = fit_tensors(one, other.state_dict(), ["road", "car", "person"], ["person", "dog", "car"])
    assert fit.mapped == ["classifier.weight", "classifier.bias"] and "stem.weight" in fit.taken
    for new, old in ((0, 2), (2, 1)):
        assert torch.equal(one.classifier.weight[new], other.classifier.weight[old])
        assert torch.equal(one.classifier.bias[new], other.classifier.bias[old])
    assert torch.equal(one.classifier.weight[1], before[1])


def test_another_number_of_classes():
    one, other = Net(2), Net(3)
    fit_tensors(one, other.state_dict(), ["road", "car", "person"], ["person", "car"])
    assert torch.equal(one.classifier.bias, other.classifier.bias[[2, 1]])


def test_what_does_not_fit_stays_and_says_why():
    one, other = Net(3, channels=1), Net(3, channels=3)
    given = {**other.state_dict(), "more": torch.zeros(1), "norm.num_batches_tracked": torch.tensor(1.5)}
    del given["norm.bias"]
    before = one.stem.weight.clone()
    fit = fit_tensors(one, given, ["a", "b", "c"], ["a", "b", "c"])
    assert fit.fresh == {
        "stem.weight": "(4, 3, 3, 3) there, (4, 1, 3, 3) here",
        "norm.bias": "not in the checkpoint",
        "norm.num_batches_tracked": "torch.float32 there, torch.int64 here",
    }
    assert fit.unused == ["more"] and torch.equal(one.stem.weight, before)


def test_a_run_starts_from_another_one(tiny_run, tiny_yaml, capsys):
    """At a rate of next to nothing the weights are those it started from; the protocol names what trained those."""
    first = tiny_run("first", "train.epochs=2")
    second = tiny_run("second", f"train.init_from={first.best}", "train.epochs=1", "optimizer.lr=1e-12", "data.seed=5")
    assert f"started from {first.best}: " in capsys.readouterr().out
    old, new = load_checkpoint(first.best), load_checkpoint(second.last, training=True)
    learned = [name for name, value in old["model"].items() if value.is_floating_point() and "running" not in name]
    assert learned
    for name in learned:
        torch.testing.assert_close(old["model"][name], new["model"][name], rtol=0, atol=1e-9)
    assert [frames["role"] for frames in new["ancestors"]] == ["train", "val"]
    protocol = evaluate(second.best, tiny_yaml, opts=["data.seed=5", "eval.pictures=0"]).protocol
    assert "; started from weights of train (7 frames, " in protocol.trained_on and not protocol.warnings()
    # The frames that trained the first run are named where they are scored.
    leaked = evaluate(second.best, tiny_yaml, split="train", opts=["eval.pictures=0"]).protocol
    assert "TRAINED ON 7 of the 7 scored frames" in leaked.trained_on.partition("started from")[2] and leaked.warnings()
    third = tiny_run("third", f"train.init_from={second.best}", "train.epochs=1", "data.seed=6")
    assert len(load_checkpoint(third.best)["ancestors"]) == 4


def test_a_resume_does_not_start_again(tiny_run, tmp_path):
    first = tiny_run("first", "train.epochs=1")
    start = f"train.init_from={first.best}"
    straight = tiny_run("straight", start, "train.epochs=3")
    tiny_run("stopped", start, "train.epochs=3", "train.stop_epoch=1")
    first.best.unlink()
    resumed = tiny_run("stopped", start, "train.epochs=3", resume=True)
    one, other = (load_checkpoint(run.last, training=True) for run in (straight, resumed))
    assert all(torch.equal(value, other["model"][name]) for name, value in one["model"].items())
    assert one["ancestors"] == other["ancestors"] != []


def test_nothing_that_fits_is_an_error(tiny_run, tmp_path):
    first = tiny_run("first", "train.epochs=1")
    state = load_checkpoint(first.best)
    save_checkpoint(tmp_path / "other.pt", {**state, "model": {"x": torch.zeros(3)}})
    with pytest.raises(WeightsError, match=r"train.init_from .*other.pt: none of its 1 tensors fits the network"):
        tiny_run("second", f"train.init_from={tmp_path / 'other.pt'}")
    with pytest.raises(WeightsError, match=r"othr.pt: no such file of weights.* Did you mean 'other.pt'"):
        tiny_run("third", f"train.init_from={tmp_path / 'othr.pt'}")


def test_weights_that_are_not_finite_are_refused(tiny_run, tmp_path, monkeypatch):
    first = tiny_run("first", "train.epochs=1")
    state = load_checkpoint(first.best)
    name = next(name for name, value in state["model"].items() if value.is_floating_point())
    state["model"][name].fill_(torch.nan)
    monkeypatch.setattr("mdg.engine.start.load_checkpoint", lambda file: state)
    with pytest.raises(NonFiniteError, match=f"{name} holds NaN or infinity"):
        tiny_run("second", f"train.init_from={first.best}")
