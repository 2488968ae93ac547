"""docs/quickstart.ipynb from its first cell to its last."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = json.loads((ROOT / "docs" / "quickstart.ipynb").read_text(encoding="utf-8"))
CODE = ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]


def test_the_notebook_is_committed_without_outputs():
    assert len(CODE) > 4 and NOTEBOOK["nbformat"] == 4
    assert all(
        not cell["outputs"] and cell["execution_count"] is None for cell in NOTEBOOK["cells"] if "outputs" in cell
    )


def test_every_cell_runs(tmp_path, monkeypatch, shallow):
    """With a step or two on a few scenes."""
    matplotlib.use("Agg")
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "notebook"}
    for number, source in enumerate(CODE):
        source = source.replace("EPOCHS = 6", "EPOCHS = 1")
        if "OPTS = [" in source:
            source += '\nOPTS += ["data.train_images=8", "data.val_images=2", "data.test_images=2", "threads=1"]'
        exec(compile(source, f"cell {number}", "exec"), names)
    matplotlib.pyplot.close("all")
    assert names["result"].mask.shape == (96, 128)
    assert (tmp_path / "exp").is_dir()
