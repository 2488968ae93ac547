"""Tri-training of three architectures: what flows where, a run and its checkpoints, resume, processes."""

from __future__ import annotations

import copy
import json

import pytest
import torch
import torch.nn.functional as F
import yaml
from commands import REPOSITORY, shell
from half_labelled import half_labelled
from torch import nn

from mdg.config import load_config
from mdg.engine import evaluate, train
from mdg.engine.checkpoint import load_checkpoint
from mdg.engine.methods import Images
from mdg.engine.methods.architectures import ThreeArchitectures
from mdg.errors import ConfigError, WeightsError
from mdg.losses import Objective
from mdg.losses.pseudo_labels import resize_affinity, row_divergence
from mdg.models import build_model
from mdg.models.backbones.attention_scores import last_attention
from mdg.registry import METHODS
from tests.engine.conftest import TINY

timm = pytest.importorskip("timm", reason="timm is not installed")
DECODER = {"type": "DualFrequencyDecoder", "level_widths": [8, 8, 8, 8], "embed_dim": 8, "dropout": 0.0}


def network(**backbone) -> dict:
    return {"type": "SingleStream", "input": "rgb", "backbone": backbone, "decoder": DECODER}


STUDENT = network(type="Timm", name="tiny_vit_5m_224", global_last_block=True)
CNN = network(type="Timm", name="resnet10t")  # a stem of three convolutions
VIT = network(type="PlainViT", name="vit_tiny_patch16_224", blocks=[1, 2, 3, 4], width=8)
METHOD = {"type": "ArchitectureTriTraining", "cnn_view": CNN, "vit_view": VIT}
SETTINGS = {
    **TINY,
    "custom_imports": [],
    "model": STUDENT,
    "loss": [{"type": "OhemCrossEntropy", "min_kept": 0.38}],
    "optimizer": {"type": "SGD", "lr": 1e-3},
    "data": {**TINY["data"], "train_images": 8, "labelled": {"fraction": "1/4"}},
    "train": {"epochs": 1, "batch_size": 2, "method": METHOD},
}
VIEWS = ("student", "cnn", "vit")


