"""What README and docs point at exists, and importing the package costs nothing."""

from __future__ import annotations

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
MADE_BY_READER = re.compile(r"^(configs/mfnet/mine\.yaml|pretrained/.*\.pth|exp/.*)$")
POINTER = re.compile(r"(?<![\w/.-])((?:configs|mdg|tools|scripts|docs|tests|exp|pretrained)/[\w./-]*[\w/])")
LINK = re.compile(r"\]\(([\w./-]+)\)")


@pytest.mark.parametrize("page", PAGES)
def test_files_named_on_a_page_exist(page):
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    named = {name.rstrip("/.") for name in POINTER.findall(text) if not MADE_BY_READER.match(name)}
    missing = sorted(name for name in named if not (REPOSITORY / name).exists())
    missing += [link for link in LINK.findall(text) if not (REPOSITORY / page).parent.joinpath(link).exists()]
    assert not missing


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
