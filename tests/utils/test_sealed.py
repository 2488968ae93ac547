"""The seal of an archive; damage of its bytes is tried in tests/engine/test_checkpoint.py."""

from __future__ import annotations

import struct
import zipfile

import pytest
import torch

from mdg.utils import sealed


@pytest.fixture
def archive(tmp_path):
    """Several members: a view, an empty tensor, one over several blocks of what is read at once, names beyond ASCII."""
    file = tmp_path / "a.pt"
    content = {"a": torch.arange(3.0), "b": torch.zeros(0), "größe": torch.ones(5_000), "view": torch.ones(9, 9)[2:4]}
    with open(file, "w+b") as stream:
        torch.save(content, stream)
        sealed.seal(stream)
    return file


def test_the_directory_of_a_new_archive_is_read_as_the_library_reads_it(archive):
    with open(archive, "rb") as stream:
        members, written = sealed._members(stream), sealed._written_members(stream)
    assert [member[1:] for member in written] == [member[1:] for member in members] and len(members) > 5
    assert sealed.verify_archive(archive)


@pytest.mark.parametrize(("place", "value"), [(10, b"\xff\xff"), (16, b"\xff\xff\xff\xff")], ids=["count", "place"])
def test_the_64_bit_form_is_left_to_the_library(archive, place, value):
    with open(archive, "r+b") as stream:
        stream.seek(place - sealed.END_RECORD - sealed.COMMENT, 2)
        stream.write(value)
        stream.flush()
        assert sealed._written_members(stream) is None


def test_members_of_more_than_four_gigabytes_are_left_to_the_library(archive):
    with open(archive, "r+b") as stream:
        stream.seek(-sealed.END_RECORD - sealed.COMMENT, 2)
        place = struct.unpack("<16xL2x", stream.read(sealed.END_RECORD))[0]
        stream.seek(place + 24)
        stream.write(b"\xff\xff\xff\xff")
        stream.flush()
        assert sealed._written_members(stream) is None


def test_headers_far_from_the_member_before(tmp_path):
    """Padding of more than is read at once, as ``storage_alignment`` can ask for."""
    file = tmp_path / "far.zip"
    with zipfile.ZipFile(file, "w") as archive:
        for name in ("one", "two"):
            entry = zipfile.ZipInfo(name)
            entry.extra = struct.pack("<2H", 0x4246, 3000) + b"Z" * 3000
            archive.writestr(entry, name * 10)
    with open(file, "r+b") as stream:
        sealed.seal(stream)
    assert sealed.verify_archive(file)
    damaged = bytearray(file.read_bytes())
    damaged[2000] ^= 1
    file.write_bytes(damaged)
    with pytest.raises(sealed.Damaged):
        sealed.verify_archive(file)
