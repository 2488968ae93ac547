"""Which colour file goes with which thermal file."""

from __future__ import annotations

from pathlib import Path

import pytest

from mdg.data.reading.pair_files import find_pairs, pairs_in_list
from mdg.errors import DataError


def make(folder: Path, *names: str) -> Path:
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x")
    return folder


def names(pairs) -> dict[str, tuple[str, str | None]]:
    return {name: (rgb.name, thermal and thermal.name) for name, (rgb, thermal) in pairs.items()}


def test_folders_within_folders(tmp_path):
    rgb = make(tmp_path / "rgb", "day/1.png", "night/1.jpg", "2.png")
    thermal = make(tmp_path / "ir", "day/1.tiff", "night/1.png", "2.png")
    found = find_pairs(rgb, thermal)
    assert list(found) == ["2", "day/1", "night/1"]
    assert found["day/1"] == (rgb / "day/1.png", thermal / "day/1.tiff")


@pytest.mark.parametrize(
    ("pattern", "file"),
    [("{name}_ir.*", "1_ir.png"), ("ir_{name}.tiff", "ir_1.tiff"), ("{name}_T.JPG", "1_T.JPG"), ("{name}.*", "1.png")],
)
def test_thermal_files_of_other_names(tmp_path, pattern, file):
    rgb, thermal = make(tmp_path / "rgb", "a/1.png"), make(tmp_path / "ir", f"a/{file}")
    assert names(find_pairs(rgb, thermal, thermal_name=pattern)) == {"a/1": ("1.png", file)}


def test_both_in_one_folder(tmp_path):
    folder = make(tmp_path / "all", "1_rgb.jpg", "1_ir.png", "2_rgb.jpg", "2_ir.png", "notes.txt")
    found = find_pairs(folder, folder, rgb_name="{name}_rgb.*", thermal_name="{name}_ir.*")
    assert names(found) == {"1": ("1_rgb.jpg", "1_ir.png"), "2": ("2_rgb.jpg", "2_ir.png")}
    with pytest.raises(DataError, match="lie in one folder; say how they are called with --rgb-name"):
        find_pairs(folder, folder)


@pytest.mark.parametrize("pattern", ["ir.png", "{name}/{name}.png", "x/{name}.png", "{name}{name}"])
def test_bad_patterns(tmp_path, pattern):
    rgb = make(tmp_path / "rgb", "1.png")
    with pytest.raises(DataError, match=r"--thermal-name .*: expected the name of a file with \{name\} once"):
        find_pairs(rgb, make(tmp_path / "ir", "1.png"), thermal_name=pattern)


def test_a_pattern_that_nothing_fits(tmp_path):
    rgb, thermal = make(tmp_path / "rgb", "1.png"), make(tmp_path / "ir", "1_thermal.png")
    with pytest.raises(DataError, match="no image of .*ir is called so; there are 1_thermal.png"):
        find_pairs(rgb, thermal, thermal_name="{name}_ir.*")


def test_letters_of_a_pattern_are_meant(tmp_path):
    """A dot is a dot, and brackets are brackets."""
    rgb, thermal = (
        make(tmp_path / "rgb", "1.png", "2.png"),
        make(tmp_path / "ir", "1.(ir).png", "2x(ir).png", "2.(ir).png"),
    )
    assert names(find_pairs(rgb, thermal, thermal_name="{name}.(ir).*"))["2"] == ("2.png", "2.(ir).png")


def test_outputs_are_no_inputs(tmp_path):
    folder = make(tmp_path / "pngs", "1.png", "masks/1_mask.png")
    assert list(find_pairs(folder, None, leave_out=folder / "masks")) == ["1"]
    assert list(find_pairs(folder, None)) == ["1", "masks/1_mask"]


def test_a_list(tmp_path):
    listed = make(tmp_path, "c.csv") / "c.csv"
    listed.write_text(
        "\ufeffRGB, thermal, name\nvis/1.png, ir/x.png, first\n# a note\nvis/2.png, ir/y.png,\nboth.png,,\n"
    )
    assert pairs_in_list(listed) == {
        "first": (tmp_path / "vis/1.png", tmp_path / "ir/x.png"),
        "2": (tmp_path / "vis/2.png", tmp_path / "ir/y.png"),
        "both": (tmp_path / "both.png", None),
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "got the columns a, b, expected rgb, thermal"),
        ("", "got the columns none"),
        ("rgb,thermal\n", "a list without pairs"),
        ("rgb,thermal\na/1.png,x\nb/1.png,y\n", "line 3: a second pair called '1'"),
        ("rgb,thermal\n,y\n", "line 2 names no RGB image"),
        ("rgb,thermal,name\na,b,../../x\n", r"the name '\.\./\.\./x' leaves the folder"),
    ],
)
def test_bad_lists(tmp_path, text, message):
    (tmp_path / "c.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        pairs_in_list(tmp_path / "c.csv")


def test_a_list_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match=r"c.csv: No such file or directory; check the path"):
        pairs_in_list(tmp_path / "c.csv")
