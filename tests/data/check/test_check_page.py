"""The page: well formed, self-contained, and safe against names that look like markup."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from pages import parse

from mdg.data.check import inspect_dataset
from mdg.data.check.output import per_cent, print_report, shorten_paths
from mdg.data.check.page import make_page
from mdg.data.check.samples import choose_places, make_samples
from mdg.registry import DATASETS

ODD = """a&b'"<i>c [red]"""


def options(root: Path, **more: object) -> dict:
    patterns = {part: f"{{split}}/{part}/{{name}}.png" for part in ("rgb", "thermal", "label")}
    return {
        "type": "Folder",
        "root": str(root),
        "classes": ["none", "<b>&", "rare"],
        "val_split": None,
        **patterns,
        **more,
    }


@pytest.fixture
def odd_root(tmp_path: Path) -> Path:
    """Ten frames to train on, three to test, some with names that look like markup; "rare" occurs in frame 4 only."""
    generator = np.random.default_rng(5)
    for split, names in {"train": [*map(str, range(9)), ODD], "test": ["x", "y", f"{ODD}2"]}.items():
        for part in ("rgb", "thermal", "label"):
            (tmp_path / split / part).mkdir(parents=True)
        for name in names:
            image = generator.integers(0, 256, (12, 16, 4), np.uint8)
            label = image[..., 0] // 128
            if name == "4":
                label[:2] = 2
            for part, content in {"rgb": image[..., :3], "thermal": image[..., 3], "label": label}.items():
                assert cv2.imwrite(str(tmp_path / split / part / f"{name}.png"), np.ascontiguousarray(content))
    return tmp_path


def inspect(root: Path, **more: object):
    return inspect_dataset(DATASETS.parse(options(root, **more)), workers=2, config="a<b>.yaml")


def test_the_page_is_well_formed_and_stands_alone(odd_root):
    page = make_page(inspect(odd_root))
    reader = parse(page)
    sources = [value for name, value in reader.attributes if name in ("src", "href")]
    assert sources and all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert not {"script", "link", "iframe"} & set(reader.tags)
    assert "http" not in page and "url(" not in page and "@import" not in page


def test_names_are_escaped(odd_root):
    (odd_root / "train" / "thermal" / f"{ODD}.png").unlink()
    reader = parse(make_page(inspect(odd_root, name="</title>D<u>&")))
    text = "".join(reader.text)
    assert not {"b", "u"} & set(reader.tags)
    assert reader.tags.count("i") == reader.attributes.count(("class", "swatch")) > 0
    for name in (f"no file for {ODD}", f"{ODD}2", "<b>&", "</title>D<u>&: data check", "a<b>.yaml"):
        assert name in text, name
    assert ("alt", f"RGB of {ODD}2") in reader.attributes


def test_the_page_shows_every_finding_and_number(odd_root):
    (odd_root / "train" / "rgb" / "3.png").write_bytes(b"")
    report = inspect(odd_root)
    text = "".join(parse(make_page(report)).text)
    for finding in report.findings:
        assert shorten_paths(finding.message, report.root) in text
    for share in report.splits["train"].class_shares():
        assert per_cent(float(share)) in text
    assert "1 problem, 1 warning" in text


def test_a_page_without_any_split(tmp_path):
    report = inspect(tmp_path / "nowhere")
    text = "".join(parse(make_page(report)).text)
    assert "1 problem" in text and "train, test" in text and "no such folder" in text


def test_markup_in_names_is_printed_as_it_is(odd_root, capsys):
    from mdg.utils.logging import console

    (odd_root / "train" / "thermal" / f"{ODD}.png").unlink()
    print_report(inspect(odd_root, name="D[bold]"), console)
    shown = capsys.readouterr().out
    assert f"no file for {ODD}" in shown and "D[bold]: 1 problem" in shown


def test_samples_spread_and_show_the_rarest_class(odd_root):
    split = inspect(odd_root).splits["train"]
    places = choose_places(split)
    assert list(places) == sorted(places) and list(places)[0] == 0 and list(places)[-1] == 9
    assert places[4] == ["most rare"] and len(places) in (6, 7)
    sample = next(sample for sample in make_samples(split) if sample.name == "4")
    assert sample.classes == (0, 1, 2) and [caption for caption, _ in sample.pictures][:2] == ["RGB", "thermal"]


def test_unreadable_frames_are_no_samples(odd_root):
    for name in range(9):
        (odd_root / "train" / "rgb" / f"{name}.png").write_bytes(b"")
    assert list(choose_places(inspect(odd_root).splits["train"])) == [9]


@pytest.mark.parametrize(
    "share, shown", [(0.9241, "92.41"), (0.00037, "0.037"), (0.0, "0.00"), (1e-7, "<0.001"), (float("nan"), "NaN")]
)
def test_shares_have_the_digits_they_need(share, shown):
    assert per_cent(share) == shown
