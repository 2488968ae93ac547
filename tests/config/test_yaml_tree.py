from __future__ import annotations

import math
from pathlib import Path

import pytest

from mdg.config.yaml_tree import ConfigTree, apply_override, parse_yaml, read_yaml
from mdg.errors import ConfigError


def values_of(text: str) -> dict:
    return parse_yaml(text, "run.yaml").values


def error_of(action) -> str:
    with pytest.raises(ConfigError) as caught:
        action()
    return str(caught.value)


def tree_of(text: str, source: str = "run.yaml") -> ConfigTree:
    return parse_yaml(text, source)


def override(text: str, *overrides: str) -> dict:
    tree = tree_of(text)
    for item in overrides:
        tree = apply_override(tree, item)
    return tree.values


# --- numbers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1e-4", 1e-4),
        ("1E5", 1e5),
        ("-2e+3", -2e3),
        (".5", 0.5),
        ("5.", 5.0),
        (".5e1", 5.0),
        ("1.5e3", 1500.0),
        ("1_000", 1000),
        ("1_0.5", 10.5),
        ("0", 0),
        ("-7", -7),
        ("0x10", 16),
        ("'1e-4'", "1e-4"),
        ("e5", "e5"),
        ("1e", "1e"),
        ("1-4", "1-4"),
        (".", "."),
        ("b2", "b2"),
        ("3.1.4", "3.1.4"),
        ("true", True),
        ("null", None),
        ("", None),
    ],
)
def test_scalars(text, expected):
    got = values_of(f"a: {text}")["a"]
    assert got == expected and type(got) is type(expected)


def test_infinity_and_nan():
    assert values_of("a: -.inf")["a"] == -math.inf
    assert math.isnan(values_of("a: .nan")["a"])


def test_numbers_in_flow_style():
    assert values_of("a: {lr: 1e-4, betas: [9e-1, .999]}")["a"] == {"lr": 1e-4, "betas": [0.9, 0.999]}


# --- origins -----------------------------------------------------------------------------------------------------


def test_origins_name_file_and_line():
    tree = tree_of("a:\n  b: 1\n  c:\n    - 2\n    - {d: 3}\n")
    assert tree.origin(("a",)) == "run.yaml:1"
    assert tree.origin(("a", "b")) == "run.yaml:2"
    assert tree.origin(("a", "c", "1", "d")) == "run.yaml:5"
    assert tree.origin(("a", "c", "0", "nobody", "wrote")) == "run.yaml:4"
    assert tree.origin(("other",)) == ""


def test_origins_follow_the_file_that_won():
    base = tree_of("a: {x: 1, y: 2}\nl: [1, 2, 3]\n", "base.yaml")
    merged = base.merge(tree_of("l: [9]\na:\n  y: 3\n", "over.yaml"))
    assert merged.values == {"a": {"x": 1, "y": 3}, "l": [9]}
    assert merged.origin(("a", "x")) == "base.yaml:1"
    assert merged.origin(("a", "y")) == "over.yaml:3"
    assert merged.origin(("l", "0")) == "over.yaml:1"
    assert ("l", "2") not in merged.origins
    set_inside = apply_override(base, "m.new.key=1")
    assert set_inside.origin(("m",)) == set_inside.origin(("m", "new")) == "--opts m.new.key=1"


