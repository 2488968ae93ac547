"""What README and docs point at exists, and importing the package costs nothing."""

from __future__ import annotations

import pydoc
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PAGES = [
    "README.md",
    "exp/README.md",
    "pretrained/README.md",
    *(f"docs/{p.name}" for p in (REPOSITORY / "docs").glob("*.md")),
]
# Files the reader is to make or fetch, and examples of names.
MADE_BY_READER = re.compile(
    r"^(configs/mfnet/mine\.yaml|pretrained/.*\.(pth|safetensors)|exp/.*|.*/(NAME|OPERATOR)\b.*)$"
)
POINTER = re.compile(r"(?<![\w/.-])((?:configs|mdg|tools|scripts|docs|tests|exp|pretrained)/[\w./-]*[\w/])")
LINK = re.compile(r"\]\(([\w./-]+)\)")


@pytest.mark.parametrize("page", PAGES)
def test_files_named_on_a_page_exist(page):
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    named = {name.rstrip("/.") for name in POINTER.findall(text) if not MADE_BY_READER.match(name)}
    missing = sorted(name for name in named if not (REPOSITORY / name).exists())
    missing += [link for link in LINK.findall(text) if not (REPOSITORY / page).parent.joinpath(link).exists()]
    assert not missing


SOURCES = sorted(p.relative_to(REPOSITORY).as_posix() for p in (REPOSITORY / "mdg").rglob("*.py"))
SECTION = re.compile(r"[Ss]ection (\d+(?:\.\d+)?) of docs/(\w+\.md)|docs/(\w+\.md), section (\d+(?:\.\d+)?)")


def test_docstrings_point_at_sections_and_files_that_exist():
    wrong, found = [], 0
    for source in SOURCES:
        text = " ".join((REPOSITORY / source).read_text(encoding="utf-8").split())
        for number, page, other_page, other_number in SECTION.findall(text):
            found += 1
            heading = rf"^#+ {re.escape(number or other_number)}\.? "
            if not re.search(heading, (REPOSITORY / "docs" / (page or other_page)).read_text("utf-8"), re.MULTILINE):
                wrong.append((source, page or other_page, number or other_number))
        names = re.findall(r"(?<![\w/.-])(?:mdg|docs|tests|scripts|tools)/[\w/]+\.(?:py|md|sh)", text)
        wrong += [(source, name) for name in names if not (REPOSITORY / name).exists()]
    assert not wrong and found >= 7


def test_the_picture_of_the_code_shows_what_is_there():
    svg = (REPOSITORY / "docs" / "code.svg").read_text(encoding="utf-8")
    files = re.findall(r'class="file"[^>]*>([^<]+)<', svg)
    rooms = " ".join(re.findall(r'class="room"[^>]*>([^<]+)<', svg)).split()
    assert len(files) > 15 and len(rooms) > 8
    assert [name for name in files if not any((REPOSITORY / root / name).exists() for root in ("mdg", "."))] == []
    assert [name for name in rooms if not any((REPOSITORY / "mdg" / f).exists() for f in (name, f"{name}.py"))] == []


def test_objects_named_in_docstrings_exist():
    """Those with their whole names, as Sphinx would link them."""
    texts = {source: (REPOSITORY / source).read_text(encoding="utf-8") for source in SOURCES}
    named = {(source, name) for source in SOURCES for name in re.findall(r"`~?(mdg(?:\.\w+)+)[`(]", texts[source])}
    assert len(named) > 20
    assert not [(source, name) for source, name in sorted(named) if pydoc.locate(name) is None]


def test_every_make_target_on_the_front_page_exists():
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"make ([a-z-]+)", (REPOSITORY / "README.md").read_text(encoding="utf-8"))
    assert targets and all(f"\n{target}:" in makefile for target in targets)


def test_importing_the_package_does_not_import_torch():
    code = (
        "import sys, mdg; assert mdg.__version__; assert 'torch' not in sys.modules and 'pydantic' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY)


def test_public_names_are_there():
    import mdg

    assert all(getattr(mdg, name) is not None for name in mdg.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'; public: "):
        _ = mdg.nonsense
