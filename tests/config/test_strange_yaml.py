"""YAML of strangers: whatever it says, it is a plain mapping within limits, or one line that says why not."""

from __future__ import annotations

import os
import shlex
import textwrap
from pathlib import Path

import pytest

from mdg.config import load_config
from mdg.config.yaml_text import MAX_DEPTH, dump, parse
from mdg.config.yaml_tree import apply_override, parse_yaml, read_yaml
from mdg.errors import ConfigError
from mdg.utils.limits import limit

pytestmark = pytest.mark.no_cover  # long texts


def refusal(action) -> str:
    with pytest.raises(ConfigError) as caught:
        action()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def refused(text: str) -> str:
    return refusal(lambda: parse(text, "f.yaml"))


def laughs(levels: int, width: int = 9) -> str:
    first = f"a0: &a0 [{', '.join(['x'] * width)}]\n"
    return first + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * width)}]\n" for i in range(1, levels))


# --- size ----------------------------------------------------------------------------------------------------------


def test_what_aliases_repeat_is_counted_as_often():
    # Lists of 10, 91, 820, 7381, 66430 and 597871 values, six keys and the mapping.
    assert len(parse(laughs(2), "f")[0]["a1"]) == 9
    for levels, values in ((6, 672_610), (40, 1 << 62)):
        message = refused(laughs(levels))
        assert f"got {values:,} values" in message and f"--limit yaml_nodes={values}" in message
    assert len(refused(laughs(40))) < 400


def test_the_limit_is_met_exactly(monkeypatch):
    text = "a: &a [1, 2]\nb: [*a, *a]\n"  # the mapping, 2 keys, 3, and 1 + 2 * 3
    monkeypatch.setenv("MDG_LIMIT_YAML_NODES", "13")
    assert parse(text, "f")[0]["b"] == [[1, 2], [1, 2]]
    monkeypatch.setenv("MDG_LIMIT_YAML_NODES", "12")
    assert "got 13 values" in refused(text)


def test_merge_keys_count_too():
    text = "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}\n" for i in range(1, 30))
    assert "values of a configuration" in refused(text)


@pytest.mark.parametrize("text", ["[" * 100_000, "{a: " * 3000, "a: " + "[" * MAX_DEPTH + "]" * MAX_DEPTH, "- " * 999])
def test_depth(text):
    assert f"more than {MAX_DEPTH} levels" in refused(text)


def test_depth_made_of_aliases():
    chain = "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 5000))
    assert f"more than {MAX_DEPTH} levels" in refused(f"a0: &a0 [1]\n{chain}")


@pytest.mark.parametrize("text", ["a: &x [*x]", "a: &x {b: *x}", "a: &x [[[*x]]]", "a: &x {<<: *x}"])
def test_an_anchor_that_contains_itself(text):
    assert "contains itself" in refused(text)


def test_bytes(tmp_path, monkeypatch):
    monkeypatch.setenv("MDG_LIMIT_YAML_BYTES", "1000")
    (tmp_path / "a.yaml").write_text("#" * 1001)
    assert "--limit yaml_bytes=1001" in refusal(lambda: read_yaml(tmp_path / "a.yaml"))
    assert "yaml_bytes" in refused("#" * 1001) and parse("#" * 1000, "f") == ({}, {})


# --- kinds ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sign", ["\0", "\x07", "\x1b", "\x7f", "\ud800", "\ufffe"])
def test_characters_of_no_text(sign):
    for text in (f"a: 1\nb: {sign}", f"a: 1\nb: 'x{sign}y'", f"a: 1\n{sign}: 2"):
        assert refused(text).startswith("f.yaml:2: ") and f"U+{ord(sign):04X}" in refused(text)


@pytest.mark.parametrize("escape", ["\\0", "\\e", "\\x07", "\\ud800", "\\x9b"])
def test_escapes_that_stand_for_characters_of_no_text(escape):
    assert refused(f'a: 1\nb: "{escape}"').startswith("f.yaml:2: ")
    assert refused(f'a: 1\n"{escape}": 1').startswith("f.yaml:2: ")


