"""Eight bits in place of float32 for what costs most: the convolutions and linear layers of the encoders.

Static quantisation by ONNX Runtime, in its QDQ form: the file holds int8 weights with a scale per output channel, and
pairs of operators that round activations to uint8 by ranges that were seen on calibration images. What stays float32,
and why: attention has no constant factor; the interaction compares the streams by angles and scans with exponentials;
the decoder generates its weights and filters spectra. Rounding any of those costs more than the rest together.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mdg.engine.deploy.agreement import Images
from mdg.engine.deploy.formats import SCOPE, quiet
from mdg.errors import ConfigError

KINDS = ("Conv", "MatMul", "Gemm")
QUANTISED = "backbone"  # in the path of a module


def quantize(source: Path, target: Path, images: Iterable[Images]) -> int:
    """Writes the eight-bit form of an ONNX file.

    Args:
        source: Of :func:`mdg.engine.deploy.formats.write_program`.
        target: Where to.
        images: Calibration pairs as the file takes them; the range of an activation is that of all of them.

    Returns:
        The number of operators that became eight-bit.

    Raises:
        ConfigError: There is no operator of an encoder in the file.
    """
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.calibrate import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.pairs: Iterator[Images] = iter(images)

        def get_next(self) -> dict[str, Any] | None:
            pair = next(self.pairs, None)
            return None if pair is None else {"rgb": pair[0], "thermal": pair[1]}

    names = eight_bit_nodes(onnx.load(source, load_external_data=False))
    if not names:
        raise ConfigError("--int8: the graph has no convolution or linear layer inside of an encoder to quantise")
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # onnxruntime recommends a step of preparation that these graphs went through
    try:
        with quiet():
            quantize_static(
                str(source),
                str(target),
                Reader(),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                op_types_to_quantize=list(KINDS),  # no range of any other operator is asked for
                nodes_to_quantize=names,
                calibrate_method=CalibrationMethod.MinMax,
                extra_options={"CalibMovingAverage": False},
            )
    finally:
        root.setLevel(level)
    return len(names)


def eight_bit_nodes(model: Any) -> list[str]:
    """Names of the operators of the encoders that have a constant factor."""
    constant = {tensor.name for tensor in model.graph.initializer}
    return [
        node.name
        for node in model.graph.node
        if node.op_type in KINDS
        and len(node.input) > 1
        and node.input[1] in constant
        and any(entry.key == SCOPE and QUANTISED in entry.value for entry in node.metadata_props)
    ]
