"""Methods of training that learn from images without labels: their losses, what is kept of them, resume, processes."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import yaml
from commands import REPOSITORY, shell
from half_labelled import half_labelled
from torch import nn

import mdg
from mdg.config import load_config
from mdg.engine import evaluate, train
from mdg.engine.checkpoint import load_checkpoint
from mdg.engine.methods import MeanTeacher, TriTraining
from mdg.engine.methods.mean_teacher import StudentAndTeacher
from mdg.engine.methods.strong_weak import draw_boxes, evaluating, mixed, stronger
from mdg.engine.methods.tri_training import StreamHead, ThreeViews
from mdg.errors import ConfigError
from mdg.losses import Objective
from mdg.models import build_model
from mdg.registry import METHODS
from tests.engine.conftest import TINY

pytestmark = pytest.mark.usefixtures("shallow")  # what is learnt from does not ask for depth

MODEL = {
    "type": "MDG",
    "rgb_backbone": {"type": "MixTransformer", "variant": "b0", "drop_path_rate": 0.0},
    "thermal_backbone": {"type": "MixTransformer", "variant": "b0", "drop_path_rate": 0.0},
    "interaction": None,
    "fusion": {"type": "AddFusion"},
    "decoder": {"type": "SegFormerDecoder", "embed_dim": 16},
    "auxiliary_heads": False,
}
SETTINGS = {
    **TINY,
    "custom_imports": [],
    "model": MODEL,
    "optimizer": {"type": "AdamW", "lr": 1e-3},
    "data": {**TINY["data"], "train_images": 8, "labelled": {"fraction": "1/4"}},
    "train": {"epochs": 1, "batch_size": 2},
}


@pytest.fixture
def semi_yaml(tmp_path):
    """Two images with labels and six without; three steps an epoch."""
    file = tmp_path / "semi.yaml"
    file.write_text(yaml.safe_dump({**SETTINGS, "exp_dir": str(tmp_path / "exp")}))
    return file


def made(semi_yaml, method: str, *opts: str):
    """A method, its learner in evaluation mode, images of which half have a label, and the objective."""
    config = load_config(semi_yaml, [f"train.method={method}", *opts])
    chosen = METHODS.create(config.train.method, config=config, num_classes=9)
    torch.manual_seed(0)
    learner = chosen.learner(build_model(config.model, 9)).eval()
    objective = Objective(config.loss, config.auxiliary_loss, num_classes=9, ignore_index=255)
    return chosen, learner, half_labelled(32), objective


def in_training(learner: nn.Module) -> nn.Module:
    """So that maps are given out, with nothing drawn at random and statistics as they are."""
    learner.train()
    for module in learner.modules():
        if isinstance(module, (nn.Dropout, nn.BatchNorm2d)):
            module.eval()
    return learner


def gradients(value: torch.Tensor, module: nn.Module) -> dict[str, torch.Tensor]:
    module.zero_grad()
    value.backward()
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


# --- tri-training ------------------------------------------------------------------------------------------------


def test_without_its_terms_it_is_three_networks_that_learn_from_labels(semi_yaml):
    method, learner, images, objective = made(semi_yaml, "{type: TriTraining, cps_weight: 0, low_weight: 0}")
    in_training(learner)
    found = gradients(method.loss(learner, images, objective, 1.0)[0], learner)
    expected = {}
    for name in ("student", "rgb", "thermal"):
        part = learner.get_submodule(name)
        output = part(images.rgb_B3HW, images.thermal_B1HW)
        value, _ = objective(type(output)(output.logits[:2]), images.label_BHW[:2])
        expected |= {f"{name}.{own}": gradient for own, gradient in gradients(value, part).items()}
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)


def test_what_nobody_saw_changes_nothing(semi_yaml):
    method, learner, images, objective = made(semi_yaml, "{type: TriTraining, low_weight: 0}")
    in_training(learner)
    label = images.label_BHW.clone()
    label[2:] = 255
    blind = images._replace(label_BHW=label)
    value, terms = method.loss(learner, blind, objective, 1.0)
    assert terms["cps"] == 0 and terms["foreground_fused"] == 0
    without = METHODS.create(
        {"type": "TriTraining", "cps_weight": 0, "low_weight": 0}, config=method.config, num_classes=9
    )
    assert torch.equal(value, without.loss(learner, images, objective, 1.0)[0])
    assert method.loss(learner, images, objective, 1.0)[1]["cps"] > 0


def test_views_teach_maps_and_do_not_learn_from_them(semi_yaml):
    """Of the terms on maps nothing flows into R and T."""
    terms = "{type: TriTraining, cps_weight: 0, rgb_weight: 0, thermal_weight: 0, low_weight: 1, high_weight: 1}"
    method, learner, images, objective = made(semi_yaml, terms)
    found = gradients(method.loss(in_training(learner), images, objective, 1.0)[0], learner)
    for name, gradient in found.items():
        assert not name.startswith(("rgb.", "thermal.")) or not gradient.any(), name
    assert found["projections.0.weight"].any() and found["student.rgb_backbone.patch_embed1.proj.weight"].any()


def test_pseudo_labels_grow_in(semi_yaml):
    method, learner, images, objective = made(semi_yaml, "{type: TriTraining, ramp_epochs: 4, low_weight: 0}")
    in_training(learner)
    with torch.no_grad():
        values = [float(method.loss(learner, images, objective, step)[0]) for step in (0.0, 2.0, 4.0)]
        cps = float(method.loss(learner, images, objective, 4.0)[1]["cps"])
    plain = values[2] - 0.1 * cps
    shares = [(value - plain) / (0.1 * cps) for value in values]
    assert shares == pytest.approx([np.exp(-5), np.exp(-1.25), 1.0], abs=1e-3)


def test_divergence_is_a_reliability(semi_yaml):
    interaction = "model.interaction=ModalityDivergenceInteraction"
    values = []
    for reliability in ("none", "divergence"):
        terms = f"{{type: TriTraining, reliability: {reliability}, low_weight: 0}}"
        method, learner, images, objective = made(semi_yaml, terms, interaction)
        values.append(float(method.loss(in_training(learner), images, objective, 1.0)[1]["cps"]))
    assert values[0] != values[1] and all(np.isfinite(values))
    method, learner, images, objective = made(semi_yaml, "{type: TriTraining, reliability: divergence}")
    with pytest.raises(ConfigError, match="this network measures none"):
        method.loss(in_training(learner), images, objective, 1.0)


def test_shared_views_are_heads_on_its_own_encoders(semi_yaml):
    method, learner, images, objective = made(semi_yaml, "{type: TriTraining, views: shared}")
    assert isinstance(learner, ThreeViews) and isinstance(learner.rgb, StreamHead) and method.views(learner) == {}
    found = gradients(method.loss(in_training(learner), images, objective, 1.0)[0], learner)
    for view in ("rgb.head.", "thermal.head."):
        assert any(gradient.any() for name, gradient in found.items() if name.startswith(view))
    apart, _, _, _ = made(semi_yaml, "TriTraining")
    whole = apart.learner(build_model(apart.config.model, 9))
    assert sum(p.numel() for p in learner.parameters()) < 0.7 * sum(p.numel() for p in whole.parameters())


def test_views_start_from_the_pretrained_encoders_of_the_network(semi_yaml, tmp_path):
    """And from weights of their own where there are none."""
    method, learner, _, _ = made(semi_yaml, "TriTraining")
    one, other = learner.student.rgb_backbone.state_dict(), learner.rgb.backbone.state_dict()
    assert one.keys() == other.keys() and not all(torch.equal(one[name], other[name]) for name in one)
    torch.save(one, tmp_path / "mit_b0.pth")
    start = f"model.pretrained={{rgb: {tmp_path / 'mit_b0.pth'}}}"
    _, learner, _, _ = made(semi_yaml, "TriTraining", start)
    assert all(torch.equal(value, learner.rgb.backbone.state_dict()[name]) for name, value in one.items())
    assert all(torch.equal(value, learner.student.rgb_backbone.state_dict()[name]) for name, value in one.items())
    thermal = learner.student.thermal_backbone.state_dict()
    assert not all(torch.equal(value, learner.thermal.backbone.state_dict()[name]) for name, value in thermal.items())
    view = f"{{type: SingleStream, input: rgb, backbone: b0, pretrained: {tmp_path / 'mit_b0.pth'}}}"
    with pytest.raises(ConfigError, match="views of their own start from scratch"):
        made(semi_yaml, f"{{type: TriTraining, rgb_view: {view}}}")


@pytest.mark.parametrize(
    "opts, words",
    [
        (["train.method=TriTraining", "model={type: SingleStream, backbone: b0}"], "needs a network of two streams"),
        (["train.method={type: TriTraining, views: shared, rgb_view: SingleStream}"], "leave either out"),
        (
            ["train.method={type: TriTraining, rgb_view: {type: SingleStream, input: thermal, backbone: b0}}"],
            "expected a network that sees rgb alone",
        ),
        (["train.method=TriTraining", "data.labelled=null"], "set data.labelled={fraction: 1/8}"),
        (["train.method=TriTraining", "train.parallel=fsdp2"], "TriTraining runs with ddp alone"),
        (["train.method=TriTrainig"], "Did you mean 'TriTraining'"),
    ],
)
def test_what_cannot_be_is_one_sentence(opts, words, semi_yaml, tmp_path):
    with pytest.raises(ConfigError, match=words.replace("{", r"\{")):
        train(semi_yaml, opts, run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


# --- the others --------------------------------------------------------------------------------------------------


def test_a_teacher_follows_and_never_learns(semi_yaml):
    method, learner, images, objective = made(semi_yaml, "{type: MeanTeacher, decay: 0.75}")
    assert isinstance(method, MeanTeacher) and isinstance(learner, StudentAndTeacher)
    learner.train()
    assert learner.student.training and not learner.teacher.training
    value, terms = method.loss(in_training(learner), images, objective, 1.0)
    assert terms["consistency"] < 1e-12  # both are the same still, and nothing is drawn
    gradients(value, learner)
    assert all(p.grad is None for p in learner.teacher.parameters())
    expected = {name: p.detach().clone() for name, p in learner.teacher.named_parameters()}
    for step, decay in enumerate((0.0, 0.5, 2 / 3, 0.75, 0.75)):
        with torch.no_grad():
            for p in learner.student.parameters():
                p += 0.1
        method.after_step(learner, step)
        for name, p in learner.student.named_parameters():
            expected[name] = decay * expected[name] + (1 - decay) * p.detach()
    for name, p in learner.teacher.named_parameters():
        torch.testing.assert_close(p, expected[name])
    assert method.deployed(learner) is learner.teacher and method.views(learner) == {"student": learner.student}
    assert method.loss(learner, images, objective, 1.0)[1]["consistency"] > 0


def test_confidence_decides_what_is_learnt(semi_yaml):
    values = {}
    for threshold in (0.0, 1.0):
        method, learner, images, objective = made(semi_yaml, f"{{type: StrongWeak, threshold: {threshold}}}")
        torch.manual_seed(3)
        values[threshold] = method.loss(in_training(learner), images, objective, 1.0)[1]
    assert values[0.0]["certain"] == 1 and values[0.0]["consistency"] > 0
    assert values[1.0]["certain"] == 0 and values[1.0]["consistency"] == 0


def test_without_changes_it_learns_what_it_says(semi_yaml):
    """Nothing strong, nothing cut: the loss is the network's own cross-entropy with its arg-max."""
    method, learner, images, objective = made(semi_yaml, "{type: StrongWeak, threshold: 0, strength: 0, cutmix: 0}")
    in_training(learner)
    with torch.no_grad():
        _, terms = method.loss(learner, images, objective, 1.0)
        logits = learner(images.rgb_B3HW[2:], images.thermal_B1HW[2:]).logits
        expected = nn.functional.cross_entropy(logits, logits.argmax(1))
    assert float(terms["consistency"]) == pytest.approx(float(expected), rel=1e-4)


