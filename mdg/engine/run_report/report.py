"""The report of runs as a function: what ``tools/report.py`` calls."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mdg.engine.evaluation.evaluator import require_split
from mdg.engine.run_report.frames import Gallery, make_gallery
from mdg.engine.run_report.page import make_page
from mdg.engine.run_report.runs import Run, read_run, split_to_show
from mdg.errors import ConfigError, UserError
from mdg.utils.files import require_writable, write_text
from mdg.utils.logging import console, setup_logging


def report(
    runs: Sequence[str | Path],
    *,
    split: str | None = None,
    out: str | Path | None = None,
    frames: int = 3,
    config: str | Path | None = None,
    opts: Sequence[str] = (),
) -> Path:
    """Writes one page about one or several runs, whatever they have so far.

    Args:
        runs: Run directories.
        split: "train", "val" or "test": whose classes and frames are shown. None takes test, or where no run has
            results of it, val.
        out: The page; None takes ``report.html`` in the run, or ``comparison.html`` in the first of several.
        frames: Best, middle and worst frames each, predicted here; 0 leaves pictures out.
        config: A YAML to predict with; None takes the configuration inside the checkpoint.
        opts: Overrides of it, such as ``data.root=/path``.

    Returns:
        The page.

    Raises:
        ConfigError: No run directory, a run named twice, or no such split. UserError: The page cannot be written.
    """
    if split is not None:
        require_split(split)
    folders = [Path(run) for run in runs]
    if len({folder.resolve() for folder in folders}) < len(folders) or not folders:
        raise ConfigError(f"got the runs {', '.join(map(str, folders)) or '(none)'}; name each once, and one at least")
    found = [read_run(folder) for folder in folders]
    file = Path(out) if out is not None else folders[0] / ("report.html" if len(folders) == 1 else "comparison.html")
    _require_place(file, found)
    setup_logging()
    shown = split_to_show(found, split)
    galleries = [_gallery(run, shown, frames, config, opts) for run in found]
    write_text(file, make_page(found, shown, galleries, split))
    console.print(f"report: {file}")
    return file


def _gallery(run: Run, split: str, frames: int, config: str | Path | None, opts: Sequence[str]) -> Gallery:
    """The frames of a run, or why there are none."""
    result = run.results.get(split)
    if result is None or not frames:
        return Gallery()
    try:
        return make_gallery(run, result, frames, config, opts)
    except UserError as error:
        return Gallery(notes=[f"No pictures of frames: {error}"])


def _require_place(file: Path, runs: Sequence[Run]) -> None:
    require_writable(file, "--out")
    for run in runs:
        kept = [run.files.config, run.files.metrics, *[run.folder / name for name in run.environments]]
        kept += [beside for result in run.results.values() for beside in result.file.parent.iterdir()]
        kept += [*(run.folder / "checkpoints").glob("*"), run.folder / "train.log"]
        if file.resolve() in {known.resolve() for known in kept}:
            raise ConfigError(f"--out {file}: this is a file of the run; name another file")
