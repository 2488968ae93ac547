"""docs/reliability.md says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mdg.errors import MachineError, UserError
from mdg.utils import cli
from mdg.utils.limits import LIMITS


@pytest.fixture(scope="module")
def page(repository: Path) -> str:
    return (repository / "docs" / "reliability.md").read_text(encoding="utf-8")


def test_the_table_of_limits_is_that_of_the_code(page):
    rows = re.findall(r"^\| `(\w+)` \| ([\d,]+) \| (.+) \|$", page, re.MULTILINE)
    listed = {name: (int(default.replace(",", "")), what) for name, default, what in rows}
    assert listed == {name: tuple(limit) for name, limit in LIMITS.items()}


def test_the_table_of_exit_codes_is_that_of_the_code(page):
    codes = {int(code) for code in re.findall(r"^\| (\d+) \| ", page.split("## Limits")[0], re.MULTILINE)}
    known = {cli.EXIT_UNFORESEEN, cli.EXIT_STOPPED, cli.EXIT_INTERRUPTED, cli.EXIT_CLOSED}
    assert codes == {0, UserError.exit_code, MachineError.exit_code} | known


def test_files_that_the_page_names_exist(page, repository):
    for name in re.findall(r"`((?:tests|scripts|mdg)/[\w/.]+\.py)`", page):
        assert (repository / name).is_file(), name