def settings_in(folder, **changes):
    file = folder / "semi.yaml"
    file.write_text(yaml.safe_dump({**SETTINGS, "exp_dir": str(folder), **changes}))
    return file


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A configuration, a learner with nothing drawn at random and statistics as they are, images of which half have a
    label, and the objective."""
    config = load_config(settings_in(tmp_path_factory.mktemp("start")))
    torch.manual_seed(0)
    method = METHODS.create(config.train.method, config=config, num_classes=9)
    learner = method.learner(build_model(config.model, 9)).train()
    for module in learner.modules():
        if isinstance(module, (nn.Dropout, nn.Dropout2d, nn.BatchNorm2d)):
            module.eval()
    objective = Objective(config.loss, config.auxiliary_loss, num_classes=9, ignore_index=255)
    return config, learner, half_labelled(64), objective


def losses(start, images: Images | None = None, **changes):
    """Loss and terms of the method with other options."""
    config, learner, given, objective = start
    method = METHODS.create({**METHOD, **changes}, config=config, num_classes=9)
    learner = copy.copy(learner)  # maps that are not learnt are not made
    learner._modules = dict(learner._modules)
    if not method.low_weight:
        learner.projection = None
    if not method.high_weight:
        learner.heads = None
    return method.loss(learner, images or given, objective, 1.0)


def gradients(value: torch.Tensor, module: nn.Module) -> dict[str, torch.Tensor]:
    module.zero_grad()
    value.backward()
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


APART = {"cps_weight": 0, "low_weight": 0, "high_weight": 0}


def test_without_its_terms_it_is_three_networks_each_with_its_own_loss(start):
    """Hard pixels alone for the student and the convolutional view, all of them for the transformer."""
    _, learner, images, objective = start
    found = gradients(losses(start, **APART)[0], learner)
    expected = {}
    for name in VIEWS:
        part = learner.get_submodule(name)
        logits = part(images.rgb_B3HW, None).logits[:2]
        plain = F.cross_entropy(logits, images.label_BHW[:2])
        value = plain if name == "vit" else objective.terms[0](logits, images.label_BHW[:2])
        expected |= {f"{name}.{own}": gradient for own, gradient in gradients(value, part).items()}
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        if name.startswith("vit."):  # the mean is taken another way
            torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-7)
        else:
            assert torch.equal(found[name], gradient), name


def test_each_learns_from_both_others_and_from_nobodys_padding(start):
    """By hand: six cross-entropies with the arg-max of another one, the mean over what was seen; no gradient flows to
    whoever gave the class."""
    _, learner, images, _ = start
    label = images.label_BHW.clone()
    label[:2] = 255  # nothing is learnt from labels
    label[2:, 20:] = 255  # below is padding
    found = gradients(losses(start, images._replace(label_BHW=label), **{**APART, "cps_weight": 0.1})[0], learner)
    logits = [learner.get_submodule(name)(images.rgb_B3HW, None).logits[2:, :, :20] for name in VIEWS]
    classes = [one.detach().argmax(1) for one in logits]
    for own, name in enumerate(VIEWS):
        others = [classes[other] for other in range(3) if other != own]
        value = 0.1 * sum(F.cross_entropy(logits[own], other) for other in others)
        for path, gradient in gradients(value, learner.get_submodule(name)).items():
            torch.testing.assert_close(found[f"{name}.{path}"], gradient, rtol=1e-3, atol=1e-6)
    label[2:] = 255
    value, terms = losses(start, images._replace(label_BHW=label), **{**APART, "cps_weight": 0.1})
    assert value == 0 == terms["cps"] and terms["agree_cnn"] == 0


def test_teachers_teach_maps_and_do_not_learn_from_them(start):
    _, learner, images, _ = start
    label = torch.full_like(images.label_BHW, 255)
    for term, own, theirs in (("low", "projection.weight", "cnn."), ("high", "heads.weight", "vit.")):
        weights = {**APART, f"{term}_weight": 1.0}
        value, terms = losses(start, images._replace(label_BHW=label), **weights)
        assert terms[term] == value > 0
        found = gradients(value, learner)
        assert found[own].any() and any(g.any() for name, g in found.items() if name.startswith("student."))
        assert not any(g.any() for name, g in found.items() if name.startswith(("cnn.", "vit."))), theirs


def test_maps_and_scores_are_those_of_the_passes_and_weigh_as_told(start):
    _, learner, images, _ = start
    with torch.no_grad():
        with last_attention(learner.vit.backbone) as theirs:
            learner.vit(images.rgb_B3HW, None)
        student = learner.student(images.rgb_B3HW, None)
        cnn = learner.cnn(images.rgb_B3HW, None)
        output = learner(images.rgb_B3HW, images.thermal_B1HW)
        torch.testing.assert_close(output.low_BhwC, learner.projection(student.maps[0][0]))
        assert output.low_BhwC.shape == cnn.maps[0][0].shape == (4, 16, 16, 64)
        own, other = output.high
        assert own.shape == other.shape == (4 * 3, 16, 16)  # heads of the ViT; 2x2 positions became 4x4
        torch.testing.assert_close(other, theirs.logits_BhNN.flatten(0, 1))
        plain, terms = losses(start, low_weight=0, high_weight=0)
        total, more = losses(start, low_weight=0.9, high_weight=0.5)
        low, high = F.mse_loss(output.low_BhwC, cnn.maps[0][0]), row_divergence(own, other)
        torch.testing.assert_close(more["low"], low)
        torch.testing.assert_close(total, plain + 0.9 * low + 0.5 * high)
    assert set(more) - set(terms) == {"low", "high"}


def test_an_affinity_is_resized_in_both_of_its_grids(draw):
    """As the queries and the keys themselves; a picture of the matrix would be another one."""
    q, k = draw(2, 5, 3, 4, seed=1), draw(2, 5, 3, 4, seed=2)  # A C h w
    scores = torch.einsum("achw,acxy->ahwxy", q, k).reshape(2, 12, 12)
    wide = [F.interpolate(x, (6, 8), mode="bilinear", align_corners=False).flatten(2) for x in (q, k)]
    found = resize_affinity(scores, (3, 4), (6, 8))
    torch.testing.assert_close(found, wide[0].transpose(1, 2) @ wide[1], rtol=1e-4, atol=1e-5)
    picture = F.interpolate(scores[None], (48, 48), mode="bilinear", align_corners=False)[0]
    assert (found - picture).abs().max() > 0.1
    assert torch.equal(resize_affinity(scores, (3, 4), (3, 4)), scores)


def test_divergence_of_rows_by_hand(draw):
    learner, teacher = draw(2, 3, 5, seed=1).requires_grad_(), draw(2, 3, 5, seed=2).requires_grad_()
    own, other = learner.detach().double().softmax(-1), teacher.detach().double().softmax(-1)
    value = row_divergence(learner, teacher)
    assert value.item() == pytest.approx((other * (other / own).log()).sum().item() / 6, rel=1e-5)
    value.backward()
    assert learner.grad.any() and teacher.grad is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": "MDG"}, "needs a network of one encoder"),
        ({"method": {"cnn_view": {"type": "SingleStream", "input": "thermal"}}}, "cnn_view: expected a network"),
        ({"model": {**STUDENT, "backbone": {**STUDENT["backbone"], "global_last_block": False}}}, "inside of windows"),
        ({"method": {"vit_view": CNN}}, "resnet10t: its last block has no attention"),
        ({"train": {"compile": True}}, "train.compile: the scores of an attention"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_sentence(changes, words, tmp_path):
    method = {**METHOD, **changes.get("method", {})}
    changed = {"train": {**SETTINGS["train"], **changes.get("train", {}), "method": method}}
    file = settings_in(tmp_path, model=changes.get("model", STUDENT), **changed)
    with pytest.raises(ConfigError, match=words):
        train(file, run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_teachers_start_from_weights_of_their_own(start, tmp_path):
    """Where files are named; what continues a run needs none of them."""
    config = start[0]
    torch.manual_seed(5)
    weights = timm.create_model("resnet10t").state_dict()
    torch.save(weights, tmp_path / "resnet10t.pth")
    given = {**METHOD, "cnn_view": {**CNN, "pretrained": str(tmp_path / "resnet10t.pth")}}
    method = METHODS.create(given, config=config, num_classes=9)
    learner = method.learner(build_model(config.model, 9))
    assert any(torch.equal(value, weights["conv1.0.weight"]) for value in learner.cnn.backbone.state_dict().values())
    (tmp_path / "resnet10t.pth").unlink()
    key = "train.method.cnn_view.pretrained"
    with pytest.raises(WeightsError, match=rf"\({key}\).*{key}=null"):
        method.learner(build_model(config.model, 9))
    assert isinstance(method.learner(build_model(config.model, 9), load_pretrained=False), ThreeArchitectures)


@pytest.mark.parametrize(
    ("size", "encoder", "heads", "low"),
    [
        ("11m", 10.55, 14, 0.9),
        pytest.param("21m", 20.69, 18, 0.5, marks=pytest.mark.slow),  # indices of windows of 32x32 are built in Python
    ],
)
def test_what_is_shipped_is_the_published_recipe(size, encoder, heads, low):
    """Of every split; parameters in millions, as docs/few_labels.md has them."""
    configs = {split: load_config(f"configs/cityscapes/{split}_trivn_{size}.yaml") for split in SPLITS}
    for split, config in configs.items():
        assert round(2975 * config.data.labelled.fraction) == SPLITS[split]
        same = {"name", "data"}
        assert config.model_dump(exclude=same) == configs["1_16"].model_dump(exclude=same)
    train, optimizer, evaluation = config.train, config.optimizer, config.eval
    assert (train.epochs, train.batch_size, train.sync_batchnorm) == (300, 2, True)
    assert (optimizer.lr, optimizer.momentum, optimizer.weight_decay) == (5e-3, 0.9, 1e-4)
    assert (config.schedule.type, config.schedule.power, config.schedule.warmup_epochs) == ("Poly", 0.9, 0)
    assert (evaluation.selection, evaluation.window, evaluation.stride) == ("last", (512, 512), (341, 341))
    assert config.pipeline.train[-1].size == (512, 512) and config.loss[0].threshold == 0.7
    assert 0 <= config.loss[0].min_kept * 2 * 512 * 512 - 200_000 < 50
    method = METHODS.create(train.method, config=config, num_classes=19)
    assert (method.cps_weight, method.low_weight, method.high_weight, method.label_weights) == (0.1, low, 0.5, (1, 1))
    with torch.device("meta"):
        learner = method.learner(build_model(config.model, 19, load_pretrained=False), load_pretrained=False)
    counts = [count(learner.student.backbone), count(learner.cnn), count(learner.vit)]
    assert counts == [encoder, 71.61, 101.18]
    assert learner.strides == (32, 16) and learner.heads.weight.shape == (12, heads, 1, 1)
    assert learner.projection.out_features == 256


SPLITS = {"1_30": 100, "1_16": 186, "1_8": 372, "1_4": 744, "1_2": 1488}


def count(module: nn.Module) -> float:
    return round(sum(p.numel() for p in module.parameters()) / 1e6, 2)


# --- runs --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Three steps, and the configuration."""
    folder = tmp_path_factory.mktemp("run")
    file = settings_in(folder)
    return train(file, run_dir=folder / "run"), file


