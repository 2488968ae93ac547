"""Laws of the one writer, on contents and failures that nobody chose."""

from __future__ import annotations

import errno
import json
import math
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdg.errors import MachineError, UserError
from mdg.utils import files

contents = st.binary(max_size=200)
errors = st.sampled_from(
    [KeyboardInterrupt(), KeyError("x"), MemoryError(), OSError(errno.ENOSPC, "full"), OSError(errno.EIO, "failing")]
)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("files")


@pytest.fixture(autouse=True)
def unsynced(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # what it waits for is not looked at here


def put(file: Path, content: bytes | None) -> None:
    file.unlink(missing_ok=True)
    if content is not None:
        file.write_bytes(content)


@given(old=st.none() | contents, parts=st.lists(contents, max_size=5), kept=st.booleans())
def test_the_new_content_comes_at_once_and_the_old_one_is_kept(place, old, parts, kept):
    file, second = place / "a", place / "b"
    put(file, old)
    put(second, None)
    with files.replacing(file, second if kept else None) as stream:
        for part in parts:
            stream.write(part)
            stream.flush()
            assert (file.read_bytes() if file.exists() else None) == old
    assert file.read_bytes() == b"".join(parts)
    assert (second.read_bytes() if second.exists() else None) == (old if kept else None)
    assert {path.name for path in place.iterdir()} <= {"a", "b"}


@given(old=st.none() | contents, parts=st.lists(contents, min_size=1, max_size=5), error=errors, data=st.data())
def test_whatever_breaks_off_a_write_leaves_what_was_there(place, old, parts, error, data):
    file = place / "a"
    put(file, old)
    put(place / "b", None)
    broken = data.draw(st.integers(0, len(parts) - 1))
    expected = {True: MachineError, False: type(error)}[isinstance(error, OSError)]
    with pytest.raises(expected) as caught, files.replacing(file) as stream:
        for number, part in enumerate(parts):
            if number == broken:
                raise error
            stream.write(part)
    assert str(file) in str(caught.value) or not isinstance(error, OSError)
    assert (file.read_bytes() if file.exists() else None) == old
    assert [path.name for path in place.iterdir()] == (["a"] if old is not None else [])


@given(
    lines=st.lists(st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs"])), max_size=6),
    cut=st.integers(0, 50),
)
def test_a_line_that_is_appended_stands_alone_wherever_the_last_one_was_cut_off(place, lines, cut):
    file = place / "log"
    put(file, None)
    for line in lines:
        files.append_line(file, line)
    before = file.read_bytes() if lines else b""
    assert before == "".join(f"{line}\n" for line in lines).encode()
    put(file, before[: max(0, len(before) - cut)])
    files.append_line(file, "new")
    assert file.read_bytes().split(b"\n")[-2:] == [b"new", b""]
    assert file.read_bytes().startswith(before[: max(0, len(before) - cut)])
    file.unlink()


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=4),
    max_leaves=12,
)


def finite(value):
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@given(value=plain)
def test_json_comes_back_with_null_for_what_is_no_number(place, value):
    files.write_json(place / "j", value)
    assert json.loads((place / "j").read_text(encoding="utf-8")) == finite(value)
    (place / "j").unlink()


@given(number=st.sampled_from(sorted(errno.errorcode)))
def test_every_error_of_the_system_is_one_line_with_the_path(number):
    error = files.file_error(OSError(number, os.strerror(number)), "some/place")
    assert isinstance(error, UserError) and error.exit_code in (2, 3)
    assert str(error).startswith("some/place: ") and "\n" not in str(error)