def test_strong_changes_and_cuts():
    rgb, thermal = torch.full((8, 3, 20, 30), 90, dtype=torch.uint8), torch.full((8, 1, 20, 30), 90, dtype=torch.uint8)
    rgb[:, 0] = 140
    torch.manual_seed(0)
    one = stronger(rgb, thermal, 0.5)
    torch.manual_seed(0)
    other = stronger(rgb, thermal, 0.5)
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert one[0].shape == rgb.shape and one[0].dtype == torch.uint8 and not torch.equal(one[0], rgb)
    assert len({image.float().mean().item() for image in one[1]}) > 4  # each by itself
    assert all(torch.equal(a, b) for a, b in zip(stronger(rgb, thermal, 0.0), (rgb, thermal), strict=True))
    boxes = draw_boxes(200, (20, 30), 0.5)
    taken = [(b[0].stop - b[0].start) * (b[1].stop - b[1].start) for b in boxes if b is not None]
    assert 70 < len(taken) < 130 and all(0.08 * 600 <= area <= 0.45 * 600 for area in taken)
    assert all(b is None or (b[0].stop <= 20 and b[1].stop <= 30) for b in boxes)
    numbered = torch.arange(3)[:, None, None].expand(3, 4, 4)
    cut = mixed(numbered, [(slice(0, 2), slice(1, 3)), None, (slice(3, 4), slice(0, 4))])
    assert cut[0, :2, 1:3].eq(1).all() and cut[0].eq(1).sum() == 4 and cut[1].eq(1).all()
    assert cut[2, 3].eq(0).all() and cut[2].eq(0).sum() == 4  # of the first one again


