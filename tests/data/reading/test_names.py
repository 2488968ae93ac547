"""Names that are the same, and why a name finds no file."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from pathlib import Path

import pytest

from mdg.data.reading.names import alike, clues, name_bytes, pick, same, unite

COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "größe_é") for form in ("NFC", "NFD"))
NOT_UTF8 = b"\xd6\xd0_01".decode("utf-8", "surrogateescape")


def test_spelling():
    assert COMPOSED != DECOMPOSED and same(COMPOSED) == same(DECOMPOSED) == COMPOSED
    assert same("aA") == "aA" and alike("aA") == alike("Aa") and alike(DECOMPOSED.upper()) == alike(COMPOSED)
    assert same(NOT_UTF8) == NOT_UTF8


@pytest.mark.parametrize("name", ["a/b 1", COMPOSED, DECOMPOSED, "背景"])
def test_hashes_of_names_in_utf8_are_what_they_always_were(name):
    assert hashlib.sha256(name_bytes(name)).digest() == hashlib.sha256(name.encode()).digest()


def test_names_that_are_not_utf8_have_bytes():
    assert name_bytes(NOT_UTF8) == os.fsencode(NOT_UTF8) == b"\xd6\xd0_01"
    assert len({name_bytes(name) for name in ("\ud800", "\ud801", NOT_UTF8)}) == 3


def test_unite_takes_each_name_once_in_its_first_spelling():
    assert unite([["b", DECOMPOSED], [COMPOSED, "a"], ["A"]]) == sorted(["A", "a", "b", DECOMPOSED])


def test_pick():
    files = {DECOMPOSED: Path("1"), "a": Path("2"), "b": Path("3")}
    assert pick([COMPOSED, "a", "B"], files) == {COMPOSED: Path("1"), "a": Path("2")}


def test_clues():
    found = clues(
        ["Image_1", "02", NOT_UTF8, "rgb\\7", "gone"],
        ["image_1", "02_x"],
        {"02": Path("x/02.heic"), "y": Path("y.heic")},
    )
    assert "'image_1' is there, which differs in the case of letters" in found["Image_1"]
    assert found["02"].startswith("02.heic is there, but '.heic' is not read here")
    assert "save the list as UTF-8" in found[NOT_UTF8] and "backslashes" in found["rgb\\7"]
    assert "gone" not in found


def test_clues_to_suffixes_that_only_have_to_be_asked_for():
    there = {"00": Path("x/00.JPG"), "01": Path("x/01.heic")}
    found = clues(["00", "01"], [], there, readable=(".jpg",))
    assert "00.JPG is there" in found["00"] and found["00"].endswith("end it with '.JPG' or '.*'")
    assert "'.heic' is not read here: convert it" in found["01"]


def test_clues_to_names_with_more_in_them():
    found = clues(["01", "02", "7_rgb", "8_rgb", "b"], ["01_mask", "ir_02", "7", "9_rgb", "b"], {})
    assert "'01_mask' is there" in found["01"] and "'ir_02' is there" in found["02"]
    assert "'7' is there" in found["7_rgb"]
    assert found.keys() == {"01", "02", "7_rgb"}, "a name is no clue to itself, nor to one that shares a part with it"
