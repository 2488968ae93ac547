"""MDG: Modality Divergence-aware Dynamic Gating for RGB-Thermal semantic segmentation."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# Looked up on first use, so that `import mdg` needs neither torch nor a second.
_PUBLIC = {
    "load_config": "mdg.config",
    "RunConfig": "mdg.config",
    "build_model": "mdg.models",
    "Segmentor": "mdg.models",
    "build_dataset": "mdg.data",
    "train": "mdg.engine",
    "evaluate": "mdg.engine",
    "load": "mdg.engine.predictor",
    "Predictor": "mdg.engine.predictor",
    "Prediction": "mdg.engine.predictor",
    "UserError": "mdg.errors",
}

__all__ = ["__version__", *_PUBLIC]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'mdg' has no attribute '{name}'; public: {', '.join(__all__)}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