def test_every_part_is_afterwards_as_it_was():
    network = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(0.5))
    network.train()
    network[0].eval()  # a frozen one
    with pytest.raises(RuntimeError), evaluating(network) as plain:
        assert not any(module.training for module in plain.modules())
        raise RuntimeError
    assert [module.training for module in network.modules()] == [True, False, True]


# --- runs --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["TriTraining", "MeanTeacher", "StrongWeak"])
def run(request, tmp_path_factory):
    """A run of three steps of each method, its configuration, its method and its options."""
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "semi.yaml").write_text(yaml.safe_dump({**SETTINGS, "exp_dir": str(folder)}))
    opts = [f"train.method={request.param}", "train.ema_decay=0.9"]
    return train(folder / "semi.yaml", opts, run_dir=folder / "run"), folder / "semi.yaml", request.param, opts


def tensors(state: dict) -> dict[str, torch.Tensor]:
    moments = state["optimizer"]["state"]
    return {
        **state["model"],
        **state["ema"],
        **{f"{place} {key}": value for place, kept in moments.items() for key, value in kept.items() if key != "step"},
    }


def test_a_run_goes_on_bit_for_bit(run, tmp_path):
    whole, config, _, opts = run
    train(config, [*opts, "train.max_steps=2"], run_dir=tmp_path / "run")
    train(config, opts, resume=tmp_path / "run")
    one, other = (
        tensors(load_checkpoint(folder / "checkpoints" / "last.pt", training=True))
        for folder in (whole.path, tmp_path / "run")
    )
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_best_holds_what_is_deployed(run):
    """It loads as a network of its own, from best.pt and from last.pt, and the protocol says what it learnt from."""
    whole, _, method, _ = run
    names = set(build_model(load_config(whole.config).model, 9).state_dict())
    best, last = (load_checkpoint(whole.path / "checkpoints" / f"{name}.pt") for name in ("best", "last"))
    assert set(best["model"]) == names and (set(last["model"]) != names) == (method != "StrongWeak")
    results = [evaluate(whole.path / "checkpoints" / f"{name}.pt", split="val") for name in ("best", "last")]
    text = results[0].protocol.trained_on
    assert "train, 1/4 (seed 0) with labels (2 frames" in text
    assert "without labels on train, all but 1/4 (seed 0) with labels (6 frames" in text
    records = [json.loads(line) for line in whole.metrics.read_text().splitlines()]
    views = {record["view"] for record in records if record["kind"] == "view"}
    assert views == {"TriTraining": {"rgb", "thermal"}, "MeanTeacher": {"student"}, "StrongWeak": set()}[method]
    assert mdg.load(whole.best, device="cpu")(
        np.zeros((40, 48, 3), np.uint8), np.zeros((40, 48), np.uint8)
    ).mask.shape == (40, 48)


