"""Which files a pattern or a list means, whatever people call their folders."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from mdg.data.datasets.patterns import PARTS, folder_of, match_pattern, read_list, require_apart, scan_pattern
from mdg.errors import DataError
from mdg.options.folder import check_pattern


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


def test_a_link_round_in_a_circle(tmp_path):
    root = touch(tmp_path, "train/rgb/a.png")
    (root / "train" / "rgb" / "loop").symlink_to(root / "train")
    (root / "train" / "rgb" / "self").symlink_to("self")
    assert names(root, "{split}/rgb/{name}.png") == ["a"]


@pytest.mark.parametrize("pattern", ["rgb/{name}.jpg", "rgb/{name}.JPG", "rgb/{name}.*"])
def test_case_of_the_suffix_never_matters(tmp_path, pattern):
    assert names(touch(tmp_path, "rgb/a.JPG", "rgb/b.jpg", "rgb/c.Jpg"), pattern) == ["a", "b", "c"]


def test_case_of_names_and_of_other_endings_matters(tmp_path):
    root = touch(tmp_path, "rgb/A_ir.png", "rgb/B_IR.png")
    assert names(root, "rgb/{name}_ir.png") == ["A"]


def test_files_that_differ_in_the_case_of_the_suffix(tmp_path):
    root = touch(tmp_path, "rgb/a.JPG", "rgb/a.jpg")
    if len(list((root / "rgb").iterdir())) == 2:
        assert "are both 'a'" in error_of(lambda: names(root, "rgb/{name}.jpg"))


@pytest.mark.parametrize("stored, written", [("NFD", "NFC"), ("NFC", "NFD")])
def test_folders_and_endings_of_another_spelling(tmp_path, stored, written):
    root = touch(tmp_path, unicodedata.normalize(stored, "größe/für_é.png"))
    pattern = unicodedata.normalize(written, "größe/{name}_é.png")
    found = match_pattern(root, pattern, "train")
    assert [unicodedata.normalize("NFC", name) for name in found] == [unicodedata.normalize("NFC", "für")]
    assert all(file.is_file() for file in found.values())


def test_two_files_whose_names_read_the_same(tmp_path):
    root = touch(tmp_path, *(f"rgb/{unicodedata.normalize(form, 'é')}.png" for form in ("NFC", "NFD")))
    if len(list((root / "rgb").iterdir())) == 2:
        assert "are both" in error_of(lambda: names(root, "rgb/{name}.png"))


def test_files_that_fit_but_for_their_suffix(tmp_path):
    root = touch(tmp_path, "rgb/a.png", "rgb/b.heic", "rgb/b.txt.bak", "rgb/x_c.heic")
    scanned = scan_pattern(root, "rgb/{name}.*", "train")
    assert list(scanned.files) == ["a"] and set(scanned.others) == {"b", "b.txt", "x_c"}
    assert set(scan_pattern(root, "rgb/x_{name}.png", "train").others) == {"c"}
    assert scan_pattern(root, "rgb/{name}_ir", "train").others == {}


def test_a_folder_in_another_case_is_named(tmp_path):
    root = touch(tmp_path, "train/RGB/a.png")
    if not (root / "train" / "rgb").exists():
        assert "'RGB' is there: the case of letters matters" in error_of(lambda: names(root, "{split}/rgb/{name}.png"))


def test_a_file_of_two_parts_names_both():
    files = {"rgb": {"a_ir": Path("a_ir.png"), "a": Path("a.jpg")}, "thermal": {"a": Path("a_ir.png")}}
    message = error_of(lambda: require_apart(files, {"rgb": "'{name}.*'", "thermal": "'{name}_ir.png'"}, "do that"))
    assert message == "1 file(s) fit both '{name}.*' and '{name}_ir.png', such as a_ir.png; do that"
    require_apart({"rgb": {"a": Path("a.jpg")}, "thermal": {"a": Path("a_ir.png")}}, {}, "")


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
    assert files["label"] == {"v/1": tmp_path / "l/1.png", "v/2": tmp_path / "l/2.png"}, "also one that is not there"


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


def matching(*listed: str, root: Path = Path()):
    """What patterns found: files in rgb/."""
    return lambda: {"rgb": {name: root / "rgb" / f"{name}.png" for name in listed}}


@pytest.mark.parametrize(
    "line, name",
    [
        ("A 000", "A 000"), ("a, b", "a, b"), ("00.png", "00"), ("00.JPG", "00"), ("./00", "00"), ("rgb/00.png", "00"),
        ("rgb\\00.png", "00"), ("city\\01", "city/01"), ("A 000.jpg", "A 000"), ("v1.2", "v1.2"),
    ],
)  # fmt: skip
def test_what_people_write_for_a_name(tmp_path, line, name):
    known = matching("A 000", "a, b", "00", "city/01", "v1.2", root=tmp_path)
    assert read_list(written(tmp_path, f"{line}\n"), tmp_path, known) == ([name], None)


def test_one_name_with_blanks_makes_all_lines_names(tmp_path):
    """A name that is missing is then missing, not a line of another form."""
    known = matching("A 0", "A 1", root=tmp_path)
    assert read_list(written(tmp_path, "A 0\nA 1\nA 7\nb c d e\n"), tmp_path, known)[0] == [
        "A 0",
        "A 1",
        "A 7",
        "b c d e",
    ]


def test_three_paths_are_paths_though_names_are_known(tmp_path):
    touch(tmp_path, "rgb/a.png", "t/a.png", "l/a.png")
    row = "rgb/a.png t/a.png l/a.png"
    assert read_list(written(tmp_path, row), tmp_path, matching("a", root=tmp_path))[0] == ["rgb/a"]


def test_a_suffix_is_cut_off_though_the_frame_is_missing(tmp_path):
    assert read_list(written(tmp_path, "7.png\n"), tmp_path, matching("a", root=tmp_path))[0] == ["7"]


def test_one_frame_written_in_two_ways_is_a_duplicate(tmp_path):
    message = error_of(
        lambda: read_list(written(tmp_path, "a\nb\na.png\n"), tmp_path, matching("a", "b", root=tmp_path))
    )
    assert "occur more than once: a (the first on lines 1, 3)" in message


def test_paths_of_windows(tmp_path):
    touch(tmp_path, "v/1.jpg", "t/1.tiff", "l/1.png")
    listed, files = read(tmp_path, "v\\1.jpg\tt\\1.tiff\tl\\1.png\r\n")
    assert listed == ["v/1"], "the frame has the name that a list with / gives it"
    assert [files[part]["v/1"] for part in PARTS] == [tmp_path / place for place in ("v/1.jpg", "t/1.tiff", "l/1.png")]


def test_paths_spelt_otherwise_on_disk(tmp_path):
    stored = unicodedata.normalize("NFD", "für")
    touch(tmp_path, f"v/{stored}.JPG", f"t/{stored}.png", f"l/{stored}.png")
    listed, files = read(tmp_path, "v/für.jpg,t/für.png,l/für.png\n")
    assert listed == ["v/für"] and all(files[part]["v/für"].is_file() for part in PARTS)


def test_paths_below_the_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    touch(tmp_path, "home/v.jpg", "home/t.png", "home/l.png", "root/x")
    _, files = read(tmp_path / "root", "~/v.jpg ~/t.png ~/l.png")
    assert list(files["rgb"].values()) == [tmp_path / "home" / "v.jpg"]


def test_a_line_of_two_says_what_is_missing(tmp_path):
    message = error_of(lambda: read(tmp_path, "rgb/00.png labels/00.png\n"))
    assert "one of thermal and label is missing here" in message


def test_missing_list(tmp_path):
    message = error_of(lambda: read_list(tmp_path / "trian.txt", tmp_path))
    assert f"{tmp_path / 'trian.txt'}: no such list; data.split_file names it" in message
