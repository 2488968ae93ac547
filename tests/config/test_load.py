from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import pytest
from pydantic import ValidationError

from mdg import registry
from mdg.config import RunConfig, dump_yaml, load_config
from mdg.errors import ConfigError
from mdg.registry import ComponentRegistry

REGISTRIES = [value for value in vars(registry).values() if isinstance(value, ComponentRegistry)]
COMPONENTS = [(entry, name) for entry in REGISTRIES for name in entry.names()]
CUSTOM = """
from pydantic import Field
from torch import nn

from mdg.options.losses import LossOptions
from mdg.registry import LOSSES


class FocalOptions(LossOptions):
    gamma: float = Field(2.0, ge=0)


@LOSSES.register(FocalOptions)
class {name}(nn.Module):
    def __init__(self, options, *, num_classes, ignore_index):
        super().__init__()
        self.weight, self.gamma = options.weight, options.gamma
"""


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        file = folder / f"{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(text))
    return folder / "run.yaml"


def load(folder: Path, text: str, *opts: str) -> RunConfig:
    return load_config(write(folder, run=text), opts)


def error_of(folder: Path, text: str, *opts: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(folder, text, *opts)
    return str(caught.value)


# --- inheritance -------------------------------------------------------------------------------------------------


def test_smallest_run_takes_every_default(tmp_path):
    config = load(tmp_path, "data: Synthetic")
    assert config.name == "run" and config.data.type == "Synthetic" and config.model.type == "MDG"
    assert [(term.type, term.weight) for term in config.loss] == [("Dice", 0.5), ("CrossEntropy", 0.5)]
    assert (config.loss[1].label_smoothing, config.auxiliary_loss.weight) == (0.1, 0.3)


def test_bases_are_relative_to_the_file_that_names_them(tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    (tmp_path / "a" / "parts").mkdir(parents=True)
    (tmp_path / "shared.yaml").write_text("data: {type: Synthetic, height: 64}\nseed: 1\n")
    (tmp_path / "a" / "parts" / "part.yaml").write_text("_base_: ../../shared.yaml\ntrain: {epochs: 7}\n")
    (tmp_path / "a" / "run.yaml").write_text("_base_: parts/part.yaml\ndata: {width: 96}\nseed: 2\n")
    config = load_config(tmp_path / "a" / "run.yaml")
    assert (config.data.height, config.data.width, config.train.epochs, config.seed) == (64, 96, 7, 2)


def test_later_bases_win_over_earlier_and_the_file_over_all(tmp_path):
    write(
        tmp_path, one="data: Synthetic\nseed: 1\ntrain: {epochs: 1}", two="seed: 2\ntrain: {epochs: 2, batch_size: 5}"
    )
    config = load(tmp_path, "_base_: [one.yaml, two.yaml]\ntrain: {epochs: 3}")
    assert (config.seed, config.train.epochs, config.train.batch_size) == (2, 3, 5)


def test_lists_are_replaced_and_another_type_drops_the_old_options(tmp_path):
    write(
        tmp_path,
        base="""
        data: Synthetic
        loss: [{type: Dice, smooth: 3.0}, {type: CrossEntropy}]
        optimizer: {type: AdamW, lr: 1e-4, betas: [0.9, 0.99]}
        """,
    )
    config = load(tmp_path, "_base_: base.yaml\nloss: [{type: OhemCrossEntropy}]\noptimizer: {type: SGD, lr: 0.1}")
    assert [term.type for term in config.loss] == ["OhemCrossEntropy"]
    assert config.optimizer.model_dump() == {"type": "SGD", "lr": 0.1} | {
        "momentum": 0.9, "nesterov": False, "weight_decay": 5e-4, "groups": [], "layer_decay": None
    }  # fmt: skip


def test_a_circle_of_bases_is_named(tmp_path):
    write(tmp_path, one="_base_: two.yaml", two="_base_: run.yaml")
    message = error_of(tmp_path, "_base_: one.yaml")
    assert "circle" in message and "run.yaml -> one.yaml -> two.yaml -> run.yaml" in message


def test_a_base_named_twice_is_no_circle(tmp_path):
    write(
        tmp_path, root="data: Synthetic", one="_base_: root.yaml\nseed: 1", two="_base_: root.yaml\ntrain: {epochs: 2}"
    )
    assert load(tmp_path, "_base_: [one.yaml, two.yaml]").seed == 1


@pytest.mark.parametrize("value", ["3", "[1]", "{a: b}", "null"])
def test_base_of_another_kind(tmp_path, value):
    message = error_of(tmp_path, f"seed: 1\n_base_: {value}")
    assert "run.yaml:2" in message and "_base_" in message


def test_missing_base_is_named(tmp_path):
    assert "nowhere.yaml" in error_of(tmp_path, "_base_: nowhere.yaml")


# --- errors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("train:\n  epoch: 3", ["run.yaml:3", "train.epoch", "unknown key", "Did you mean 'epochs'?"]),
        ("train: {epochs: 0}", ["run.yaml:2", "train.epochs", "got 0", "expected greater than or equal to 1"]),
        ("\nseed: many", ["run.yaml:3", "seed", "got 'many'", "integer"]),
        ("train: {precision: fp8}", ["train.precision", "'fp8'", "'bf16'"]),
        (
            "model:\n  type: MDG\n  rgb_backbone: b9",
            ["run.yaml:4", "model.rgb_backbone", "'b9'", "MixTransformer", "b0"],
        ),
        (
            "model:\n  type: MDG\n  decoder:\n    type: SegFormerDecoder\n    embed: 3",
            ["run.yaml:6", "model.decoder.embed", "unknown key", "'embed_dim'"],
        ),
        (
            "model: {type: MDG, interaction: {type: ModalityDivergenceInteraction, divergence: {ratio: 0}}}",
            ["run.yaml:2", "model.interaction.divergence.ratio", "got 0", "greater than 0"],
        ),
        ("loss:\n  - type: Dice\n  - {type: Dicee}", ["run.yaml:4", "loss.1", "'Dice'"]),
        ("ops: {channel_scan: mamba}", ["ops.channel_scan", "'mamba_ssm'", "torch"]),
        ("name: a/b", ["run.yaml:2", "name", "'a/b'"]),
        ("model: {type: MDG, pretrained: mit_b2.pth}", ["run.yaml:2", "'mit_b2.pth'", "mapping with keys out of: rgb"]),
    ],
)
def test_error_says_where_what_and_what_instead(tmp_path, text, words):
    message = error_of(tmp_path, f"data: Synthetic\n{text}")
    assert all(word in message for word in words), message
    assert "\n" not in message, "one mistake, one line"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("seed: 1", ["data", "missing"]),
        ("data: Sythetic", ["run.yaml:1", "unknown data set 'Sythetic'", "MFNet", "Did you mean 'Synthetic'?"]),
        ("data: {height: 64}", ["run.yaml:1", "data", "`type:`"]),
        ("data: {type: MFNet}", ["run.yaml:1", "data.root", "missing"]),
        ("data: {type: Synthetic, hight: 64}", ["run.yaml:1", "data.hight", "unknown key", "'height'"]),
        (
            "data: {type: Synthetic, thermal_scaling: percentile}",
            ["run.yaml:1", "unknown key", "a key of FMB, Folder, MFNet, PST900, not of Synthetic"],
        ),
    ],
)
def test_error_about_the_data(tmp_path, text, words):
    message = error_of(tmp_path, text)
    assert all(word in message for word in words), message