def test_frames_that_are_scored_among_those_without_labels_are_named(run):
    whole, *_ = run
    result = evaluate(whole.best, split="train", opts=["data.labelled=null"])
    assert "6 of the 8 scored frames AMONG THEM" in result.protocol.trained_on


def test_pairs_of_another_data_set(semi_yaml, tmp_path):
    """Another world beside the first; its labels are never looked at."""
    other = "{type: Synthetic, height: 40, width: 48, train_images: 5, seed: 9}"
    run = train(
        semi_yaml, ["train.method=TriTraining", f"unlabelled=[{other}]", "train.max_steps=1"], run_dir=tmp_path / "r"
    )
    sets = load_checkpoint(run.last)["unlabelled"]
    assert [len(frames["identities"]) for frames in sets] == [6, 5]
    alone = ["train.method=MeanTeacher", f"unlabelled=[{other}]", "data.labelled=null", "train.max_steps=1"]
    sets = load_checkpoint(train(semi_yaml, alone, run_dir=tmp_path / "a").last)["unlabelled"]
    assert [len(frames["identities"]) for frames in sets] == [5]


def test_the_method_is_part_of_a_run(run):
    whole, config, method, opts = run
    another = "Supervised" if method != "Supervised" else "MeanTeacher"
    with pytest.raises(ConfigError, match="this would not be the run that was saved"):
        train(config, [*opts[1:], f"train.method={another}"], resume=whole.path)