# --- merging -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base", "over", "expected"),
    [
        ("a: {b: {c: 1, d: 2}}", "a: {b: {c: 3}}", {"a": {"b": {"c": 3, "d": 2}}}),
        ("a: [1, 2, 3]", "a: [4]", {"a": [4]}),
        ("a: [{x: 1}]", "a: [{y: 2}]", {"a": [{"y": 2}]}),
        ("a: {type: T, x: 1}", "a: {type: T, y: 2}", {"a": {"type": "T", "x": 1, "y": 2}}),
        ("a: {type: T, x: 1}", "a: {y: 2}", {"a": {"type": "T", "x": 1, "y": 2}}),
        ("a: {type: T, x: 1, n: {z: 1}}", "a: {type: U, n: {w: 2}}", {"a": {"type": "U", "n": {"w": 2}}}),
        ("a: {b: 1}", "a: null", {"a": None}),
        ("a: null", "a: {b: 1}", {"a": {"b": 1}}),
        ("a: b2", "a: {type: T}", {"a": {"type": "T"}}),
        ("a: {type: T}", "a: b2", {"a": "b2"}),
    ],
)
def test_merge(base, over, expected):
    base_tree, over_tree = tree_of(base), tree_of(over)
    assert base_tree.merge(over_tree).values == expected
    assert (base_tree.values, over_tree.values) == (values_of(base), values_of(over)), "merge changed its inputs"


# --- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tag", ["!!python/object/apply:os.system", "!!python/object/new:os.system", "!!python/name:os.system"]
)
def test_python_tags_are_refused_without_running(tmp_path, tag):
    marker = tmp_path / "marker"
    message = error_of(lambda: parse_yaml(f"a: 1\nb: {tag} ['touch {marker}']", "run.yaml"))
    assert "run.yaml:2" in message and "python/" in message
    assert not marker.exists()


def test_python_tag_in_an_override_is_refused_without_running(tmp_path):
    marker = tmp_path / "marker"
    error_of(lambda: override("a: 1", f"a=!!python/object/apply:os.system ['touch {marker}']"))
    assert not marker.exists()


@pytest.mark.parametrize(
    ("text", "line"), [("a: 1\nb: 2\na: 3", 3), ("a:\n  b: 1\n  c: 2\n  b: 3", 4), ("a: {b: 1, b: 2}", 1)]
)
def test_duplicate_key(text, line):
    message = error_of(lambda: values_of(text))
    assert message.startswith(f"run.yaml:{line}: ") and "twice" in message


@pytest.mark.parametrize(
    "text", ["a: [1, 2", "a: 1\n\tb: 2", "a: b: c", "a: *nowhere", "a: 1\n---\nb: 2", "? [a, b]\n: 1"]
)
def test_broken_yaml_names_the_file(text):
    assert error_of(lambda: values_of(text)).startswith("run.yaml")


def test_anchor_that_contains_itself():
    assert "run.yaml" in error_of(lambda: values_of("a: &x [*x]"))


@pytest.mark.parametrize("text", ["2024-13-01", "-_e5", "0b_"])
def test_what_looks_like_a_value_and_is_none_is_text_or_an_error(text):
    try:
        assert values_of(f"a: {text}")["a"] == text
    except ConfigError as error:
        assert "run.yaml" in str(error)


def test_files_that_cannot_be_read(tmp_path):
    assert "no such configuration file" in error_of(lambda: read_yaml(tmp_path / "missing.yaml"))
    for name, content in {"list.yaml": b"- 1", "text.yaml": b"hello", "binary.yaml": b"\xff\xfe\x00\xd8"}.items():
        Path(tmp_path / name).write_bytes(content)
        assert name in error_of(lambda name=name: read_yaml(tmp_path / name))


def test_empty_file_is_an_empty_tree(tmp_path):
    (tmp_path / "empty.yaml").write_text("# nothing yet\n")
    assert read_yaml(tmp_path / "empty.yaml").values == {}


