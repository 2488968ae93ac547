"""Whether what was measured of weights holds for the way in which they are asked."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from mdg.config.schema import EvalConfig
from mdg.engine.inference import describe_inference
from mdg.engine.trust.state import TrustState

logger = logging.getLogger("mdg.eval")


def trust_under(state: Mapping[str, Any], options: EvalConfig) -> TrustState | None:
    """What ``tools/calibrate.py`` measured of the weights of a checkpoint; None where nobody did, or where it was
    measured for another mode (windows, one camera), which is said."""
    if state.get("trust") is None:
        return None
    trust, mode = TrustState.model_validate(state["trust"]), describe_inference(options).mode
    if trust.mode == mode:
        return trust
    logger.warning(
        "the weights were calibrated for %s, and this is %s: probabilities are as the network gives them, and pairs "
        "unlike its training are not marked; tools/calibrate.py measures it anew",
        trust.mode,
        mode,
    )
    return None


def temperature_under(state: Mapping[str, Any], options: EvalConfig) -> float:
    """What logits are divided by: 1 where nothing that holds was measured."""
    trust = trust_under(state, options)
    return 1.0 if trust is None else trust.temperature