@pytest.mark.slow  # two launches
def test_two_processes_are_one_with_twice_the_batch(semi_yaml, tmp_path):
    """Where means are over pixels and BatchNorm keeps its statistics: the same images, shared out."""
    still = ["loss=[{type: CrossEntropy}]", "pipeline.train=[]", "model.decoder.dropout=0", "train.channels_last=false"]
    head = "{type: SegFormerDecoder, embed_dim: 16, dropout: 0}"
    encoder = "{type: MixTransformer, variant: b0, drop_path_rate: 0}"
    views = ", ".join(
        f"{camera}_view: {{type: SingleStream, input: {camera}, backbone: {encoder}, decoder: {head}}}"
        for camera in ("rgb", "thermal")
    )
    still += [f"train.method={{type: TriTraining, cps_weight: 1, {views}}}", 'train.freeze=["*.norm"]']
    still += ["train.max_steps=3"]
    still += ["optimizer={type: SGD, lr: 0.05}", "data.train_images=16", "train.epochs=2"]
    weights = []
    for processes, batch in (("1", 2), ("2", 1)):
        run = tmp_path / processes
        command = ["bash", REPOSITORY / "tools" / "train_ddp.sh", semi_yaml, "--run-dir", run, "--opts", *still]
        done = shell(*command, f"train.batch_size={batch}", NPROC=processes)
        assert done.returncode == 0, done.stderr
        weights.append(load_checkpoint(run / "checkpoints" / "last.pt")["model"])
    for name, one in weights[0].items():
        torch.testing.assert_close(one, weights[1][name], rtol=1e-3, atol=2e-5, msg=name)


def test_tri_training_is_known_to_the_schema():
    assert isinstance(METHODS.parse("TriTraining").model_dump()["cps_weight"], float)
    assert {"Supervised", "TriTraining", "MeanTeacher", "StrongWeak"} <= set(METHODS.names())
    assert (
        METHODS.create("TriTraining", config=load_config("configs/demo.yaml"), num_classes=9).__class__ is TriTraining
    )
