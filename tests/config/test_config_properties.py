"""Laws of configurations, on generated ones."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from mdg.config import RunConfig, dump_yaml, parse_config
from mdg.config.documentation import mapping_of
from mdg.config.load import load_config
from mdg.config.yaml_text import dump, parse
from mdg.config.yaml_tree import ConfigTree, apply_override, parse_yaml
from mdg.errors import ConfigError
from mdg.registry import DATASETS, DECODERS, MODELS, OPTIMIZERS, SCHEDULES, TRANSFORMS, ComponentRegistry

TEXT = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\u2028\u2029\ufeff\ufffe\uffff"), max_size=8
)
NUMBERS = st.integers(-(2**63) + 1, 2**63 - 1) | st.floats(allow_nan=False)
SCALARS = (
    st.none() | st.booleans() | NUMBERS | TEXT | st.sampled_from(["1e5", "no", "12:30", "010", "~", "", "=", "<<"])
)
WORDS = st.sampled_from(["a", "b", "c", "type", "x"])


def trees(keys: st.SearchStrategy[Any], leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[dict]:
    below = st.recursive(
        leaves, lambda inside: st.lists(inside, max_size=3) | st.dictionaries(keys, inside, max_size=3), max_leaves=12
    )
    return st.dictionaries(keys, below, max_size=4)


MAPPINGS = trees(WORDS, SCALARS)
# No mapping has a `type`: another type drops the options of the old one, which is no law of sets.
UNTYPED = trees(WORDS.filter(lambda word: word != "type"), SCALARS)


# --- text ----------------------------------------------------------------------------------------------------------


@given(trees(TEXT.filter(bool) | st.integers(0, 99), SCALARS))
def test_what_is_written_is_read(values):
    assume(len({str(key) for key in values}) == len(values))
    try:
        read = parse(dump(values), "f")[0]
    except ConfigError as error:
        assert "stands here twice" in str(error)  # `1` and `'1'` are one key
        return
    assert read == values and json.dumps(read) == json.dumps(values)  # and of the same types


@given(
    st.text(max_size=60) | st.lists(st.sampled_from(list("a:-[]{}&*!|>'\"%@`#,?\n\t 0.<")), max_size=40).map("".join)
)
@settings(max_examples=200)
@example("? {a: b}\n: c")
@example("!<tag:yaml.org,2002:int> x")
@example("a: !!float .")
def test_any_text_is_a_plain_mapping_or_an_error(text):
    try:
        values, lines = parse(text, "f")
    except ConfigError as error:
        assert str(error).startswith("f")
        return
    json.dumps(values)
    assert all(path and line >= 1 for path, line in lines.items())


# --- merging -------------------------------------------------------------------------------------------------------


def merged(*values: dict) -> dict:
    tree = ConfigTree()
    for item in values:
        tree = tree.merge(ConfigTree(item))
    return tree.values


@given(MAPPINGS)
def test_nothing_and_itself_change_nothing(values):
    assert merged(values) == merged({}, values) == merged(values, {}) == merged(values, values) == values


@given(UNTYPED, UNTYPED, UNTYPED)
@settings(max_examples=20)  # three trees take long to draw
def test_merging_is_associative(a, b, c):
    assert merged(merged(a, b), c) == merged(a, merged(b, c))


@given(MAPPINGS, MAPPINGS)
def test_the_later_one_wins(a, b):
    """Every value of ``b`` that is no mapping stands in the result, and nothing is changed in place."""
    before = json.dumps([a, b])
    together = merged(a, b)

    def holds(over: Any, result: Any) -> bool:
        if isinstance(over, dict):
            return isinstance(result, dict) and all(key in result and holds(over[key], result[key]) for key in over)
        return over == result

    assert holds(b, together) and json.dumps([a, b]) == before


# --- overrides -----------------------------------------------------------------------------------------------------


@given(MAPPINGS, st.lists(WORDS, min_size=1, max_size=4), SCALARS)
def test_an_override_sets_what_it_names_and_nothing_else(values, path, value):
    key, text = ".".join(path), dump([value]).removeprefix("- ").strip()
    assume("\n" not in text)
    try:
        tree = apply_override(ConfigTree(values), f"{key}={text}")
    except ConfigError as error:
        assert str(error).startswith(f"--opts {key}=")
        assert "cannot set" in str(error)
        return
    found = tree.values
    for word in path:
        found = found[word]
    assert found == value and tree.origin(tuple(path)) == f"--opts {key}={text}"
    others = set(values) - {path[0]}
    assert {k: tree.values[k] for k in others} == {k: values[k] for k in others}


@given(st.text(max_size=20), st.text(max_size=20))
def test_any_override_is_followed_or_refused(key, value):
    try:
        apply_override(parse_yaml("a: {b: [1, {c: 2}]}", "f"), f"{key}={value}")
    except ConfigError as error:
        assert str(error).startswith("--opts ")


# --- the typed run -------------------------------------------------------------------------------------------------


def keys(place: str, entries: ComponentRegistry, name: str) -> list[str]:
    return [f"{place}.{key}" for key in entries.options_of(name).model_fields]


SECTIONS = {name: field.annotation for name, field in RunConfig.model_fields.items() if mapping_of(field)}
KEYS = st.sampled_from(
    ["name", "data", "type", "model", "loss", "train", "eval", "optimizer", "schedule", "pipeline", "seed", "exp_dir",
     "device", "custom_imports", "epochs", "height", "classes", "root", "window", "scales", "label_map", "decoder",
     "pretrained", "rgb", "thermal", "split_file", "palette", "conditions", "betas", "lr", "size", "threads", "ops",
     "thermal_scaling", "mode", "range", "holdout", "kernel_size", "groups", "frequency_stages", "class_weights"]
)  # fmt: skip
VALUES = SCALARS | st.integers(-3, 300) | st.sampled_from(
    ["Synthetic", "Folder", "MFNet", "MDG", "AdamW", "SGD", "Dice", "CrossEntropy", "b2", "RandomResizedCrop", "auto",
     "slide", "fixed", "colours", "~", "~nobody/x", "/", 0, -1, 1e308, 2**62, "\u0301"]
).filter(lambda value: value != "\x00")  # fmt: skip


@given(trees(KEYS, VALUES))
@settings(max_examples=150)
@example({"data": {"type": "Folder", "root": "x", "classes": ["a", "b"], "label_map": {"a": []}}})
@example({"data": "Synthetic", "loss": {"type": "Dice"}, "optimizer": [[]], "ops": {"linear": {}}})
def test_any_tree_is_a_run_or_an_error(values):
    values.pop("custom_imports", None)  # importing what was generated might find something
    try:
        config = parse_config(ConfigTree(values))
    except ConfigError as error:
        assert str(error)
        return
    assert parse_config(parse_yaml(dump_yaml(config), "f")) == config


def whole(**parts: Any) -> dict[str, Any]:
    return {"data": "Synthetic", "loss": [{"type": "Dice"}], **parts}


FOLDER = {"type": "Folder", "root": "x", "classes": ["a", "b"]}
CROP = {"type": "RandomResizedCrop", "size": [32, 32]}
DECODER = {"type": "SemanticDynamicDecoder"}
STARTS = [
    (whole(), [*RunConfig.model_fields]),
    *((whole(), [f"{name}.{key}" for key in kind.model_fields]) for name, kind in SECTIONS.items()),
    *(
        (whole(data={"type": name, "root": "x", **(FOLDER if name == "Folder" else {})}), keys("data", DATASETS, name))
        for name in ("Folder", "MFNet", "FMB")
    ),
    (whole(data={"type": "Synthetic"}), keys("data", DATASETS, "Synthetic")),
    *((whole(pipeline={"train": [{**CROP, "type": name}]}), keys("pipeline.train.0", TRANSFORMS, name))
      for name in TRANSFORMS.names()),
    (whole(model={"type": "MDG"}), keys("model", MODELS, "MDG")),
    (whole(model={"type": "MDG", "decoder": DECODER}), keys("model.decoder", DECODERS, DECODER["type"])),
    (whole(optimizer={"type": "AdamW"}), keys("optimizer", OPTIMIZERS, "AdamW")),
    (whole(schedule={"type": "Poly"}), keys("schedule", SCHEDULES, "Poly")),
]  # fmt: skip
ANYTHING = st.recursive(VALUES, lambda inside: st.lists(inside, max_size=4) | st.dictionaries(KEYS | VALUES, inside))


@given(st.sampled_from(STARTS).flatmap(lambda start: st.tuples(st.just(start[0]), st.sampled_from(start[1]))), ANYTHING)
@settings(max_examples=200)
def test_any_value_of_any_key_is_taken_or_refused(start, value):
    values, key = start
    assume(key != "custom_imports")
    try:
        config = parse_config(apply_override(ConfigTree(values), f"{key}={json.dumps(value)}"))
    except ConfigError as error:
        assert str(error)
        return
    assert parse_config(parse_yaml(dump_yaml(config), "f")) == config


RUNS = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["run", "no", "1e5", "配置 2", "0x10", "2024-01-01"]),
        "seed": st.integers(0, 2**63 - 1),
        "data": st.fixed_dictionaries(
            {
                "type": st.just("Folder"),
                "root": st.sampled_from(["data", "/a b/c", "~/x", "1", "no"]),
                "classes": st.lists(TEXT.filter(lambda name: name != "ignore"), min_size=2, max_size=4, unique=True),
                "conditions": st.dictionaries(TEXT.filter(bool), TEXT, max_size=2),
                "ignore_ids": st.lists(st.integers(0, 65535), max_size=3),
            }
        ),
        "optimizer": st.fixed_dictionaries(
            {"type": st.just("AdamW"), "lr": st.floats(1e-300, 1e300), "weight_decay": st.floats(0, 1)}
        ),
        "train": st.fixed_dictionaries(
            {
                "epochs": st.integers(1, 10**6),
                "clip_grad_norm": st.none() | st.floats(1e-30, 1e30),
                "ema_decay": st.none() | st.floats(0.001, 0.999),
                "precision": st.sampled_from(["fp32", "bf16", "fp16"]),
            }
        ),
        "eval": st.fixed_dictionaries({"scales": st.lists(st.floats(0.01, 4), min_size=1, max_size=3, unique=True)}),
    }
)


@given(RUNS)
def test_a_run_is_read_as_it_was_written(tmp_path_factory, values):
    config = parse_config(ConfigTree(values))
    file = tmp_path_factory.mktemp("run") / "config.yaml"
    file.write_text(dump_yaml(config), encoding="utf-8")
    again = load_config(file)
    assert again == config and dump_yaml(again) == dump_yaml(config)
