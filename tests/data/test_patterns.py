"""Which files a pattern or a list means, whatever people call their folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from mdg.data.patterns import check_pattern, folder_of, match_pattern, read_list
from mdg.errors import DataError


def error_of(action) -> str:
    with pytest.raises(DataError) as caught:
        action()
    return str(caught.value)


def touch(root: Path, *files: str) -> Path:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    return root


def names(root: Path, pattern: str, split: str = "train") -> list[str]:
    found = match_pattern(root, pattern, split)
    assert all(file.is_file() and file.is_relative_to(root) for file in found.values())
    return list(found)


# --- patterns ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pattern, message",
    [
        ("rgb/x.png", "{name} in it once"),
        ("{name}/{name}.png", "{name} in it once"),
        ("{role}/{name}.png", r"got {role} in it; expected no fields but {name} and {split}"),
        ("{Split}/{name}.png", "got {Split}"),
        ("/data/{name}.png", "below data.root"),
        ("../other/{name}.png", "below data.root"),
        ("a/../{name}.png", "below data.root"),
    ],
)
def test_patterns_that_cannot_be_meant(pattern, message):
    with pytest.raises(ValueError) as caught:
        check_pattern(pattern)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "pattern, plain",
    [
        ("./rgb/{name}.png", "rgb/{name}.png"),
        ("{split}//rgb/./{name}.*", "{split}/rgb/{name}.*"),
        ("{name}.png", "{name}.png"),
        ("a..b/{name}.png", "a..b/{name}.png"),
    ],
)
def test_needless_parts_are_left_out(pattern, plain):
    assert check_pattern(pattern) == plain


@pytest.mark.parametrize(
    "pattern, folder",
    [
        ("{split}/rgb/{name}.png", "train/rgb"),
        ("rgb/{split}_{name}.png", "rgb"),
        ("rgb/{name}/image.png", "rgb"),
        ("{name}.png", "."),
        ("v_{name}.png", "."),
    ],
)
def test_folder_that_all_files_share(tmp_path, pattern, folder):
    assert folder_of(tmp_path, pattern, "train") == tmp_path / folder


def test_names_in_order(tmp_path):
    root = touch(tmp_path, "train/rgb/b.png", "train/rgb/a.png", "train/rgb/c.jpg", "test/rgb/d.png")
    assert names(root, "{split}/rgb/{name}.png") == ["a", "b"]
    assert names(root, "{split}/rgb/{name}.png", "test") == ["d"]


def test_prefix_and_suffix(tmp_path):
    root = touch(tmp_path, "ir/train_01_ir.tif", "ir/train_02.tif", "ir/test_01_ir.tif", "ir/xtrain_03_ir.tif")
    assert names(root, "ir/{split}_{name}_ir.tif") == ["01"]


def test_name_as_a_folder(tmp_path):
    root = touch(tmp_path, "train/01/rgb.png", "train/01/ir.png", "train/a/02/rgb.png")
    assert names(root, "{split}/{name}/rgb.png") == ["01", "a/02"]


def test_nested_names(tmp_path):
    root = touch(tmp_path, "train/rgb/city/0001.png", "train/rgb/city/x/0001.png", "train/rgb/0001.png")
    found = match_pattern(root, "{split}/rgb/{name}.png", "train")
    assert list(found) == ["0001", "city/0001", "city/x/0001"]
    assert found["city/0001"] == root / "train/rgb/city/0001.png"


def test_any_suffix(tmp_path):
    suffixes = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".PNG", ".Jpg", ".TIFF")
    root = touch(
        tmp_path, *(f"rgb/{k}{suffix}" for k, suffix in enumerate(suffixes)), "rgb/x.txt", "rgb/y", "rgb/z.png~"
    )
    assert names(root, "rgb/{name}.*") == [str(k) for k in range(len(suffixes))]


def test_a_dot_stands_for_itself(tmp_path):
    root = touch(tmp_path, "rgb/a.png", "rgb/bxpng", "rgb/v1.2.png")
    assert names(root, "rgb/{name}.png") == ["a", "v1.2"]


@pytest.mark.parametrize("folder", ["a+b (1)", "x[0-9]", "w.*", "^s$", "a|b", "c\\d", "ü ñ"])
def test_folders_of_special_characters(tmp_path, folder):
    root = touch(tmp_path / folder, f"{folder}/train/01.png", "other/train/02.png")
    assert names(root, f"{folder}/{{split}}/{{name}}.*") == ["01"]


def test_special_characters_in_names_and_splits(tmp_path):
    root = touch(tmp_path, "a+b/x (1)[2].png", "a+b/y$.png", "aab/z.png")
    assert names(root, "{split}/{name}.png", "a+b") == ["x (1)[2]", "y$"]


def test_hidden_files_and_folders_do_not_count(tmp_path):
    root = touch(tmp_path, "rgb/a.png", "rgb/._a.png", "rgb/.cache/b.png", "rgb/.ipynb_checkpoints/a.png")
    assert names(root, "rgb/{name}.png") == ["a"]


def test_a_hidden_folder_that_is_named_counts(tmp_path):
    assert names(touch(tmp_path, ".data/a.png"), ".data/{name}.png") == ["a"]


def test_links_are_followed(tmp_path):
    touch(tmp_path, "elsewhere/a.png", "root/rgb/b.png")
    (tmp_path / "root" / "rgb" / "city").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root" / "ir").symlink_to(tmp_path / "elsewhere")
    assert names(tmp_path / "root", "rgb/{name}.png") == ["b", "city/a"]
    assert names(tmp_path / "root", "ir/{name}.png") == ["a"]


def test_missing_folder(tmp_path):
    touch(tmp_path, "train/RGB/a.png")
    message = error_of(lambda: names(tmp_path, "{split}/rgb/{name}.png"))
    assert f"{tmp_path / 'train/rgb'}: no such folder" in message and "'{split}/rgb/{name}.png'" in message


def test_nothing_fits(tmp_path):
    assert names(touch(tmp_path, "rgb/a.png"), "rgb/{name}.jpg") == []


def test_two_files_of_one_name(tmp_path):
    root = touch(tmp_path, "rgb/a.jpg", "rgb/a.png", "rgb/b.png")
    message = error_of(lambda: names(root, "rgb/{name}.*"))
    assert f"{root / 'rgb/a.jpg'} and {root / 'rgb/a.png'} are both 'a'" in message


# --- lists -------------------------------------------------------------------------------------------------------


def written(root: Path, content: str | bytes) -> Path:
    file = root / "train.txt"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


def read(root: Path, content: str | bytes):
    return read_list(written(root, content), root)


def test_names_one_a_line(tmp_path):
    assert read(tmp_path, "b\ncity/a\n") == (["b", "city/a"], None)


def test_comments_blank_lines_windows_ends_and_mark_of_utf8(tmp_path):
    assert read(tmp_path, b"\xef\xbb\xbf# frames\r\n\r\n  a \r\n #b\r\nc\r\n") == (["a", "c"], None)


def test_names_beyond_ascii(tmp_path):
    assert read(tmp_path, "straße_01\n") == (["straße_01"], None)


@pytest.mark.parametrize("separator", ["\t", " \t ", ",", ", ", " ", "   "])
def test_three_paths_a_line(tmp_path, separator):
    touch(tmp_path, "v/1.jpg", "t/1.tiff", "l/1.png", "v/2.jpg", "t/2.tiff")
    rows = [("v/1.jpg", "t/1.tiff", "l/1.png"), ("v/2.jpg", "t/2.tiff", "l/2.png")]
    listed, files = read(tmp_path, "\n".join(separator.join(row) for row in rows))
    assert listed == ["v/1", "v/2"]
    assert files["rgb"] == {"v/1": tmp_path / "v/1.jpg", "v/2": tmp_path / "v/2.jpg"}
    assert files["thermal"] == {"v/1": tmp_path / "t/1.tiff", "v/2": tmp_path / "t/2.tiff"}
    assert files["label"] == {"v/1": tmp_path / "l/1.png"}, "l/2.png does not exist"


@pytest.mark.parametrize("separator", ["\t", ", "])
def test_paths_with_blanks(tmp_path, separator):
    row = ("my rgb/frame 1.jpg", "my ir/frame 1.tiff", "labels/frame 1.png")
    touch(tmp_path, *row)
    listed, files = read(tmp_path, separator.join(row) + "\n")
    assert listed == ["my rgb/frame 1"]
    assert [files[part]["my rgb/frame 1"] for part in ("rgb", "thermal", "label")] == [tmp_path / path for path in row]


def test_tab_before_comma(tmp_path):
    row = ("a,b.jpg", "t/a.tiff", "l/a.png")
    touch(tmp_path, *row)
    assert read(tmp_path, "\t".join(row))[0] == ["a,b"]


def test_absolute_paths(tmp_path):
    touch(tmp_path, "else/v.jpg", "else/t.png", "else/l.png")
    (tmp_path / "root").mkdir()
    row = [str(tmp_path / "else" / name) for name in ("v.jpg", "t.png", "l.png")]
    listed, files = read(tmp_path / "root", "\t".join(row))
    assert files["rgb"] == {str(tmp_path / "else" / "v"): tmp_path / "else" / "v.jpg"} and len(listed) == 1


@pytest.mark.parametrize(
    "content, line, shown",
    [
        ("a b\n", 1, "2 entries (a b)"),
        ("a\nb c d e\n", 2, "4 entries (b c d e)"),
        ("# c\n\na\nb c d\n", 4, "3 entries (b c d)"),
        ("a b c\nd\n", 2, "1 entries (d)"),
        ("a,b,c,\n", 1, "4 entries"),
    ],
)
def test_lines_of_other_widths_are_named_by_number(tmp_path, content, line, shown):
    message = error_of(lambda: read(tmp_path, content))
    assert f"{tmp_path / 'train.txt'}:{line}: got a line of {shown}" in message and "separated by tabs" in message


@pytest.mark.parametrize(
    "content, shown",
    [("a\nb\na\nb\nc\n", "2 name(s) occur more than once: a, b"), ("x.jpg t l\nx.png t l\n", "1 name(s)")],
)
def test_duplicates(tmp_path, content, shown):
    message = error_of(lambda: read(tmp_path, content))
    assert str(tmp_path / "train.txt") in message and shown in message


@pytest.mark.parametrize("content", ["", "\n \n", "# nothing\n"])
def test_empty_list(tmp_path, content):
    assert "the list is empty" in error_of(lambda: read(tmp_path, content))


def test_missing_list(tmp_path):
    message = error_of(lambda: read_list(tmp_path / "trian.txt", tmp_path))
    assert f"{tmp_path / 'trian.txt'}: no such list; data.split_file names it" in message
