"""Lists of frames as people's programs write them."""

from __future__ import annotations

import os

import pytest

from mdg.data.reading.names import decode_lines, read_lines, require_different
from mdg.errors import DataError


def error_of(action) -> str:
    with pytest.raises(DataError) as caught:
        action()
    return str(caught.value)


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", pytest.param(("utf-16-be", b"\xfe\xff"), id="utf-16-be")]
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_encodings_and_ends_of_lines(encoding, end):
    name, mark = encoding if isinstance(encoding, tuple) else (encoding, b"")
    content = mark + end.join(["  a_1 ", "", "# no name", "straße", "背景"]).encode(name)
    assert decode_lines(content, "x.txt") == {1: "a_1", 4: "straße", 5: "背景"}


@pytest.mark.parametrize("separator", ["\x85", "\u2028", "\x0b", "\x0c"])
def test_only_ends_of_lines_end_a_line(separator):
    """``str.splitlines`` would cut the name in two."""
    assert decode_lines(f"a{separator}b\nc".encode(), "x.txt") == {1: f"a{separator}b", 2: "c"}


def test_bytes_that_are_no_utf8_are_those_of_file_names():
    content = "中_01\n".encode("gbk")
    assert decode_lines(content, "x.txt") == {1: content.strip().decode("utf-8", "surrogateescape")}
    assert os.fsencode(decode_lines(content, "x.txt")[1]) == content.strip()


def test_end_mark_of_dos():
    assert decode_lines(b"a\r\nb\r\n\x1a", "x.txt") == {1: "a", 2: "b"}


@pytest.mark.parametrize(
    "content, shown",
    [
        ("a\r\nb\r\n".encode("utf-16-le"), "0x00, expected a list in plain text; perhaps UTF-16 without its mark"),
        (bytes(5000), "0x00"),
        (b"\x89PNG\r\n\x1a\n" + b"\x01" * 9, "holds a byte 0x1a"),
        (b"a\nb\x07\n", "0x07"),
        (b"\xff\xfea", "cannot be read as UTF-16-LE"),
        (b"\xff\xfe\x00\x00a\x00", "cannot be read as UTF-32-LE"),
        (b"\xff\xfe\x00\xd8a\x00", "cannot be read as UTF-16-LE"),
        (b"\r\n<!DOCTYPE HTML>\n<html>", "is a web page"),
        (b"\xef\xbb\xbf<html lang='en'>", "is a web page"),
    ],
)
def test_what_is_no_list(content, shown):
    message = error_of(lambda: decode_lines(content, "the/x.txt"))
    assert message.startswith("the/x.txt: ") and shown in message


def test_a_file_beyond_the_limit_is_not_read(tmp_path, monkeypatch):
    file = tmp_path / "train.txt"
    with open(file, "wb") as stream:
        stream.truncate(1 << 40)  # a hole: reading it would take the memory of several machines
    message = error_of(lambda: read_lines(file))
    assert f"{file}: got {1 << 40:,} bytes" in message and f"--limit list_bytes={1 << 40}" in message
    file.write_bytes(b"a\n" * 10)
    monkeypatch.setenv("MDG_LIMIT_LIST_BYTES", "19")
    assert "got 20 bytes" in error_of(lambda: read_lines(file))
    monkeypatch.setenv("MDG_LIMIT_LIST_BYTES", "20")
    assert len(read_lines(file)) == 10


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="needs a device without an end")
def test_a_device_without_an_end(tmp_path, monkeypatch):
    monkeypatch.setenv("MDG_LIMIT_LIST_BYTES", "1000")
    (tmp_path / "train.txt").symlink_to("/dev/zero")
    assert "got 1,001 bytes" in error_of(lambda: read_lines(tmp_path / "train.txt"))


def test_a_file_that_cannot_be_read(tmp_path):
    assert f"{tmp_path}: Is a directory" in error_of(lambda: read_lines(tmp_path))
    assert "No such file" in error_of(lambda: read_lines(tmp_path / "x.txt"))


def test_names_that_occur_twice_are_given_with_their_lines():
    require_different("x.txt", {1: "a", 2: "A", 3: "b"})
    message = error_of(lambda: require_different("x.txt", {1: "a", 3: "b", 7: "a", 8: "c"}))
    assert message.startswith("x.txt: 1 name(s) occur more than once: a (the first on lines 1, 7)")
    assert "1 name(s)" in error_of(lambda: require_different("x.txt", {1: "\u00fc", 2: "u\u0308"}))
