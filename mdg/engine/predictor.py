"""A trained network that answers pairs of images: what ``mdg.load`` gives, and what the tools work with.

Legend: B batch, H W image size, h w map size, K classes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError

from mdg.config import RunConfig
from mdg.config.yaml_tree import parse_yaml
from mdg.data.reading.images import quiet_opencv
from mdg.data.reading.in_memory import Source, image_alone, pair_of
from mdg.data.registration.rig_file import read_rig
from mdg.data.transforms.resampling import resize_image
from mdg.engine.checkpoint import load_model, open_checkpoint
from mdg.engine.distributed import pick_device, set_threads
from mdg.engine.inference import Inference
from mdg.engine.runtime import apply_runtime, make_autocast
from mdg.engine.trust.familiarity import unlikeness
from mdg.engine.trust.holds import trust_under
from mdg.engine.trust.measure import measured
from mdg.errors import ConfigError, DataError
from mdg.models.segmentor import SegmentationOutput
from mdg.options.files import PairOptions, RigAlignment
from mdg.utils import visualization as vis

Pair = tuple[np.ndarray, np.ndarray]  # RGB [H, W, 3] and thermal [H, W], uint8


@dataclass(frozen=True)
class Prediction:
    """What a network says of one pair.

    Attributes:
        mask: Class ids ``[H, W]`` uint8.
        probabilities: ``[K, H, W]`` float32; they add up to one at every pixel. None where they were not asked for.
        divergence: Where the modalities diverge, ``[h, w]`` float32 in 0..2 for each of the four stages, 1/4 to 1/32 of
            the size; empty for networks that do not measure it.
        rgb, thermal: The images as the network got them, ``[H, W, 3]`` and ``[H, W]`` uint8.
        classes: Names of the K classes.
        palette: Their colours, ``[K, 3]`` uint8.
        unlikeness: How far the pair is from those that trained the network: above 1, farther than 99 of 100 frames of
            the split on which that was measured. None where ``tools/calibrate.py`` has not measured it.
    """

    mask: np.ndarray
    probabilities: np.ndarray | None
    divergence: tuple[np.ndarray, ...]
    rgb: np.ndarray
    thermal: np.ndarray
    classes: tuple[str, ...]
    palette: np.ndarray
    unlikeness: float | None = None

    @property
    def is_unlike(self) -> bool:
        """Whether the mask is not to be trusted, since the pair is unlike those that trained the network."""
        return self.unlikeness is not None and self.unlikeness > 1

    def areas(self) -> dict[str, float]:
        """The share of the image that every class covers, 0..1."""
        counts = np.bincount(self.mask.ravel(), minlength=len(self.classes))
        return {name: int(count) / self.mask.size for name, count in zip(self.classes, counts, strict=True)}

    def entropy(self) -> np.ndarray:
        """Entropy of the probabilities of every pixel as a share of the largest that there can be, ``[H, W]`` in 0..1.

        Raises:
            ValueError: The probabilities were not asked for.
        """
        if self.probabilities is None:
            raise ValueError("a prediction without probabilities; ask for them")
        entropy_HW = -(self.probabilities * np.log(np.maximum(self.probabilities, 1e-12))).sum(axis=0)
        return entropy_HW / np.log(max(2, len(self.classes)))

    def uncertainty(self) -> float:
        """The mean entropy over the pixels; raises as :meth:`entropy`."""
        return float(self.entropy().mean())

    def coloured(self) -> np.ndarray:
        """The mask in the colours of the classes, ``[H, W, 3]`` uint8."""
        return vis.colorize(self.mask, self.palette)

    def overlay(self, opacity: float = 0.6, legend: bool = False) -> np.ndarray:
        """The mask over RGB, ``[H, W, 3]`` uint8, in a red frame where the pair is unlike the training; ``legend`` adds
        the names of the classes below. Where RGB is black all over, as one that was left out, the thermal image takes
        its place."""
        seen = self.rgb if self.rgb.any() else vis.grey(self.thermal)
        painted = vis.overlay(seen, self.mask, self.palette, opacity)
        if self.is_unlike:
            painted = vis.framed(painted)
        if not legend:
            return painted
        return vis.stack([painted, vis.legend(self.classes, self.palette, painted.shape[1])])

    def save(self, folder: str | Path, name: str = "pair") -> list[Path]:
        """Writes ``NAME_mask.png`` (class ids) and ``NAME_overlay.png``; files of these names are replaced.

        Raises:
            UserError: A folder that cannot be written.
        """
        folder = Path(folder)
        files = [folder / f"{name}_mask.png", folder / f"{name}_overlay.png"]
        vis.save_picture(files[1], self.overlay(legend=True))
        vis.save_picture(files[0], self.mask)  # last: where it is, the pair is done
        return files


class Predictor:
    """A trained network in evaluation mode. Several threads may call it; they take turns.

    Args:
        checkpoint: A ``best.pt`` or ``last.pt``, or an exported ``.safetensors``; None takes the best (else the last)
            of the newest run in ``exp/``.
        config: A YAML; None takes the configuration inside the checkpoint.
        opts: Overrides of it, such as ``eval.flip=true``.
        pair_options: Options of a pair (``thermal_scaling``, ``align``, ``grey_rgb``); those of the training set else.

    Attributes:
        classes: Names of the K classes.
        palette: Their colours, ``[K, 3]`` uint8.
        checkpoint: The file.
        config: The configuration it runs with.
        options: How pairs are prepared.
        trust: What ``tools/calibrate.py`` measured of these weights; None where nobody did, or for another mode.
        model, device, inference: The network, where it is, and the rules by which it is asked.

    Raises:
        UserError: No such file, or one that cannot be used.
    """

    def __init__(
        self,
        checkpoint: str | Path | None = None,
        config: str | Path | None = None,
        *,
        opts: Sequence[str] = (),
        pair_options: Mapping[str, Any] | None = None,
    ):
        self.checkpoint, state, self.config = open_checkpoint(checkpoint, config, opts)
        self.options = options_of_pair(self.config, pair_options or {})
        if isinstance(self.options.align, RigAlignment):
            read_rig(self.options.align.file)  # before a pair is asked for
        self.device = pick_device(self.config.device)
        self.classes: tuple[str, ...] = tuple(state["classes"])
        self.palette = np.array(state["palette"], np.uint8)
        set_threads(self.config.threads)
        apply_runtime(self.config)
        self.model = load_model(state, self.config, self.classes, self.checkpoint, self.device).eval()
        autocast = make_autocast(self.config, self.device)
        self.trust = trust_under(state, self.config.eval)
        temperature = self.trust.temperature if self.trust is not None else 1.0
        self.inference = Inference(self.model, self.config.eval, autocast, self.device, temperature)
        self._turn = threading.Lock()

    def __call__(self, rgb: Any = None, thermal: Any = None, *, batch_size: int = 8) -> Any:
        """Segments one pair, or a list of pairs. One image of each where ``eval.cameras`` leaves the other camera out.

        Args:
            rgb: A path, a numpy array ``[H, W, 3]``, a tensor ``[3, H, W]`` or ``[H, W, 3]``, or a PIL image; uint8, or
                floating point in 0..1. Or a list of these.
            thermal: The thermal image or images likewise, of one channel and any numbers; those of more than 8 bits
                need ``thermal_scaling``. None where ``rgb`` has four channels, as in MFNet's PNGs.
            batch_size: Pairs of equal size in one pass.

        Returns:
            A :class:`Prediction`, or a list of them.

        Raises:
            DataError: An image that cannot be used. NonFiniteError: a network that gives no numbers.
        """
        if rgb is None and isinstance(thermal, (list, tuple)):
            rgb = [None] * len(thermal)
        if not isinstance(rgb, (list, tuple)):
            return next(self.stream([(rgb, thermal)]))
        if thermal is not None and (not isinstance(thermal, (list, tuple)) or len(thermal) != len(rgb)):
            got = f"{len(thermal)} images" if isinstance(thermal, (list, tuple)) else type(thermal).__name__
            raise DataError(f"got {len(rgb)} RGB images in a list, and {got} as thermal; expected as many in a list")
        others = thermal if thermal is not None else [None] * len(rgb)
        return list(self.stream(zip(rgb, others, strict=True), batch_size=batch_size))

    def stream(
        self, pairs: Iterable[tuple[Source | None, Source | None]], *, batch_size: int = 1
    ) -> Iterator[Prediction]:
        """The predictions of pairs in their order, as they come; arguments and errors of a call."""
        waiting: list[Pair] = []
        for number, (rgb, thermal) in enumerate(pairs):
            pair = self.prepare(rgb, thermal, number)
            if waiting and (waiting[0][0].shape != pair[0].shape or len(waiting) >= batch_size):
                yield from self.predict(waiting)
                waiting = []
            waiting.append(pair)
        if waiting:
            yield from self.predict(waiting)

    def prepare(self, rgb: Source | None, thermal: Source | None = None, number: int | None = None) -> Pair:
        """The images as the network gets them; ``number`` of the pair in a list, for messages. What a camera that is
        left out would show is black."""
        place = "" if number is None else f"[{number}]"
        names, cameras = (f"rgb{place}", f"thermal{place}"), self.config.eval.cameras
        rgb, thermal = (rgb if cameras != "thermal" else None), (thermal if cameras != "rgb" else None)
        with quiet_opencv():
            if cameras != "both":
                if rgb is None and thermal is None:
                    raise DataError(
                        f"{names[cameras == 'thermal']}: got none, expected an image (eval.cameras: {cameras})"
                    )
                return image_alone(rgb, thermal, self.options, names)
            if rgb is None:
                raise DataError(f"{names[0]}: got none, expected an image; eval.cameras=thermal leaves RGB out")
            return pair_of(rgb, thermal, self.options, names)

    def predict(
        self, pairs: Sequence[Pair], names: Sequence[str] = (), *, probabilities: bool = True, divergence: bool = True
    ) -> list[Prediction]:
        """Predictions of prepared pairs of one size, in one pass.

        Args:
            pairs: As :meth:`prepare` gives them.
            names: For messages.
            probabilities: Keep them; else they are None.
            divergence: Keep it, which costs a pass over the whole images where they are seen in windows, scaled or
                mirrored; else it is empty. The unlikeness of a calibrated network costs the same pass.
        """
        images = images_of(pairs, self.config.pipeline.eval_size)
        size = pairs[0][1].shape
        with self._turn:
            maps: list[np.ndarray] = []
            unlike_B: Sequence[float | None] = [None] * len(pairs)
            output: SegmentationOutput | None = None
            if self.trust is not None and self.trust.familiar:
                scores_BKHW, output, numbers = measured(self.inference, *images, size, names)
                unlike_B = unlikeness(self.trust.familiar, numbers).tolist()
            elif divergence:
                scores_BKHW, output = self.inference.explained_scores(*images, size, names)
            else:
                scores_BKHW = self.inference.scores(*images, size, names)
            if divergence and output is not None:
                maps = [where.divergence_BHW.float().cpu().numpy() for where in output.divergence]
            probable = self.inference.probabilities(scores_BKHW).cpu().numpy() if probabilities else None
            masks = scores_BKHW.argmax(dim=1).to(torch.uint8).cpu().numpy()
        return [
            Prediction(
                masks[index],
                probable[index] if probable is not None else None,
                tuple(stage[index] for stage in maps),
                *pair,
                self.classes,
                self.palette,
                unlike_B[index],
            )
            for index, pair in enumerate(pairs)
        ]


def load(
    checkpoint: str | Path | None = None,
    config: str | Path | None = None,
    *,
    device: str = "auto",
    opts: Sequence[str] = (),
    thermal_scaling: Any = None,
    align: Any = None,
    grey_rgb: str | None = None,
    cameras: str = "both",
) -> Predictor:
    """A trained network to call with pairs of images.

    ::

        predictor = mdg.load("best.pt")
        result = predictor("photo.png", "heat.png")
        result.mask, result.areas(), result.save("masks")

    Args:
        checkpoint: A ``best.pt`` or ``last.pt``, or an exported ``.safetensors``; None takes the best (else the last)
            of the newest run in ``exp/``.
        config: A YAML; None takes the configuration inside the checkpoint.
        device: "auto", "cpu", "cuda" or "mps".
        opts: Overrides of the configuration, such as ``eval.flip=true``.
        thermal_scaling: How thermal images of more than 8 bits become 8: the name of a mode, or a mapping such as
            ``{"mode": "fixed", "range": [7000, 9500]}``.
        align: Where sizes differ: "rgb" or "thermal" names the one that the other is resized to. For two cameras side
            by side: the file of a rig ("rig.yaml"), by which thermal is warped onto RGB.
        grey_rgb: "repeat" takes grey images as RGB.
        cameras: "rgb" or "thermal" does without the other camera, for networks that can (``model.stand_ins``, or one
            stream): ``predictor(photo)``, ``predictor(thermal=heat)``.

    Raises:
        UserError: No such file, one that cannot be used, or an option that does not exist.
    """
    chosen = parse_choices(_as_argument, thermal_scaling=thermal_scaling, align=align, grey_rgb=grey_rgb)
    given = [] if cameras == "both" else [f"eval.cameras={cameras}"]
    return Predictor(checkpoint, config, opts=[*opts, *given, f"device={device}"], pair_options=chosen)


def images_of(pairs: Sequence[Pair], eval_size: tuple[int, int] | None) -> tuple[torch.Tensor, torch.Tensor]:
    """``[B, 3, H, W]`` and ``[B, 1, H, W]`` uint8 of pairs of one size, resized where ``eval_size`` says so."""
    rgb_B3HW = torch.from_numpy(np.stack([rgb for rgb, _ in pairs])).permute(0, 3, 1, 2).contiguous()
    thermal_B1HW = torch.from_numpy(np.stack([thermal for _, thermal in pairs]))[:, None]
    if eval_size is None:
        return rgb_B3HW, thermal_B1HW
    return resize_image(rgb_B3HW, eval_size), resize_image(thermal_B1HW, eval_size)


def as_flag(key: str) -> str:
    """An option of a pair as a tool spells it."""
    return f"--{key.replace('_', '-')}"


def _as_argument(key: str) -> str:
    return key


def parse_choices(spelt: Callable[[str], str] = as_flag, **values: Any) -> dict[str, Any]:
    """Those options of a pair that are given, checked; raises ConfigError naming them as ``spelt``."""
    choices: dict[str, Any] = {}
    for key, value in values.items():
        if value is None:
            continue
        if key == "thermal_scaling" and isinstance(value, str):
            value = parse_yaml(f"value: {value}", spelt(key)).values.get("value")
            value = {"mode": value} if isinstance(value, str) else value
        if key == "align" and isinstance(value, str) and value.lstrip().startswith("{"):
            value = parse_yaml(f"value: {value}", spelt(key)).values.get("value")
        if key == "align" and isinstance(value, PurePath):
            value = str(value)
        try:
            choices[key] = getattr(PairOptions.model_validate({key: value}), key)
        except ValidationError as error:
            found = [(".".join(map(str, item["loc"][1:])), item["input"], item["msg"]) for item in error.errors()]
            problems = [f"{inner + ': ' if inner else ''}got {got!r}; {problem}" for inner, got, problem in found]
            raise ConfigError(f"{spelt(key)}: {'; '.join(problems)}") from None
    return choices


def options_of_pair(config: RunConfig, chosen: Mapping[str, Any]) -> PairOptions:
    """The options chosen; for the others, what the training set was prepared with, where it was made of files."""
    of_files = isinstance(config.data, PairOptions)
    trained = {key: getattr(config.data, key) for key in PairOptions.model_fields} if of_files else {}
    return PairOptions.model_validate({**trained, **chosen})
