"""Inputs that the numba kernels of float32 on a CPU refuse, and the reason they give."""

from __future__ import annotations

import pytest
from torch import Tensor

refused_inputs = pytest.mark.parametrize(
    ("cast", "reason"),
    [
        (Tensor.double, "the input is float64"),
        (Tensor.bfloat16, "the input is bfloat16"),
        (lambda x: x.to("meta"), "the input is on meta"),
    ],
    ids=["float64", "bfloat16", "meta"],
)
