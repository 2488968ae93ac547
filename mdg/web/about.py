"""What the page says of its network: what it is, what it learnt from, how it scored, its classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from mdg.config.yaml_tree import parse_yaml
from mdg.engine.checkpoint import load_checkpoint
from mdg.engine.evaluation.known_scores import KnownScore, known_scores
from mdg.engine.predictor import Predictor
from mdg.utils.pages import render
from mdg.utils.pictures import css_colour


class About(NamedTuple):
    """Facts of a checkpoint.

    Attributes:
        network: Type and encoders.
        trained_on: Data set and split, or that they are not known.
        dataset: Name of the data set; empty where it is not known.
        facts: Further ones, as pairs of a title and a text.
        scores: Of these very weights, tests first.
        classes: Name and colour of each.
    """

    network: str
    trained_on: str
    dataset: str
    facts: list[tuple[str, str]]
    scores: list[KnownScore]
    classes: list[tuple[str, str]]

    def page(self) -> str:
        """As HTML."""
        return render(Path(__file__).with_name("about.html"), about=self)


def describe(predictor: Predictor) -> About:
    """What the file of a predictor says of itself, with the scores that lie in its run."""
    state = load_checkpoint(predictor.checkpoint)
    config: dict[str, Any] = parse_yaml(state["config"], f"configuration inside {predictor.checkpoint}").values
    model = config.get("model") or {}
    parts = [model.get(key) for key in ("rgb_backbone", "thermal_backbone", "backbone")]
    encoders = [_part(part) for part in parts if part]
    kind = str(model.get("type", "MDG"))
    frames = state.get("trained_on")
    dataset = str(frames["dataset"]) if frames else str((config.get("data") or {}).get("type", ""))
    numbers = sum(value.numel() for value in predictor.model.parameters()) / 1e6
    progress = state["progress"]
    facts = [
        ("weights", f"{predictor.checkpoint.name}, {numbers:.2f} M numbers, mdg {state['mdg_version']}"),
        ("training", f"{progress['epoch']} epochs, {progress['step']} steps, seed {config.get('seed')}"),
        ("runs on", predictor.device.type),
    ]
    if predictor.options.thermal_scaling.describe():
        facts.append(("thermal values", str(predictor.options.thermal_scaling.describe())))
    if progress.get("best_score") is not None and not state.get("last"):
        metric = (config.get("eval") or {}).get("metric", "mIoU")
        facts.append(("chosen by", f"{metric} {100 * progress['best_score']:.2f} on the selection split"))
    return About(
        f"{kind} ({' + '.join(encoders)})" if encoders else kind,
        f"{frames['dataset']} {frames['split']}, {len(frames['identities'])} frames" if frames else "not known",
        dataset,
        facts,
        known_scores(state, predictor.checkpoint),
        [(name, css_colour(colour)) for name, colour in zip(state["classes"], state["palette"], strict=True)],
    )


def _part(value: Any) -> str:
    return (
        str(value.get("variant") or value.get("name") or value.get("type")) if isinstance(value, dict) else str(value)
    )