def test_an_error_in_a_base_names_the_base(tmp_path):
    write(tmp_path, base="data: Synthetic\ntrain:\n  epochs: -1\n")
    message = error_of(tmp_path, "_base_: base.yaml\ntrain: {batch_size: 2}")
    assert "base.yaml:3" in message and "train.epochs" in message


@pytest.mark.parametrize("opt", ["train.epochs=0", "train={epochs: 0}"])
def test_an_error_in_an_override_names_the_override(tmp_path, opt):
    message = error_of(tmp_path, "data: Synthetic\ntrain: {epochs: 3}", opt)
    assert f"--opts {opt}" in message and "run.yaml" not in message


def test_all_mistakes_are_reported(tmp_path):
    text = """\
        data: {type: Synthetic, hight: 64, width: 3}
        sed: 1
        train: {epochs: 0, batchsize: 2}
        loss: [{type: Dice, wait: 1}, {type: Nothing}]
        model: {type: MDG, auxiliary_heads: perhaps, decoder: {type: SegFormerDecoder, dropout: 2}}
        """
    lines = error_of(tmp_path, text).splitlines()
    keys = ["data.hight", "data.width", "sed", "train.epochs", "train.batchsize", "loss.0.wait", "loss.1"]
    keys += ["model.auxiliary_heads", "model.decoder.dropout"]
    assert len(lines) == len(keys)
    for key in keys:
        assert sum(f": {key}: " in line for line in lines) == 1, (key, lines)