def test_any_letters_are_text():
    assert parse('a: "背景 é \\U0001F600\\n\\t"\nb: größe', "f")[0] == {"a": "背景 é 😀\n\t", "b": "größe"}


@pytest.mark.parametrize(
    "number", ["9223372036854775808", "-9223372036854775808", "9" * 5000, "0x" + "f" * 17, "0b" + "1" * 64]
)
def test_integers_of_more_than_64_bits(number):
    assert refused(f"\na: {number}").startswith("f.yaml:2: ") and "64 bits" in refused(f"a: {number}")


def test_the_largest_integer():
    assert parse("a: 9223372036854775807", "f")[0]["a"] == 2**63 - 1


@pytest.mark.parametrize("number", ["010", "-07", "1:30", "190:20:30", "!!float 1:30.5", "0_7"])
def test_numbers_that_yaml_reads_as_others(number):
    assert "no decimal number" in refused(f"a: {number}") and parse(f"a: '{number}'", "f")[0] == {"a": number}


@pytest.mark.parametrize(
    "value", ["!!int ''", "!!int x", "!!bool perhaps", "!!float x", "!!int [1]", "!!str {}", "!!map 1"]
)
def test_values_that_are_not_of_their_tag(value):
    assert refused(f"\na: {value}").startswith("f.yaml:2: ")


@pytest.mark.parametrize(
    "tag",
    ["!!set {a, b}", "!!binary aGk=", "!!omap [a: 1]", "!!timestamp 2024-01-01", "!x 1", "!!python/name:os.system x"],
)
def test_values_that_are_not_plain(tag):
    assert "tag" in refused(f"a: {tag}")


@pytest.mark.parametrize("word", ["2024-01-01", "=", "0o17", "e5", "12.12.2024"])
def test_words_that_are_text(word):
    assert parse(f"a: {word}", "f")[0] == {"a": word}


@pytest.mark.parametrize("key", ["yes", "off", "null", "~", "1.5"])
def test_keys_that_yaml_reads_as_something_else(key):
    assert "quotes" in refused(f"{key}: 1") and parse(f"'{key}': 1", "f")[0] == {key: 1}


@pytest.mark.parametrize("other", ["16", "0x10", "1_6", "+16", "'16'"])
def test_keys_that_are_one_number(other):
    assert "stands here twice" in refused(f"a: {{16: 1, {other}: 2}}")


@pytest.mark.parametrize("text", ["- 1", "3", "text", "'quoted'", "!!null x"])
def test_no_mapping_at_the_top(text):
    assert "expected a mapping" in refused(text)


@pytest.mark.parametrize("text", [None, 3, b"a: 1", ["a"], {"a": 1}])
def test_what_is_no_text(text):
    """As the configuration inside of a stranger's checkpoint may be."""
    assert "expected text" in refusal(lambda: parse_yaml(text, "inside a.pt"))


@pytest.mark.parametrize(
    "value", ["1e5", "1e-4", ".5", "no", "12:30", "010", "2024-01-01", "~", "", "null", "0x10", "=", "<<", "é"]
)
def test_text_is_written_such_that_it_is_read_as_text(value):
    assert parse(dump({"a": [value], value: 1}), "f")[0] == {"a": [value], value: 1}


# --- files ---------------------------------------------------------------------------------------------------------


def test_what_is_no_file(tmp_path):
    assert "a folder" in refusal(lambda: read_yaml(tmp_path))
    os.mkfifo(tmp_path / "pipe")
    for device in (tmp_path / "pipe", Path("/dev/zero")):
        assert "no file" in refusal(lambda device=device: read_yaml(device))
    os.symlink("loop", tmp_path / "loop")
    for name in ("loop", "x" * 300, "nul\0", "file.yaml/below"):
        (tmp_path / "file.yaml").write_text("a: 1")
        assert refusal(lambda name=name: read_yaml(tmp_path / name))