def test_a_run_goes_on_bit_for_bit(run, tmp_path):
    whole, file = run
    train(file, ["train.max_steps=2"], run_dir=tmp_path / "run")
    train(file, resume=tmp_path / "run")
    one, other = (load_checkpoint(r / "checkpoints" / "last.pt", training=True) for r in (whole.path, tmp_path / "run"))
    assert one["model"].keys() == other["model"].keys()
    assert all(torch.equal(value, other["model"][name]) for name, value in one["model"].items())
    moments = one["optimizer"]["state"]
    assert moments
    for place, kept in moments.items():
        assert torch.equal(kept["momentum_buffer"], other["optimizer"]["state"][place]["momentum_buffer"])


def test_best_holds_the_student_and_last_all(run):
    whole, file = run
    names = set(build_model(load_config(file).model, 9).state_dict())
    best, last = (load_checkpoint(whole.path / "checkpoints" / f"{name}.pt") for name in ("best", "last"))
    assert set(best["model"]) == names
    tops = {name.partition(".")[0] for name in last["model"]}
    assert tops == {*VIEWS, "projection", "heads"}
    scores = [evaluate(whole.path / "checkpoints" / f"{name}.pt", split="val") for name in ("best", "last")]
    assert torch.equal(*(torch.as_tensor(score.evaluation.confusion.counts) for score in scores))
    assert "1/4 (seed 0) with labels (2 frames" in scores[0].protocol.trained_on
    records = [json.loads(line) for line in whole.metrics.read_text().splitlines()]
    assert {record["view"] for record in records if record["kind"] == "view"} == {"cnn", "vit"}
    rates = {group["lr"] for group in load_checkpoint(whole.last, training=True)["optimizer"]["param_groups"]}
    assert len(rates) == 1  # one schedule for all


