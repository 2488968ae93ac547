"""Writing a comparison to files: Markdown, CSV, JSON, a page."""

from __future__ import annotations

from pathlib import Path

from mdg.engine.compare.comparison import Comparison
from mdg.engine.compare.page import make_page
from mdg.engine.compare.tables import as_csv, as_markdown, as_tree
from mdg.errors import ConfigError
from mdg.utils.files import require_writable, write_json, write_text


def write_comparison(
    comparison: Comparison,
    per_class: bool = False,
    *,
    markdown: str | Path | None = None,
    csv_file: str | Path | None = None,
    json_file: str | Path | None = None,
    html: str | Path | None = None,
) -> None:
    """Writes the files that are named; ``per_class`` adds the IoU of every class.

    Raises:
        ConfigError: One file under two names, or a result that is compared. UserError: It cannot be written there.
    """
    files = {"--markdown": markdown, "--csv": csv_file, "--json": json_file, "--html": html}
    named = {option: Path(file) for option, file in files.items() if file is not None}
    _require_places(named, comparison)
    for file, form in ((markdown, as_markdown), (csv_file, as_csv), (html, make_page)):
        if file is not None:
            write_text(file, form(comparison, per_class))
    if json_file is not None:
        write_json(json_file, as_tree(comparison, per_class))


def _require_places(files: dict[str, Path], comparison: Comparison) -> None:
    taken = {result.file.resolve(): "a result that is compared" for row in comparison.rows for result in row.results}
    for option, file in files.items():
        require_writable(file, option)
        place = file.resolve()
        if place in taken:
            raise ConfigError(f"{option} {file}: this is {taken[place]}; name another file")
        if not file.exists() or file.is_file():  # a device may be named twice
            taken[place] = f"the file of {option} too"