# --- overrides -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "overrides", "expected"),
    [
        ("train: {epochs: 500, x: 1}", ["train.epochs=2"], {"train": {"epochs": 2, "x": 1}}),
        ("{}", ["a.b.c=1e-4"], {"a": {"b": {"c": 1e-4}}}),
        ("a: null", ["a.b=1"], {"a": {"b": 1}}),
        (
            "loss: [{type: Dice, w: 1}, {type: CE}]",
            ["loss.0.w=2"],
            {"loss": [{"type": "Dice", "w": 2}, {"type": "CE"}]},
        ),
        ("a: [1, 2]", ["a.1=5"], {"a": [1, 5]}),
        ("a: [1, 2]", ["a=[]"], {"a": []}),
        ("a: {b: 1}", ["a=null"], {"a": None}),
        ("a: 1", ["a="], {"a": None}),
        ("a: 1", ["a=x=y"], {"a": "x=y"}),
        ("a: {type: T, x: 1}", ["a={type: U}"], {"a": {"type": "U"}}),
        ("a: {type: T, x: 1}", ["a={x: 2}"], {"a": {"type": "T", "x": 2}}),
        ("a: 1", ["a=2", "a=3"], {"a": 3}),
    ],
)
def test_override(text, overrides, expected):
    assert override(text, *overrides) == expected


@pytest.mark.parametrize("item", ["a", "=1", " =1", "a..b=1", ".a=1", "a.=1"])
def test_override_without_the_form_key_equals_value(item):
    assert "dotted.key=value" in error_of(lambda: override("a: {b: 1}", item))


@pytest.mark.parametrize(
    ("text", "item", "words"),
    [
        ("a: 1", "a.b=2", ["cannot set 'b'", "1"]),
        ("a: b2", "a.variant=b1", ["inside 'b2'", "long form", "type:"]),
        ("a: [1, 2]", "a.2=3", ["list of 2"]),
        ("a: [1, 2]", "a.-1=3", ["list of 2"]),
        ("a: [1, 2]", "a.first=3", ["list of 2"]),
        ("a: 1", "a=[1", ["--opts a=[1", "not valid YAML"]),
        ("a: 1", "a={b: 1, b: 2}", ["--opts", "twice"]),
    ],
)
def test_override_that_does_not_fit(text, item, words):
    message = error_of(lambda: override(text, item))
    assert "--opts" in message and all(word in message for word in words)


def test_override_is_the_origin_of_what_it_sets():
    tree = apply_override(tree_of("a: {b: 1, c: 2}"), "a.b=3")
    assert (tree.origin(("a", "b")), tree.origin(("a", "c"))) == ("--opts a.b=3", "run.yaml:1")
    tree = apply_override(tree_of("a: {b: 1, c: 2}"), "a={b: 3}")
    assert (tree.origin(("a", "b")), tree.origin(("a", "c"))) == ("--opts a={b: 3}", "run.yaml:1")


# --- former names ------------------------------------------------------------------------------------------------


def test_a_former_name_is_read_as_the_new_one_and_said(caplog):
    tree = tree_of("ops:\n  linear: torch\n  selective_scan: torch\n")
    assert tree.values == {"ops": {"linear": "torch", "channel_scan": "torch"}}
    assert tree.origin(("ops", "channel_scan")) == "run.yaml:3"
    (message,) = [record.getMessage() for record in caplog.records]
    assert message == "run.yaml:3: ops.selective_scan is now called ops.channel_scan; the former name will go"


def test_an_override_by_the_former_name_meets_the_new_one(caplog):
    assert override("ops: {channel_scan: auto}", "ops.selective_scan=torch") == {"ops": {"channel_scan": "torch"}}
    assert "--opts ops.selective_scan=torch" in caplog.text


def test_what_an_older_version_wrote_everywhere_is_no_reason_to_warn(caplog):
    assert values_of("ops: {selective_scan: auto}") == {"ops": {"channel_scan": "auto"}}
    assert not caplog.records


def test_both_names_of_a_key_are_one_too_many():
    message = error_of(lambda: tree_of("ops:\n  channel_scan: torch\n  selective_scan: numba\n"))
    assert "run.yaml:3: ops.selective_scan is the former name of ops.channel_scan" in message


@pytest.mark.parametrize("text", ["ops: 3", "ops: [selective_scan]", "ops: selective_scan", "ops:"])
def test_what_is_no_mapping_holds_no_former_name(text):
    assert values_of(text) is not None
