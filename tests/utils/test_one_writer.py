"""Files are written whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mdg.errors import MachineError, UserError
from mdg.utils import files
from mdg.utils.files import (
    append_line,
    explained,
    file_error,
    keep_second,
    remove_partials,
    replacing,
    require_writable,
    write_bytes,
    write_json,
    write_text,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_content_folders_and_nothing_else(tmp_path):
    file = tmp_path / "a" / "b" / "c.txt"
    write_text(file, "one")
    write_text(file, "zwei ä 二")
    assert file.read_text(encoding="utf-8") == "zwei ä 二" and names(file.parent) == ["c.txt"]


def test_json_has_no_nan(tmp_path):
    write_json(tmp_path / "x.json", {"a": [float("nan"), (1, float("inf"))]})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": [None, [1, None]]}


def test_bytes_of_names_that_are_not_utf8_survive(tmp_path):
    name = os.fsdecode(b"\xd6\xd0.png")
    write_text(tmp_path / name, name)
    assert (tmp_path / name).read_bytes() == b"\xd6\xd0.png"


@pytest.mark.parametrize("fault", ["write", "_sync", "_rename"])
def test_where_writing_fails_the_old_content_stays_and_nothing_is_left(tmp_path, monkeypatch, fault):
    file = tmp_path / "x"
    write_bytes(file, b"old")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    if fault != "write":
        monkeypatch.setattr(files, fault, full)
    with (
        pytest.raises(MachineError, match=r"x: cannot be written \(No space left"),
        replacing(file) as stream,
    ):
        stream.write(b"new")
        if fault == "write":
            full()
    assert file.read_bytes() == b"old" and names(tmp_path) == ["x"]


def test_another_error_passes_through_and_leaves_the_old_content(tmp_path):
    write_bytes(tmp_path / "x", b"old")
    with pytest.raises(KeyboardInterrupt), replacing(tmp_path / "x") as stream:
        stream.write(b"half")
        raise KeyboardInterrupt
    assert (tmp_path / "x").read_bytes() == b"old" and names(tmp_path) == ["x"]


def test_two_writers_do_not_mix_their_bytes(tmp_path):
    file = tmp_path / "x"
    with replacing(file) as one, replacing(file) as two:
        one.write(b"1" * 9)
        two.write(b"2" * 3)
    assert file.read_bytes() == b"1" * 9 and names(tmp_path) == ["x"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_device_is_written_to_not_replaced():
    with pytest.raises(MachineError, match="/dev/full"):
        write_text("/dev/full", "x")
    assert Path("/dev/full").is_char_device()


def test_a_pipe_gets_the_bytes(tmp_path):
    code = "from mdg.utils.files import write_text; write_text('/dev/stdout', 'hello')"
    if not Path("/dev/stdout").exists():
        pytest.skip("no /dev/stdout on this system")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "hello", done.stderr


def test_a_link_keeps_pointing_to_its_file(tmp_path):
    write_text(tmp_path / "target", "old")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "target").read_text() == "new"


def test_the_content_before_is_kept_under_another_name(tmp_path, monkeypatch):
    last, previous = tmp_path / "last", tmp_path / "previous"
    for content in (b"1", b"2", b"3"):
        with replacing(last, keep_as=previous) as stream:
            stream.write(content)
    assert (last.read_bytes(), previous.read_bytes()) == (b"3", b"2") and names(tmp_path) == ["last", "previous"]
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(errno.EPERM, "no hard links")))
    keep_second(last, previous)
    assert previous.read_bytes() == b"3"


def test_two_names_of_one_file_leave_nothing_behind(tmp_path):
    """As after a kill between keeping the old content and renaming the new one."""
    last, previous = tmp_path / "last", tmp_path / "previous"
    last.write_bytes(b"1")
    os.link(last, previous)
    with replacing(last, keep_as=previous) as stream:
        stream.write(b"2")
    assert (last.read_bytes(), previous.read_bytes()) == (b"2", b"1") and names(tmp_path) == ["last", "previous"]


def test_lines_are_appended_on_lines_of_their_own(tmp_path):
    file = tmp_path / "x"
    append_line(file, "one")
    append_line(file, "two")
    assert file.read_bytes() == b"one\ntwo\n"
    file.write_bytes(b"one\nhal")
    append_line(file, "two")
    assert file.read_bytes() == b"one\nhal\ntwo\n"


def test_leftovers_of_killed_processes_are_removed(tmp_path):
    code = (
        "import os, sys; from mdg.utils import files\n"
        "files._rename = lambda *_: os.kill(os.getpid(), 9)\n"
        "files.write_text(sys.argv[1], 'new')"
    )
    write_text(tmp_path / "x", "old")
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "x")], check=False)
    assert (tmp_path / "x").read_text() == "old" and len(names(tmp_path)) == 2
    remove_partials(tmp_path)
    assert names(tmp_path) == ["x"]


@pytest.mark.parametrize(
    ("number", "kind", "advice"),
    [
        (errno.ENOSPC, MachineError, "free some space"),
        (errno.EDQUOT, MachineError, "free some space"),
        (errno.EROFS, MachineError, "refuses"),
        (errno.EIO, MachineError, "refuses"),
        (errno.ENAMETOOLONG, UserError, "shorter name"),
        (errno.ENOTDIR, UserError, "part of the path is a file"),
        (errno.EACCES, UserError, "who may read and write"),
        (errno.ELOOP, UserError, "circle"),
    ],
)
def test_errors_say_what_to_do(number, kind, advice):
    error = file_error(OSError(number, os.strerror(number), "/some/file"))
    assert type(error) is kind and str(error).startswith("/some/file: ") and advice in str(error)


@pytest.mark.parametrize("name", ["n" * 300, "file/below", "folder"])
def test_paths_that_cannot_be_are_errors_of_the_user(tmp_path, name):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="; "):
        write_text(tmp_path / name, "x")
    assert names(tmp_path) == ["file", "folder"]


@pytest.mark.parametrize("name", ["n" * 300, "a/" + "n" * 300, "file/below", "folder", "/proc/x", "/proc/x/y"])
def test_what_cannot_be_written_is_known_before(tmp_path, name):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match=f"^--out {tmp_path / name}: .*; "):
        require_writable(tmp_path / name, "--out")
    assert names(tmp_path) == ["file", "folder"]


@pytest.mark.parametrize("name", ["new", "a/b/c", "file", "/dev/null", "/dev/full"])
def test_what_can_be_written_stays_as_it_is(tmp_path, name):
    (tmp_path / "file").write_text("x")
    require_writable(tmp_path / name)
    assert names(tmp_path) == ["file"] and (tmp_path / "file").read_text() == "x"


@pytest.mark.parametrize(("text", "content"), [("名\udcd6", "名".encode() + b"\xd6"), ("a\ud800", b"a\\ud800")])
def test_text_with_half_a_character_is_written(tmp_path, text, content):
    write_text(tmp_path / "a", text)
    assert (tmp_path / "a").read_bytes() == content


def test_the_error_names_the_path_it_was_given():
    with pytest.raises(UserError, match="^config.yaml: No such file"), explained("config.yaml"):
        Path("/nowhere/at/all").read_text()
