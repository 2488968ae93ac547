"""A checkpoint as a file that other programs run, checked before it is kept: what ``tools/export.py`` calls."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from mdg.config import RunConfig
from mdg.data.base import ROLES
from mdg.data.build import open_dataset
from mdg.data.reading.in_memory import pair_of
from mdg.data.synthetic import render_scene
from mdg.engine.checkpoint import load_model, open_checkpoint
from mdg.engine.deploy.agreement import Agreement, Images, compare, median_ms, repeated, require_agreement
from mdg.engine.deploy.facts import describe
from mdg.engine.deploy.formats import ONNX, OPSET, SUFFIXES, require_format, require_packages, write_program
from mdg.engine.deploy.network import OUTPUTS, Deployed, Shape, capture
from mdg.engine.deploy.quantize import quantize
from mdg.engine.deploy.runtimes import RUNTIMES, Run, as_run, has_openvino, open_file, open_openvino
from mdg.engine.deploy.score import RULES, FileNetwork, score
from mdg.engine.distributed import set_threads
from mdg.engine.evaluation.evaluator import require_split
from mdg.engine.predictor import images_of, options_of_pair
from mdg.engine.runtime import apply_runtime
from mdg.engine.trust.holds import temperature_under
from mdg.errors import ConfigError, DataError, UserError
from mdg.utils.files import explained, replacing, require_writable

CHECKED = 4  # frames of the data set
CALIBRATED = 64
OTHER_SIZE = (96, 160)  # with which a file of open size is checked too, two images at once


class Choices(NamedTuple):
    """What is asked for; the words of the tool."""

    format: str = ONNX
    size: tuple[int, int] | None = None
    batch: int = 1
    dynamic: bool = False
    outputs: Sequence[str] = ("mask", "probabilities")
    opset: int = OPSET
    check: tuple[Path, Path | None] | None = None
    int8: bool = False
    calibration: tuple[Path, Path] | None = None
    pairs: int = CALIBRATED
    score: str | None = None
    time: int = 0


@dataclass
class ExportedNetwork:
    """What was written and how it fares.

    Attributes:
        file: The file.
        shape: What it takes.
        agreements: With PyTorch, by runtime.
        eight_bit: Number of operators in eight bits; 0 for a file of float32.
        scores: mIoU in per cent by what was scored, where that was asked for.
        times: Median milliseconds of a call by runtime, likewise.
        notes: Sentences for whoever asked.
    """

    file: Path
    shape: Shape
    agreements: dict[str, Agreement] = field(default_factory=dict)
    eight_bit: int = 0
    scores: dict[str, float] = field(default_factory=dict)
    times: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def export_network(
    checkpoint: str | Path | None = None,
    config: str | Path | None = None,
    *,
    out: str | Path | None = None,
    opts: Sequence[str] = (),
    choices: Choices | None = None,
) -> ExportedNetwork:
    """Writes a trained network as one file, with normalisation, resizing and softmax inside, and checks it.

    Args:
        checkpoint: A ``best.pt`` or ``last.pt``, or an exported ``.safetensors``; None takes the best (else the last)
            of the newest run in ``exp/``.
        config: A YAML; None takes the configuration inside the checkpoint.
        out: The file; None takes ``export/NAME.onnx`` (``.pt2``, ``.ts``) in the run directory, or beside the
            checkpoint.
        opts: Overrides of the configuration.
        choices: Everything else; None takes the defaults.

    Raises:
        UserError: A checkpoint that cannot be used, a network that cannot become such a file, or a file that does not
            agree with PyTorch; nothing is left behind then.
    """
    choices = Choices() if choices is None else choices
    require_choices(choices)
    checkpoint, state, run_config = open_checkpoint(checkpoint, config, [*opts, "device=cpu", *RULES])
    target = Path(out) if out is not None else _target(checkpoint, run_config, choices)
    require_writable(target, "--out")
    set_threads(run_config.threads)
    apply_runtime(run_config)
    classes = tuple(state["classes"])
    model = load_model(state, run_config, classes, checkpoint, torch.device("cpu")).eval()
    network = Deployed(model, choices.outputs, temperature_under(state, run_config.eval)).eval()
    frames = Frames(run_config, choices)
    shape = Shape(choices.size or frames.size(), choices.batch, choices.dynamic)
    done = ExportedNetwork(target, shape, notes=frames.notes)
    program = capture(network, shape)
    facts = describe(state, checkpoint, run_config, shape, choices.outputs)
    reference = as_run(network, choices.outputs)
    with tempfile.TemporaryDirectory(prefix="mdg-export-") as folder:
        file = Path(folder) / target.name
        write_program(program, choices.format, file, facts, shape, choices.opset)
        images = frames.checked(shape)
        runs = {RUNTIMES[choices.format]: open_file(file, choices.format, choices.outputs)}
        for name, run in runs.items():
            done.agreements[name] = compare(run, reference, images)
            require_agreement(done.agreements[name], name)
        if choices.format == ONNX and has_openvino():
            # Large images of open size need more memory than most machines have: it is asked about small ones.
            _ask_openvino(file, reference, images[-1:] if shape.dynamic else images, runs, done)
        if choices.int8:
            whole, file = file, Path(folder) / f"int8-{target.name}"
            done.eight_bit = quantize(whole, file, frames.calibrating(shape))
            runs["ONNX Runtime, int8"] = open_file(file, ONNX, choices.outputs)
            done.agreements["ONNX Runtime, int8"] = compare(runs["ONNX Runtime, int8"], reference, images)
        if choices.score is not None:
            name, run = list(runs.items())[-1] if choices.int8 else next(iter(runs.items()))
            done.scores["PyTorch"] = score(model, run_config, choices.score)
            done.scores[name] = score(FileNetwork(run, shape, len(classes)), run_config, choices.score)
        if choices.time:
            done.times = median_ms({"PyTorch": reference, **runs}, images[0], choices.time)
        _keep(file, target)
    return done


def require_choices(choices: Choices) -> None:
    """Raises ConfigError where the choices do not go together, MachineError where a package is missing; before a
    checkpoint is read."""
    require_format(choices.format, choices.dynamic, choices.opset)
    unknown = [name for name in choices.outputs if name not in OUTPUTS]
    if unknown or not choices.outputs or len(set(choices.outputs)) < len(choices.outputs):
        raise ConfigError(f"--output {' '.join(choices.outputs)}: expected some of {', '.join(OUTPUTS)}, each once")
    if choices.int8 and choices.format != ONNX:
        raise ConfigError(f"--int8: ONNX Runtime quantises ONNX files; take --format {ONNX}")
    if choices.size is not None and min(choices.size) < 1:
        raise ConfigError(f"--size {choices.size[0]}x{choices.size[1]}: expected HEIGHTxWIDTH in pixels")
    if choices.score is not None:
        require_split(choices.score)
    require_packages(choices.format)


class Frames:
    """Pairs of images to check, to calibrate and to time with.

    Args:
        config: Of the run.
        choices: Which pairs.

    Attributes:
        notes: What was taken instead of frames of the data set, and why.
    """

    def __init__(self, config: RunConfig, choices: Choices):
        self.config, self.choices = config, choices
        self.notes: list[str] = []

    def size(self) -> tuple[int, int]:
        """[height, width] of the images by the configuration: that of the evaluation, else that of its frames.

        Raises:
            ConfigError: The evaluation takes frames as they are, and there are none here.
        """
        if self.config.pipeline.eval_size is not None:
            height, width = self.config.pipeline.eval_size
            return height, width
        try:
            frame = open_dataset(self.config.data, "val" if self.config.data.val_split else "train").read(0)
        except UserError as error:
            raise ConfigError(
                f"--size: the checkpoint takes images as they are, and its frames cannot be read ({error}); name HxW"
            ) from None
        return frame.thermal_HW.shape[0], frame.thermal_HW.shape[1]

    def checked(self, shape: Shape) -> list[Images]:
        """Those that a file has to agree on; where its size is open, also two of another size at once."""
        if self.choices.check is not None:
            found = [as_images([pair_of(*self.choices.check, options_of_pair(self.config, {}))], shape.size)]
        else:
            try:
                found = list(self._frames("val", CHECKED, shape.size))
            except UserError as error:
                self.notes.append(f"checked on generated scenes, as frames of its data set cannot be read ({error})")
                found = [self._scene(index, shape.size) for index in range(2)]
        if not shape.dynamic:
            return repeated(found, shape.batch)
        (rgb, thermal), more = (self._scene(index, OTHER_SIZE) for index in (0, 1))
        return [*found, (np.concatenate([rgb, more[0]]), np.concatenate([thermal, more[1]]))]

    def calibrating(self, shape: Shape) -> Iterator[Images]:
        """Those whose activations set the ranges of eight bits: of the train split, or of two folders.

        Raises:
            UserError: There are none.
        """
        if self.choices.calibration is None:
            found = self._frames("train", self.choices.pairs, shape.size)
        else:
            found = self._of_folders(*self.choices.calibration, shape.size)
        yield from repeated(list(found), 1 if shape.dynamic else shape.batch)

    def _frames(self, role: str, count: int, size: tuple[int, int]) -> Iterator[Images]:
        """So many frames of a split, spread over it."""
        assert role in ROLES
        dataset = open_dataset(self.config.data, role)
        for index in np.unique(np.linspace(0, len(dataset) - 1, count).round().astype(int)):
            frame = dataset.read(int(index))
            yield as_images([(frame.rgb_HW3, frame.thermal_HW)], size)

    def _of_folders(self, rgb: Path, thermal: Path, size: tuple[int, int]) -> Iterator[Images]:
        with explained():
            names = {file.stem: file for file in sorted(thermal.iterdir()) if file.is_file()}
            pairs = [(file, names[file.stem]) for file in sorted(rgb.iterdir()) if file.stem in names]
        if not pairs:
            raise DataError(f"--calibration: no file in {rgb} has the name of one in {thermal}")
        options = options_of_pair(self.config, {})
        for files in pairs[: self.choices.pairs]:
            yield as_images([pair_of(*files, options)], size)

    @staticmethod
    def _scene(index: int, size: tuple[int, int]) -> Images:
        scene = render_scene(0, index, max(size[0], 32), max(size[1], 32))
        return as_images([(scene.rgb, scene.thermal)], size)


def as_images(pairs: Sequence[tuple[np.ndarray, np.ndarray]], size: tuple[int, int]) -> Images:
    """Pairs as a file takes them: resized, if they have another size, as an evaluation does."""
    rgb, thermal = images_of(pairs, None if pairs[0][1].shape == tuple(size) else size)
    return rgb.float().numpy(), thermal.float().numpy()


def _ask_openvino(
    file: Path, reference: Run, images: list[Images], runs: dict[str, Run], done: ExportedNetwork
) -> None:
    """A second reader of the file. That it cannot run a graph is worth a sentence; that it sees another mask, an
    error."""
    try:
        run = open_openvino(file)
        found = compare(run, reference, images)
    except RuntimeError as error:
        done.notes.append(f"OpenVINO cannot run this file: {str(error).strip().splitlines()[-1][:200]}")
        return
    require_agreement(found, "OpenVINO")
    runs["OpenVINO"], done.agreements["OpenVINO"] = run, found


def _target(checkpoint: Path, config: RunConfig, choices: Choices) -> Path:
    inside = checkpoint.parent.name == "checkpoints"
    folder = checkpoint.parent.parent if inside else checkpoint.parent
    name = str(config.name or "mdg").replace(" ", "_")
    return folder / "export" / f"{name}{'-int8' if choices.int8 else ''}{SUFFIXES[choices.format]}"


def _keep(file: Path, target: Path) -> None:
    """Moves a file that was checked, and its tensors where they lie beside it, to its place."""
    for source in (file.with_name(f"{file.name}.data"), file):
        if source.is_file():
            place = target if source == file else target.with_name(f"{target.name}.data")
            with open(source, "rb") as stream, replacing(place) as kept:
                shutil.copyfileobj(stream, kept, 1 << 20)


def told_lines(done: ExportedNetwork) -> list[str]:
    """What a tool prints."""
    size = done.file.stat().st_size
    lines = [f"{done.file}: {size:,} bytes, takes {done.shape.text()}"]
    lines += [f"{runtime}: {found.text()}" for runtime, found in done.agreements.items()]
    if done.eight_bit:
        lines.append(f"{done.eight_bit} operators of the encoders compute in eight bits")
    if done.scores:
        (first, reference), (name, got) = done.scores.items()
        lines.append(f"mIoU: {first} {reference:.2f} %, {name} {got:.2f} % ({got - reference:+.2f})")
    lines += [f"{name}: {time:.1f} ms" for name, time in done.times.items()]
    return lines + done.notes
