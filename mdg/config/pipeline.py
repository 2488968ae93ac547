"""Schema of ``pipeline:`` in a configuration: from a data set to batches."""

from __future__ import annotations

from pydantic import Field

from mdg.fields import Size
from mdg.registry import TRANSFORMS, Options, component


class PipelineConfig(Options):
    """Augmentation, input size of the evaluation, loader processes."""

    train: list[component(TRANSFORMS)] = []  # type: ignore[valid-type]
    """Transforms of training, in order; they must end in images of one size."""
    eval_size: Size | None = None
    """[height, width] to which images (never labels) are resized for evaluation; null keeps their native size."""
    workers: int = Field(4, ge=0, le=256)
    """Loader processes per process of training; 0 reads in the process itself. Results do not depend on it."""
    prefetch: int = Field(2, ge=1, le=64)
    """Batches each loader process holds ready."""
    timeout: float = Field(300, gt=0, le=86400)
    """Seconds that a loader process may take for a batch before the run stops with a message."""
