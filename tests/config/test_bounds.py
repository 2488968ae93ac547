"""Every number of a configuration has bounds, every path knows the home folder, every slip has a hint."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import TypeAdapter, ValidationError

from mdg import registry
from mdg.config import RunConfig, load_config
from mdg.config.schema import NOT_IN_NAMES, run_name
from mdg.errors import ConfigError
from mdg.fields import Size
from mdg.registry import ComponentRegistry, Options

pytestmark = pytest.mark.no_cover  # long texts

REGISTRIES = [value for value in vars(registry).values() if isinstance(value, ComponentRegistry)]
SYNTHETIC = """
data: {type: Synthetic}
loss: [{type: Dice}]
model: {type: MDG, decoder: {type: SemanticDynamicDecoder}}
optimizer: {type: AdamW, betas: [0.9, 0.999]}
schedule: {type: Poly}
eval: {scales: [1.0]}
"""
FOLDER = """
data:
  type: Folder
  root: data
  classes: [road, person]
"""


def models() -> list[type[Options]]:
    found: dict[str, type[Options]] = {}

    def add(model: type[Options]) -> None:
        found[model.__name__] = model
        for field in model.model_fields.values():
            for part in registry._parts(field.annotation):
                if isinstance(part, type) and issubclass(part, Options) and part.__name__ not in found:
                    add(part)

    add(RunConfig)
    for entry in REGISTRIES:
        for name in entry.names():
            if entry.get(name).__module__.startswith("mdg."):
                add(entry.options_of(name))
    return list(found.values())


def integers(node: Any, path: str) -> Iterator[tuple[str, dict]]:
    """Every place of a JSON schema, references aside, that holds an integer."""
    if isinstance(node, dict):
        if node.get("type") == "integer":
            yield path, node
        for key, value in node.items():
            if key not in ("$defs", "default"):
                yield from integers(value, f"{path}.{key}")
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from integers(value, f"{path}.{index}")


CHECKED_OTHERWISE = {"label_map", "dynamic_stages", "frequency_stages"}  # by validators: against classes and stages


@pytest.mark.parametrize("model", models(), ids=lambda model: model.__name__)
def test_every_integer_has_an_upper_and_a_lower_bound(model):
    for path, node in integers(model.model_json_schema(), model.__name__):
        if not CHECKED_OTHERWISE & set(path.split(".")):
            assert {"maximum", "exclusiveMaximum"} & node.keys(), f"{path} has no upper bound"
            assert {"minimum", "exclusiveMinimum"} & node.keys(), f"{path} has no lower bound"


@pytest.mark.parametrize("model", models(), ids=lambda model: model.__name__)
def test_every_path_knows_the_home_folder(model, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, field in model.model_fields.items():
        if Path in registry._parts(field.annotation):
            kind = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
            assert TypeAdapter(kind).validate_python("~/x") == tmp_path / "x", name


def load(folder: Path, text: str, *opts: str, name: str = "run.yaml") -> RunConfig:
    (folder / name).write_text(text, encoding="utf-8")
    return load_config(folder / name, opts)


def refusal(folder: Path, text: str, *opts: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(folder, text, *opts)
    assert "\n" not in str(caught.value), caught.value
    return str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "bound"),
    [
        ("threads", 100_000_000, "4096"),
        ("seed", -1, "0"),
        ("train.epochs", 10**9, "1000000"),
        ("train.batch_size", 10**6, "4096"),
        ("train.accumulate", 10**6, "65536"),
        ("pipeline.workers", 10**6, "256"),
        ("pipeline.prefetch", 10**6, "64"),
        ("pipeline.timeout", 0, "0"),
        ("process_timeout", 10**6, "86400"),
        ("data.height", 100_000_000, "4096"),
        ("data.limit", 0, "1"),
        ("eval.batch_size", 10**6, "4096"),
        ("eval.pictures", 10**6, "1000"),
        ("log.pictures", 10**6, "1000"),
        ("model.decoder.embed_dim", 10**9, "16384"),
        ("schedule.warmup_epochs", 1e300, "1000000"),
    ],
)
def test_a_number_out_of_bounds_is_told_the_bound(tmp_path, key, value, bound):
    message = refusal(tmp_path, SYNTHETIC, f"{key}={value}")
    assert f"{key}: got {value}" in message and message.endswith(f" {bound}"), message


@pytest.mark.parametrize("key", ["pipeline.eval_size", "eval.window"])
def test_a_size_of_too_many_pixels(tmp_path, key, monkeypatch):
    opts = [f"{key}=[16384, 16384]", "eval.mode=slide", "eval.window=[64, 64]"][: 2 if key == "eval.window" else 3]
    message = refusal(tmp_path, "data: Synthetic", *opts)
    assert "268,435,456" in message and "--limit image_pixels=268435456" in message
    monkeypatch.setenv("MDG_LIMIT_IMAGE_PIXELS", "268435456")
    assert load(tmp_path, "data: Synthetic", *opts)


def test_a_crop_of_too_many_pixels(tmp_path):
    text = "data: Synthetic\npipeline: {train: [{type: RandomResizedCrop, size: [16384, 16384]}]}"
    assert "pipeline.train.0.size" in refusal(tmp_path, text)
    assert TypeAdapter(Size).validate_python([8192, 16384]) == (8192, 16384)


@pytest.mark.parametrize("value", [".nan", ".inf", "-.inf", "1e999"])
@pytest.mark.parametrize(
    "key", ["optimizer.lr", "train.clip_grad_norm", "loss.0.weight", "model.normalize.thermal_mean", "eval.scales.0"]
)
def test_numbers_that_are_not_finite(tmp_path, key, value):
    got = {".nan": "nan", ".inf": "inf", "-.inf": "-inf", "1e999": "inf"}[value]
    assert f"{key}: got {got}; expected a finite number" in refusal(tmp_path, SYNTHETIC, f"{key}={value}")


def test_numbers_of_a_model_built_by_hand():
    with pytest.raises(ValidationError, match="finite"):
        registry.OPTIMIZERS.parse({"type": "AdamW", "lr": math.nan})


# --- hints ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "key", "kind"),
    [
        ("[road, no]", "1", "boolean"),
        ("[on, road]", "0", "boolean"),
        ("[0, road]", "0", "number"),
        ("[road, null]", "1", "null"),
        ("[road, 1.5]", "1", "number"),
        ("[road, {a: b}]", "1", "mapping"),
    ],
)
def test_classes_that_yaml_reads_as_something_else(tmp_path, text, key, kind):
    message = refusal(tmp_path, FOLDER, f"data.classes={text}")
    assert f"data.classes.{key}: got" in message and kind in message and "put it in quotes" in message


def test_text_in_braces(tmp_path):
    message = refusal(tmp_path, FOLDER, "data.rgb={split}")
    assert "a mapping" in message and "put it in quotes" in message


@pytest.mark.parametrize(("key", "value"), [("train.precision", "off"), ("eval.mode", "no"), ("data.cache", "no")])
def test_a_choice_that_yaml_reads_as_a_boolean(tmp_path, key, value):
    assert "put it in quotes" in refusal(tmp_path, SYNTHETIC, f"{key}={value}")


@pytest.mark.parametrize("key", ["train.epochs", "threads", "optimizer.lr", "optimizer.betas.0", "eval.scales.0"])
@pytest.mark.parametrize("value", ["yes", "no", "on", "off", "true"])
def test_a_boolean_is_no_number(tmp_path, key, value):
    message = refusal(tmp_path, SYNTHETIC, f"{key}={value}")
    assert f"{key}: got {value in ('yes', 'on', 'true')}; " in message and "as a boolean; write a number" in message


def test_numbers_of_a_map_of_labels(tmp_path):
    with pytest.raises(ConfigError, match="data.label_map.1.*put it in quotes"):
        load(tmp_path, FOLDER, "data.label_map={0: road, 1: no}")
    assert load(tmp_path, FOLDER, "data.label_map={0: road, 1: person}").data.label_map == {0: "road", 1: "person"}


@pytest.mark.parametrize(("device", "hint"), [("tpu", "'cuda'"), ("cuda:1", "CUDA_VISIBLE_DEVICES"), ("GPU", "`cuda`")])
def test_devices(tmp_path, device, hint):
    assert hint in refusal(tmp_path, "data: Synthetic", f"device={device}")


@pytest.mark.parametrize(
    "imports", ["3", "text", "{a: b}", "[3]", "[null]", "[[a]]", "['']", "['.relative']", "['a b']"]
)
def test_custom_imports_that_are_none(tmp_path, imports):
    assert "custom_imports" in refusal(tmp_path, "data: Synthetic", f"custom_imports={imports}")


def test_a_module_that_ends_the_program(tmp_path, monkeypatch):
    (tmp_path / "lab_exits.py").write_text("raise SystemExit(0)")
    monkeypatch.syspath_prepend(tmp_path)
    assert "lab_exits" in refusal(tmp_path, "data: Synthetic\ncustom_imports: [lab_exits]")


def test_many_mistakes_are_a_few_lines(tmp_path):
    text = "data: Synthetic\n" + "".join(f"key{i}: 1\n" for i in range(5000))
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    lines = str(caught.value).splitlines()
    assert len(lines) == 21 and lines[-1] == "... and 4980 more"


def test_long_keys_and_values_are_cut(tmp_path):
    assert len(refusal(tmp_path, f"data: Synthetic\n{'k' * 900}: {'v' * 5000}")) < 1500


# --- names ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("my config.yaml", "my config"),
        ("配置.yaml", "配置"),
        ("größe+1.5.yaml", "größe+1.5"),
        ("-x.yaml", "x"),
        (".hidden.yaml", "hidden"),
        ("a:b*c.yaml", "a-b-c"),
        ("tab\there.yaml", "tab-here"),
        ("--.yaml", "run"),
        ("x" * 200 + ".yaml", "x" * 100),
        ("配" * 80 + ".yaml", "配" * 80),
    ],
)
def test_the_name_of_a_run_is_made_of_that_of_its_file(tmp_path, file, name):
    assert load(tmp_path, "data: Synthetic", name=file).name == name


@pytest.mark.parametrize(
    "name", ["a/b", "..", ".", "", " a", "a ", "-rf", "~", "a\\b", "C:x", "x" * 101, "配" * 90, "a?"]
)
def test_names_that_are_none(tmp_path, name):
    assert "name: got" in refusal(tmp_path, f"name: '{name}'\ndata: Synthetic")


@pytest.mark.parametrize("text", ["", ".", "a" * 500, "é" * 300, NOT_IN_NAMES, "\udcff.yaml", "\x00", "e\u0301"])
def test_any_text_makes_a_valid_name(tmp_path, text):
    name = run_name(text)
    assert load(tmp_path, f"name: '{name}'\ndata: Synthetic").name == name
    (tmp_path / name).mkdir()


@pytest.mark.parametrize("path", ["$HOME/runs", "${DATA}/runs", "'%USERPROFILE%/runs'"])
def test_variables_of_a_shell_make_no_folder_of_their_name(tmp_path, path):
    assert "variables of a shell are not replaced here" in refusal(tmp_path, "data: Synthetic", f"exp_dir={path}")
    assert str(load(tmp_path, "data: Synthetic", "exp_dir=a$b").exp_dir) == "a$b"


def test_a_home_of_nobody(tmp_path):
    assert "exp_dir" in refusal(tmp_path, "data: Synthetic", "exp_dir=~nobody_of_that_name/x")
    assert "exp_dir" in refusal(tmp_path, "data: Synthetic", "exp_dir=''")
