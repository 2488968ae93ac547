"""Weights to pass on: a slim file, a configuration without paths of this machine, and a model card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from mdg.config import yaml_text
from mdg.config.yaml_tree import parse_yaml
from mdg.engine.checkpoint import load_checkpoint, scored_weights
from mdg.engine.evaluation.known_scores import known_score, results_of
from mdg.engine.evaluation.provenance import without_names
from mdg.engine.evaluation.result_files import Result
from mdg.engine.model_card import model_card
from mdg.engine.slim_file import rounded, write_slim
from mdg.errors import ConfigError
from mdg.models.weight_files import first_non_finite
from mdg.utils.files import file_sha256, write_text
from mdg.utils.run_directory import RunDirectory

PRECISIONS = ("fp32", "bf16")
KEPT = ("format", "config", "progress", "mdg_version", "classes", "palette", "changes", "data", "world_size", "trust")


class Exported(NamedTuple):
    """What was written: the weights, their size and digest, the card, and the scores that are told with them."""

    file: Path
    size: int
    sha256: str
    card: Path
    results: list[Result]


def export_weights(
    source: Path, folder: Path | None = None, *, name: str = "", precision: str = "fp32", frame_names: bool = False
) -> Exported:
    """Writes ``NAME.safetensors``, ``config.yaml`` and ``README.md`` (the model card) for weights that were trained.

    Left out: optimizer, raw weights where a moving average was scored, names of frames, paths of this machine.

    Args:
        source: A run directory, whose best (else last) checkpoint counts, or a checkpoint.
        folder: Where to; None takes ``export`` in the run directory, or beside the checkpoint.
        name: Of the file of weights and of the card; empty takes the name of the run.
        precision: ``fp32``, or ``bf16`` for the matrices, which halves the size and moves scores by some hundredths.
        frame_names: Tell the names of the frames that trained and chose the weights; else pseudonyms, by which a score
            on such frames is still recognised.

    Raises:
        UserError: No checkpoint there, one that cannot be used, or a folder that cannot be written.
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"--precision {precision}: expected {' or '.join(PRECISIONS)}")
    run, checkpoint = _find(source)
    state = load_checkpoint(checkpoint)
    config = _public_config(state["config"], checkpoint)
    name = name or str(config.get("name", "mdg")).replace(" ", "_")
    if not name or PurePath(name).name != name:
        raise ConfigError(f"--name {name}: expected the name of a file, without a folder")
    weights = scored_weights(state)
    if (bad := first_non_finite(weights)) is not None:
        raise ConfigError(f"{checkpoint}: {bad} holds NaN or infinity; nobody can use these weights")
    results = results_of(run, file_sha256(checkpoint))
    frames = {key: state.get(key) for key in ("trained_on", "selected_on")}
    described = {
        **{key: state[key] for key in KEPT if key in state},
        **{key: _told(value, frame_names) for key, value in frames.items() if value is not None},
        "ancestors": [_told(value, frame_names) for value in state.get("ancestors", [])],
        "config": yaml_text.dump(config),
        "last": "optimizer" in state or bool(state.get("last")),
        "rounded": "rounded to bf16" if precision == "bf16" else state.get("rounded", ""),
        "scores": [{"protocol": result.protocol.as_dict(), "scores": result.content["scores"]} for result in results],
    }
    folder = folder if folder is not None else (run or checkpoint.parent) / "export"
    file = folder / f"{name}.safetensors"
    write_slim(file, described, rounded(weights) if precision == "bf16" else weights)
    write_text(folder / "config.yaml", described["config"])
    size, digest = file.stat().st_size, file_sha256(file)
    write_text(folder / "README.md", model_card(name, described, results, weights, size, digest))
    return Exported(file, size, digest, folder / "README.md", results)


def _find(source: Path) -> tuple[Path | None, Path]:
    """The run directory, where there is one, and the checkpoint."""
    if not source.is_dir():
        inside = source.parent.name == "checkpoints"
        return (source.parent.parent if inside else None), source
    checkpoint = RunDirectory(source).best_or_last
    if checkpoint is None:
        raise ConfigError(f"{source}: expected a run directory with checkpoints/best.pt, or a checkpoint")
    return source, checkpoint


def _told(frames: Mapping[str, Any], names: bool) -> dict[str, Any]:
    return dict(frames) if names else without_names(dict(frames))


def _public_config(text: str, checkpoint: Path) -> dict[str, Any]:
    """The configuration of the run without what only this machine has: absolute paths become names below ``data/``,
    files that training started from are forgotten."""
    tree: dict[str, Any] = parse_yaml(text, f"configuration inside {checkpoint}").values
    tree = {**tree, "exp_dir": "exp"}
    data = dict(tree.get("data") or {})
    tree["data"] = {key: _relative(value) if key == "root" else value for key, value in data.items()}
    if data.get("cache_dir"):
        tree["data"]["cache_dir"] = None
    for part, keys in (("model", ("pretrained",)), ("train", ("init_from",))):
        section = tree.get(part)
        if isinstance(section, dict):
            tree[part] = {key: None if key in keys else value for key, value in section.items()}
    return tree


def _relative(path: Any) -> Any:
    pure = PurePath(str(path))
    return f"data/{pure.name}" if pure.is_absolute() or ".." in pure.parts or str(path).startswith("~") else path


def told_lines(done: Exported) -> Sequence[str]:
    """What a tool prints."""
    scores = [
        f"{result.protocol.dataset} {result.protocol.split}: mIoU {known_score(result).text}" for result in done.results
    ]
    return [
        f"{done.file}: {done.size:,} bytes, SHA-256 {done.sha256}",
        f"{done.card}: the model card, " + ("; ".join(scores) if scores else "without a score: none was found"),
    ]
