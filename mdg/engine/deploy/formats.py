"""The files: a graph of a network as ONNX, as a program of ``torch.export`` or as TorchScript."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from mdg.engine.deploy.network import INPUTS, Shape
from mdg.errors import ConfigError, MachineError
from mdg.ops.dispatch import is_installed

ONNX, TORCH_EXPORT, TORCHSCRIPT = FORMATS = ("onnx", "torch-export", "torchscript")
SUFFIXES = {ONNX: ".onnx", TORCH_EXPORT: ".pt2", TORCHSCRIPT: ".ts"}
SCOPE = "scope"  # of an operator in an ONNX file: the path of the module it comes from
TEXT = "mdg.json"  # the facts, inside of PyTorch's two kinds of file
OPSET = 20  # the first in which GELU is an operator
LARGEST_MESSAGE = (1 << 31) - (1 << 20)  # bytes of a file of protobuf, with room for what holds the tensors


def require_format(format: str, dynamic: bool, opset: int) -> None:
    """Raises ConfigError where there is no file of that kind."""
    if format not in FORMATS:
        raise ConfigError(f"--format {format}: expected one of {', '.join(FORMATS)}")
    if format == TORCHSCRIPT and dynamic:
        raise ConfigError("--dynamic: a traced TorchScript file has one size; take --format onnx or torch-export")
    if format == ONNX and not 18 <= opset <= 23:
        raise ConfigError(f"--opset {opset}: PyTorch writes operator sets from 18 to 23; {OPSET} is the default")


def require_packages(format: str) -> None:
    """Raises MachineError where a package that writes the format is not installed."""
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if not is_installed(name)]
    if format == ONNX and missing:
        raise MachineError(f"--format onnx needs {', '.join(missing)}: pip install -e '.[export]'")


def write_program(
    program: ExportedProgram, format: str, file: Path, facts: Mapping[str, str], shape: Shape, opset: int = OPSET
) -> None:
    """Writes ``file``; an ONNX file of more than two gigabytes has its tensors in ``FILE.data``.

    Raises:
        ConfigError: The graph holds an operation that the format does not have.
    """
    writers: dict[str, Callable[[], None]] = {
        ONNX: lambda: _write_onnx(program, file, facts, shape, opset),
        TORCH_EXPORT: lambda: torch.export.save(program, file, extra_files={TEXT: json.dumps(dict(facts))}),
        TORCHSCRIPT: lambda: _write_torchscript(program, file, facts, shape),
    }
    with quiet():
        try:
            writers[format]()
        except OSError:
            raise
        except Exception as error:  # of operations that nobody thought of
            raise ConfigError(f"this network cannot be written as {format}: {reason(error)}") from error


def reason(error: BaseException) -> str:
    """The line of an error that says why: exporters wrap the first one in others."""
    while error.__cause__ is not None:
        error = error.__cause__
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]


def _write_onnx(program: ExportedProgram, file: Path, facts: Mapping[str, str], shape: Shape, opset: int) -> None:
    import onnx

    names = json.loads(facts["outputs"])
    made = torch.onnx.export(
        program,
        dynamo=True,
        input_names=list(INPUTS),
        output_names=names,
        opset_version=opset,
        verbose=False,
        optimize=False,
    )
    assert made is not None
    _simplify(made.model)
    model = made.model_proto
    model.producer_name, model.producer_version = "mdg", facts["mdg_version"]
    onnx.helper.set_model_props(model, dict(facts))
    _strip(model)
    if shape.dynamic:
        _name_sizes(model, names)
    if model.ByteSize() < LARGEST_MESSAGE:
        onnx.save_model(model, file)
    else:
        onnx.save_model(model, file, save_as_external_data=True, location=f"{file.name}.data")


def _simplify(model: Any) -> None:
    """Computes what is constant and removes what is double.

    PyTorch's own step (``optimize``) also rewrites patterns, in a time that grows with the square of the graph: minutes
    for fusions that every runtime makes by itself.
    """
    from onnx_ir.passes import common
    from onnxscript.optimizer import fold_constants

    fold_constants(model)
    for step in (
        common.RemoveUnusedNodesPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.DeduplicateInitializersPass(),
        common.CommonSubexpressionEliminationPass(),
        common.RemoveUnusedNodesPass(),
    ):
        step(model)


def _strip(model: Any) -> None:
    """Operators keep the path of their module; where the lines of code lay that made them is nobody's business."""
    scopes = "pkg.torch.onnx.name_scopes"
    for node in model.graph.node:
        found: list[str] = []
        for entry in node.metadata_props:
            found = ast.literal_eval(entry.value) if entry.key == scopes else found
        modules = [name.removeprefix("network.") for name in found if name.startswith("network.")]
        del node.metadata_props[:]
        node.doc_string = ""
        if modules:
            node.metadata_props.add(key=SCOPE, value=modules[-1])
    for holder in (model.graph, *model.graph.value_info, *model.graph.initializer, *model.graph.input):
        del holder.metadata_props[:]
    for output in model.graph.output:
        del output.metadata_props[:]


def _name_sizes(model: Any, outputs: list[str]) -> None:
    """Open sizes by the names that the pages use; PyTorch calls them by its formulas."""
    axes = {"rgb": ("batch", None, "height", "width"), "mask": ("batch", "height", "width")}
    axes.update(dict.fromkeys(("thermal", "probabilities", "logits"), axes["rgb"]))
    for value in (*model.graph.input, *model.graph.output):
        for size, name in zip(value.type.tensor_type.shape.dim, axes[value.name], strict=True):
            if name is not None:
                size.dim_param = name


def _write_torchscript(program: ExportedProgram, file: Path, facts: Mapping[str, str], shape: Shape) -> None:
    images = tuple(torch.zeros(shape.batch, channels, *shape.size) for channels in (3, 1))
    # The graph is traced and not the network, whose sizes would become numbers that are computed at every call.
    traced = torch.jit.trace(program.module(), images, check_trace=False)
    torch.jit.save(torch.jit.freeze(traced.eval()), file, _extra_files={TEXT: json.dumps(dict(facts))})


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Exporters talk of their own workings: to the terminal, in warnings and in logs."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