def test_encodings(tmp_path):
    (tmp_path / "a.yaml").write_bytes("a: größe\n".encode("utf-16"))
    assert "UTF-8" in refusal(lambda: read_yaml(tmp_path / "a.yaml"))
    (tmp_path / "a.yaml").write_bytes(b"\xef\xbb\xbf" + "a: größe\r\n".encode())
    assert read_yaml(tmp_path / "a.yaml").values == {"a": "größe"}


def run_with(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(textwrap.dedent(text))
    return folder / "run.yaml"


@pytest.mark.parametrize(
    "base", [".", "/dev/zero", "run.yaml", '"a\\0b"', "~nobody_of_that_name/x.yaml", "''", "[1]", "'\\'"]
)
def test_bases_that_are_none(tmp_path, base):
    message = refusal(lambda: load_config(run_with(tmp_path, run=f"_base_: {base}\ndata: Synthetic")))
    assert str(tmp_path) in message or "/dev/zero" in message


def test_a_base_that_is_no_mapping(tmp_path):
    file = run_with(tmp_path, run="_base_: list.yaml", list="- 1")
    assert "list.yaml: expected a mapping" in refusal(lambda: load_config(file))


def test_a_base_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "base.yaml").write_text("data: Synthetic\nseed: 5")
    assert load_config(run_with(tmp_path, run="_base_: ~/base.yaml")).seed == 5


def test_bases_that_double(tmp_path):
    files = {f"b{i}": f"_base_: [b{i + 1}.yaml, b{i + 1}.yaml]" for i in range(40)}
    file = run_with(tmp_path, run="_base_: b0.yaml", b40="data: Synthetic", **files)
    assert "yaml_files" in refusal(lambda: load_config(file))


def test_a_long_chain_of_bases(tmp_path):
    files = {f"b{i}": f"_base_: b{i + 1}.yaml" for i in range(2000)}
    file = run_with(tmp_path, run="_base_: b0.yaml", **files)
    assert f"at most {limit('yaml_files')}" in refusal(lambda: load_config(file))


# --- overrides -----------------------------------------------------------------------------------------------------


def overridden(text: str, *items: str) -> dict:
    tree = parse_yaml(text, "f")
    for item in items:
        tree = apply_override(tree, item)
    return tree.values


@pytest.mark.parametrize("place", ["²", "٣", "9" * 5000, "1" * 10, "-1", "1.5"])
def test_places_that_are_none(place):
    assert "cannot set" in refusal(lambda: overridden("a: [1, 2]", f"a.{place}=3"))


def test_keys_that_are_numbers():
    values = overridden("a: {1: x, 16: y}", "a.1=z", "a.16=w")
    assert values == {"a": {1: "z", 16: "w"}}


@pytest.mark.parametrize("item", ["a.\0=1", "a\nb=1", "\udcff=1", "a.\x1b[1m=2"])
def test_override_of_a_key_that_is_none(item):
    assert "dotted.key=value" in refused_item(item)


def refused_item(item: str) -> str:
    with pytest.raises(ConfigError) as caught:
        overridden("a: 1", item)
    return str(caught.value)


@pytest.mark.parametrize(
    "item", ["a=\0", "a=\udcff", "a=1\nb: 2", ".".join(["a"] * 5000) + "=1", "a=" + "[" * 5000, "a=&x [*x]"]
)
def test_override_by_a_value_that_is_none(item):
    assert refused_item(item).startswith("--opts ")


def test_text_that_was_not_quoted_is_told_how_to_quote():
    for value in ("{split}/x", "@name", "a: b", "*.png", "[a", "{split}/it's"):
        message = refused_item(f"data.rgb={value}")
        assert "quotes of its own: --opts" in message
        command = message.rpartition("--opts ")[2]
        (item,) = shlex.split(command)
        assert overridden("{}", item) == {"data": {"rgb": value}}