@pytest.mark.parametrize("split", ["val", "test", "train"])
def test_selection_on_a_null_split(tmp_path, split):
    text = f"data: {{type: Synthetic, {split}_split: null}}\neval: {{selection: {split}}}"
    message = error_of(tmp_path, text)
    assert f"data.{split}_split is null" in message and "selection" in message
    assert load(tmp_path, text, "eval.selection=last").eval.selection == "last"


# --- user's own modules ------------------------------------------------------------------------------------------


def test_custom_import_registers_a_loss(tmp_path, monkeypatch):
    (tmp_path / "lab_losses.py").write_text(CUSTOM.format(name="LabFocal"))
    monkeypatch.syspath_prepend(tmp_path)
    text = "data: Synthetic\ncustom_imports: [lab_losses]\nloss: [{type: LabFocal, gamma: 3, weight: 0.5}]"
    try:
        config = load(tmp_path, text)
        assert (config.loss[0].gamma, config.loss[0].weight) == (3.0, 0.5)
        built = registry.LOSSES.create(config.loss[0], num_classes=2, ignore_index=255)
        assert type(built).__name__ == "LabFocal" and built.gamma == 3.0
        assert "loss.0.gamma" in error_of(tmp_path, text.replace("gamma: 3", "gamma: -1"))
        assert load_config(write(tmp_path, again=dump_yaml(config)).parent / "again.yaml") == config
    finally:
        registry.LOSSES._options.pop("LabFocal", None)
        registry.LOSSES._classes.module_dict.pop("LabFocal", None)
        sys.modules.pop("lab_losses", None)


def test_a_part_of_ones_own_cannot_take_the_name_of_a_shipped_one(tmp_path, monkeypatch):
    (tmp_path / "lab_dice.py").write_text(CUSTOM.format(name="Dice"))
    monkeypatch.syspath_prepend(tmp_path)
    message = error_of(tmp_path, "data: Synthetic\ncustom_imports: [lab_dice]")
    assert "the loss 'Dice' is shipped with mdg: register yours under another name" in message


@pytest.mark.parametrize("code", ["1 / 0", "import nothing_of_that_name", "def broken(:"])
def test_broken_custom_module(tmp_path, monkeypatch, code):
    (tmp_path / "lab_broken.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    message = error_of(tmp_path, "data: Synthetic\ncustom_imports:\n  - lab_broken")
    assert "run.yaml:3" in message and "custom_imports" in message and "lab_broken" in message


def test_custom_module_that_is_not_there(tmp_path):
    message = error_of(tmp_path, "data: Synthetic\ncustom_imports: [nothing_of_that_name]")
    assert "nothing_of_that_name" in message and "importable" in message


# --- the typed object --------------------------------------------------------------------------------------------


def test_dump_reads_back_equal(tmp_path):
    config = load(
        tmp_path,
        """
        name: g1e5
        data: {type: MFNet, root: ~/some where/MFNet, val_split: null}
        eval: {selection: last}
        model:
          type: MDG
          rgb_backbone: {type: MixTransformer, variant: b1, drop_path_rate: 1e-5}
          thermal_backbone: b2
          interaction: null
          pretrained: {rgb: a.pth}
        pipeline: {train: [{type: HorizontalFlip, p: 1e-9}], eval_size: [64, 96]}
        optimizer: {type: SGD, lr: 1e+2}
        train: {clip_grad_norm: 1e20}
        """,
    )
    (tmp_path / "resolved.yaml").write_text(dump_yaml(config), encoding="utf-8")
    assert load_config(tmp_path / "resolved.yaml") == config
    assert config.model.rgb_backbone.drop_path_rate == 1e-5 and config.train.clip_grad_norm == 1e20


@pytest.mark.parametrize("key", ["seed", "train.epochs", "model.decoder.embed_dim", "data.height", "loss.0.weight"])
def test_options_are_immutable(tmp_path, key):
    owner = load(tmp_path, "data: Synthetic")
    *parents, last = key.split(".")
    for name in parents:
        owner = owner[int(name)] if name.isdigit() else getattr(owner, name)
    with pytest.raises(ValidationError, match="frozen"):
        setattr(owner, last, 1)


@pytest.mark.parametrize("entry", REGISTRIES, ids=lambda entry: entry.name)
def test_short_names_parse(entry):
    for name in entry.short_names():
        assert entry.parse(name).type in entry.names()
    with pytest.raises(ConfigError, match="unknown"):
        entry.parse("Nothing")


def test_what_is_missing_is_missing_in_a_file(tmp_path):
    (tmp_path / "base.yaml").write_text("seed: 1")
    (tmp_path / "run.yaml").write_text("_base_: base.yaml")
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "run.yaml")
    assert str(caught.value) == f"{tmp_path / 'run.yaml'}: data: missing; set this key"