@pytest.mark.slow  # two launches
def test_two_processes_are_one_with_twice_the_batch(tmp_path):
    """Where means are over pixels and BatchNorm keeps its statistics: the same images, shared out."""
    changes = {
        "loss": [{"type": "CrossEntropy"}],
        "pipeline": {"train": [], "workers": 0},
        "data": {**SETTINGS["data"], "train_images": 16},
        "schedule": {"type": "Constant", "warmup_epochs": 0},
        "train": {
            **SETTINGS["train"],
            "epochs": 2,
            "max_steps": 3,
            "channels_last": False,
            "method": {**METHOD, "cps_weight": 1},
        },
    }
    config = load_config(settings_in(tmp_path, **changes))
    learner = METHODS.create(config.train.method, config=config, num_classes=9).learner(build_model(config.model, 9))
    norms = [name for name, module in learner.named_modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) > 30
    changes["train"]["freeze"] = norms
    weights, file = [], settings_in(tmp_path, **changes)
    for processes, batch in (("1", 2), ("2", 1)):
        run = tmp_path / processes
        command = ["bash", REPOSITORY / "tools" / "train_ddp.sh", file, "--run-dir", run, "--opts"]
        done = shell(*command, f"train.batch_size={batch}", NPROC=processes)
        assert done.returncode == 0, done.stderr
        weights.append(load_checkpoint(run / "checkpoints" / "last.pt")["model"])
    for name, one in weights[0].items():
        torch.testing.assert_close(one, weights[1][name], rtol=1e-3, atol=2e-5, msg=name)
