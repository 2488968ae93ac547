"""Files of networks, run: by ONNX Runtime, OpenVINO or PyTorch, all called alike.

Legend: B batch, K classes, H W size of the images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from mdg.engine.deploy.formats import ONNX, TORCH_EXPORT, TORCHSCRIPT
from mdg.ops.dispatch import is_installed

Arrays = dict[str, np.ndarray]
Run = Callable[[np.ndarray, np.ndarray], Arrays]
"""RGB ``[B, 3, H, W]`` and thermal ``[B, 1, H, W]``, float32, to the outputs by their names."""

RUNTIMES = {ONNX: "ONNX Runtime", TORCH_EXPORT: "torch.export", TORCHSCRIPT: "TorchScript"}


def open_file(file: Path, format: str, outputs: Sequence[str]) -> Run:
    """A file of a network, ready to run on the CPU with as many threads as PyTorch has."""
    if format == ONNX:
        return _onnxruntime(file)
    if format == TORCH_EXPORT:
        return as_run(torch.export.load(file).module(), outputs)
    return as_run(torch.jit.load(file), outputs)


def has_openvino() -> bool:
    """Whether ONNX files can be run by OpenVINO too."""
    return is_installed("openvino")


def open_openvino(file: Path) -> Run:
    """An ONNX file, ready to run by OpenVINO on the CPU, in float32 on every processor."""
    import openvino

    core = openvino.Core()
    compiled = core.compile_model(
        core.read_model(file),
        "CPU",
        {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()},
    )

    def run(rgb: np.ndarray, thermal: np.ndarray) -> Arrays:
        found = compiled({"rgb": rgb, "thermal": thermal})
        return {port.get_any_name(): np.array(found[port]) for port in compiled.outputs}

    return run


def _onnxruntime(file: Path) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 3
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(rgb: np.ndarray, thermal: np.ndarray) -> Arrays:
        return dict(zip(names, session.run(names, {"rgb": rgb, "thermal": thermal}), strict=True))

    return run


def as_run(module: Callable[..., Sequence[torch.Tensor]], outputs: Sequence[str]) -> Run:
    """A module of PyTorch, called as the files are."""

    @torch.inference_mode()
    def run(rgb: np.ndarray, thermal: np.ndarray) -> Arrays:
        found = module(torch.from_numpy(rgb), torch.from_numpy(thermal))
        return {name: value.numpy() for name, value in zip(outputs, found, strict=True)}

    return run
