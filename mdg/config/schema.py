"""The typed run: every key a YAML may hold, its range and its default. Components bring the schema of their options."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from mdg.errors import nearest
from mdg.fields import BatchSize, Count, Pictures, Seed, Size, UserPath
from mdg.registry import DATASETS, LOSSES, METHODS, MODELS, OPTIMIZERS, SCHEDULES, TRANSFORMS, Options, component

Scale = Annotated[float, Field(gt=0, le=4)]


class EvalConfig(Options):
    """When and how to score."""

    batch_size: BatchSize = 1
    """Images (or sliding windows) per process and forward pass; images that differ in size never share one, so the
    scores do not depend on it."""
    mode: Literal["whole", "slide"] = "whole"
    """`whole` gives the network an image at once, `slide` window by window; logits are averaged where windows
    overlap."""
    window: Size | None = Field(None, validate_default=True)
    """[height, width] of the sliding window in pixels; required by `mode: slide`, refused by `whole`. A window larger
    than an image is cut to it."""
    stride: Size | None = None
    """[down, right] from one window to the next in pixels, at most the window; null takes two thirds of it."""
    scales: list[Scale] = Field([1.0], min_length=1, max_length=32)
    """Test-time augmentation: factors by which images are resized; the softmax of all views is averaged."""
    flip: bool = False
    """Test-time augmentation: mirrored images too."""
    cuda_graphs: bool = False
    """On a GPU, record the forward pass once for each size of the images and replay it, which launches all its kernels
    at once: faster for single images. Keeps the memory of a pass for each of the four latest sizes. No effect on a
    CPU."""
    every: Count = 1
    """Evaluate the selection split every N epochs; the last epoch is always evaluated."""
    after: int = Field(0, ge=0, le=1_000_000)
    """Evaluate no epoch up to this one, for runs whose early epochs cannot win; published: 200."""
    selection: Literal["val", "last", "test", "train"] = "val"
    """What chooses `best.pt`: the score on this split, or simply the last epoch. `test` and `train` are never honest
    for reporting, and every table and file of such a run says so."""
    metric: Literal["mIoU", "mAcc", "mF1", "pixel_accuracy"] = "mIoU"
    """Score that selects the best checkpoint; higher is better."""
    cameras: Literal["both", "rgb", "thermal"] = "both"
    """What the network sees: one alone leaves the other out, for networks that can do without (`model.stand_ins`)."""
    shift_search: int = Field(0, ge=0, le=256)
    """Move thermal by less than so many pixels to where its edges agree best with those of RGB, before the network sees
    it; 0 takes pairs as they are."""
    objects: bool = False
    """Score objects apart by which modality shows them (RGB only, thermal only, both, neither), measured by their
    contrast to what is around them; the objects of the other kinds are left out."""
    pictures: Pictures = 8
    """Frames that an evaluation writes as pictures: so many spread over the split, and so many with the lowest mIoU."""

    @property
    def stride_or_default(self) -> tuple[int, int] | None:
        """[down, right] between sliding windows as used: `stride`, else two thirds of the window, rounded."""
        if self.window is None or self.stride is not None:
            return self.stride
        down, right = (max(1, round(2 * side / 3)) for side in self.window)
        return down, right

    @field_validator("scales")
    @classmethod
    def _each_scale_once(cls, scales: list[float]) -> list[float]:
        if len(set(scales)) < len(scales):
            raise ValueError("expected every scale once: a view that is averaged twice would weigh double")
        return sorted(scales)  # the order means nothing, so that it must not change a bit of the scores either

    @field_validator("window")
    @classmethod
    def _window_fits_mode(cls, window: Size | None, info: ValidationInfo) -> Size | None:
        mode = info.data.get("mode")
        if mode == "slide" and window is None:
            raise ValueError(
                "eval.mode is 'slide': name the [height, width] of the window in pixels, best that of the training "
                "crops, as in eval.window: [480, 640]"
            )
        return _refuse_unused(window, mode)

    @field_validator("stride")
    @classmethod
    def _stride_fits_window(cls, stride: Size | None, info: ValidationInfo) -> Size | None:
        window = info.data.get("window")
        if window and stride and any(step > side for step, side in zip(stride, window, strict=True)):
            raise ValueError(
                f"expected at most eval.window {list(window)}, else no window would see the pixels between: set a "
                "smaller stride, or null for two thirds of the window"
            )
        return _refuse_unused(stride, info.data.get("mode"))


def _refuse_unused(size: Size | None, mode: str | None) -> Size | None:
    if size is not None and mode == "whole":
        raise ValueError("it would not be used, as eval.mode is 'whole': set eval.mode: slide, or this key to null")
    return size


class RareClassSampling(Options):
    """Frames with rare classes are drawn more often (DAFormer, Hoyer et al., CVPR 2022)."""

    temperature: float = Field(0.01, gt=0, le=100)
    """The lower, the more rare classes are preferred; a class is drawn with a chance proportional to exp((1 - share of
    its pixels) / temperature), then one of the frames that hold it."""
    min_pixels: Count = 100
    """Fewest pixels for which a frame counts as holding a class."""


class PipelineConfig(Options):
    """Augmentation, input size of the evaluation, loader processes."""

    train: list[component(TRANSFORMS)] = []  # type: ignore[valid-type]
    """Transforms of training, in order; they must end in images of one size."""
    rare_class_sampling: RareClassSampling | None = None
    """Draw frames with rare classes more often, by the labels of the train split; null sees every frame in every
    epoch."""
    eval_size: Size | None = None
    """[height, width] to which images (never labels) are resized for evaluation; null keeps their native size."""
    workers: int | None = Field(None, ge=0, le=256)
    """Loader processes per process of training; 0 reads in the process itself, null takes 4, or its share of the cores
    where that is less. Results do not depend on it."""
    prefetch: int = Field(2, ge=1, le=64)
    """Batches each loader process holds ready."""
    timeout: float = Field(300, gt=0, le=86400)
    """Seconds that a loader process may take for a batch before the run stops with a message."""


Epochs = Annotated[int, Field(ge=1, le=1_000_000)]
NAME_CHARACTERS, NAME_BYTES = 100, 240  # a folder's name has at most 255 bytes, and a number may follow
NOT_IN_NAMES = '/\\:*?"<>|'  # of which no folder's name is made, here or on Windows
DEVICES = {
    "gpu": "a GPU is called `cuda`",
    "cuda:": "a GPU is chosen with CUDA_VISIBLE_DEVICES=NUMBER, the device is then `cuda`",
}


def run_name(text: str) -> str:
    """A valid name of a run made of a file's name, which may hold what a name may not."""
    kept = [c if c.isprintable() and c not in NOT_IN_NAMES else "-" for c in unicodedata.normalize("NFC", text)]
    name = "".join(kept)[:NAME_CHARACTERS].lstrip(" .~-")
    while len(name.encode()) > NAME_BYTES:
        name = name[:-1]
    return name.rstrip(" .") or "run"


def _check_name(name: str) -> str:
    if not name.isprintable() or set(name) & set(NOT_IN_NAMES) or name[0] in " .~-" or name[-1] in " .":
        raise ValueError(
            f"expected the name of a folder: letters, digits, blanks and signs other than {' '.join(NOT_IN_NAMES)}, "
            f"beginning with none of . ~ - and no blank, not ending in a dot or blank; such as '{run_name(name)}'"
        )
    if len(name.encode()) > NAME_BYTES:
        raise ValueError(f"expected at most {NAME_BYTES} bytes, got {len(name.encode())}")
    return name


RunName = Annotated[str, Field(min_length=1, max_length=NAME_CHARACTERS), AfterValidator(_check_name)]


Share = Annotated[float, Field(ge=0, le=1)]


class ModalityDropout(Options):
    """Images of training that lose one of their cameras."""

    rgb: Share = 0.1
    """Share that loses RGB."""
    thermal: Share = 0.1
    """Share that loses thermal; an image never loses both."""

    @model_validator(mode="after")
    def _check_sum(self) -> ModalityDropout:
        if self.rgb + self.thermal > 1:
            raise ValueError(f"expected two shares that are 1 at most together, got {self.rgb:g} and {self.thermal:g}")
        return self


class TrainConfig(Options):
    """How long and in which steps to train."""

    epochs: Epochs = 500
    """Passes over the training split."""
    batch_size: BatchSize = 3
    """Images per process and forward pass."""
    accumulate: int = Field(1, ge=1, le=65536)
    """Forward passes whose gradients are averaged into one optimizer step."""
    clip_grad_norm: float | None = Field(None, gt=0)
    """Upper bound of the global gradient norm; null does not clip."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Autocast dtype; the FFT, the scan, Dice and the softmax of the loss stay float32 in any case."""
    ema_decay: float | None = Field(None, gt=0, lt=1)
    """Keep an exponential moving average of the weights and evaluate that; null turns it off. The decay of step t is
    min(ema_decay, (1 + t) / (10 + t)), so that the average forgets where it began."""
    method: component(METHODS) = Field(default="Supervised", validate_default=True)  # type: ignore[valid-type]
    """What is learnt from: labels alone, or images without a label as well (`data.labelled`, `unlabelled`)."""
    modality_dropout: ModalityDropout | None = None
    """Let images lose a camera, so that the network works without one (`model.stand_ins`); null loses none."""
    parallel: Literal["ddp", "fsdp2"] = "ddp"
    """How several processes share the network: `ddp` keeps a copy in each; `fsdp2` splits weights, gradients and
    moments over them, for networks that do not fit one device. fp32 and bf16, without `compile`."""
    sync_batchnorm: bool = True
    """BatchNorm statistics over all processes (CUDA with several processes only; ignored elsewhere)."""
    channels_last: bool = True
    """Channels-last memory format, in which the model exchanges its maps without copies."""
    activation_checkpointing: bool = False
    """Compute the activations of encoder blocks and interaction stages again in the backward pass instead of keeping
    them, with equal results: less memory for more time. MDG-B2 at 480x640 in batches of 2 on a CPU: 5.4 GB in place of
    7.1 for 1.4 times the time. There `MALLOC_ARENA_MAX=1 MALLOC_MMAP_THRESHOLD_=8388608` before the command makes it
    3.8 GB for twice the time: freed memory then goes back to the system."""
    compile: bool = False
    """`torch.compile` the model. On a CPU it needs a C++ compiler and minutes, and gains nothing over the kernels of
    this project."""
    init_from: UserPath | None = None
    """A `best.pt` or `last.pt` whose weights a new run starts from, as far as they fit; classifiers take the rows of
    classes by name. `--resume` continues a run instead."""
    freeze: list[str] = []
    """Parts that do not learn, by name as in `rgb_backbone.patch_embed1` or pattern as in `*.norm1`; BatchNorms among
    them keep their statistics."""
    stop_epoch: Epochs | None = None
    """Stop cleanly after this epoch, to be resumed later (the schedule still spans all epochs)."""
    max_steps: Count | None = None
    """Stop after this many optimizer steps, whatever `epochs` says (the schedule still spans all epochs)."""
    max_skipped_steps: int = Field(16, ge=1, le=10_000)
    """A step whose loss or gradients are not finite is skipped; after so many in a row the run stops. 16 halvings bring
    the first loss scale of fp16, 65536, down to 1."""

    @model_validator(mode="after")
    def _check_parallel(self) -> TrainConfig:
        if self.parallel == "fsdp2" and (self.compile or self.precision == "fp16"):
            got = "compile: true" if self.compile else "precision: fp16"
            raise ValueError(f"parallel: fsdp2 goes with fp32 and bf16, without compile, got {got}; change either")
        return self


class CheckpointConfig(Options):
    """When to save besides the end of every epoch."""

    every_steps: Count | None = 500
    """Save `last.pt` every N optimizer steps too; null saves at the end of epochs only."""
    previous: bool = True
    """Keep the state before the last one as `previous.pt`, so that a damaged `last.pt` costs one save and not the
    run."""


class LogConfig(Options):
    """What a run leaves behind."""

    every_steps: Count = 20
    """Optimizer steps per line of `metrics.jsonl` and per point of a tracker."""
    trackers: list[Literal["tensorboard", "wandb", "mlflow"]] = ["tensorboard"]
    """Where scalars, picture grids and the configuration go, too: `tensorboard` (files of the run), `wandb` (online
    where it is logged in, else files of the run), `mlflow` (`MLFLOW_TRACKING_URI`, else files of the run)."""
    pictures: Pictures = 4
    """Validation frames in each picture grid of a tracker."""


class OpsConfig(Options):
    """Backends of the operators; `auto` takes the fastest one that can run here and logs why."""

    neighborhood_attention: str = "auto"
    """`auto`, `numba` (CPU), `tiled` (plain PyTorch), `natten` or the name of a registered backend."""
    channel_scan: str = "auto"
    """`auto`, `triton` (CUDA), `numba` (CPU), `mamba_ssm`, `torch` (plain PyTorch), `reference` (every state written
    out, as published) or the name of a registered backend."""
    linear: str = "auto"
    """`auto`, `onednn` (CPU), `torch` (what PyTorch was built with) or the name of a registered backend."""
    attention: str = "auto"
    """`auto`, `numba` (CPU), `torch` (PyTorch's own) or the name of a registered backend."""
    resized_sum: str = "auto"
    """`auto`, `numba` (CPU), `torch` (one resized map after another) or the name of a registered backend."""

    @field_validator("*")
    @classmethod
    def _check_name(cls, name: str, info: ValidationInfo) -> str:
        if name == "auto":
            return name
        from mdg.ops import available_backends  # PyTorch is needed only where a backend is named

        assert info.field_name is not None  # pydantic tells it to the validator of a field
        known = ["auto", *available_backends(info.field_name)]
        if name not in known:
            raise ValueError(f"unknown backend; expected one of {', '.join(known)}.{nearest(name, known)}")
        return name


class RunConfig(Options):
    """A whole run. The same object trains, evaluates and explains a checkpoint."""

    name: RunName = "run"
    """Folder of the run under `exp_dir`, in any letters; made of the name of the YAML where it is not set."""
    custom_imports: list[str] = []
    """Modules imported first, so that the components they register can be named here."""
    seed: Seed = 3407
    """Seeds initialisation, order, augmentation and dropout; with it a run on a CPU repeats bit for bit."""
    exp_dir: UserPath = Path("exp")
    """Where run directories are made."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """`auto` takes CUDA where there is one, else the CPU. `mps` is the GPU of a Mac, on plain PyTorch operators; nobody
    has tried it yet."""
    threads: int | None = Field(None, ge=1, le=4096)
    """CPU threads per process; null takes `OMP_NUM_THREADS`, else shares the cores (of a container: its quota) among
    the processes of this machine."""
    deterministic: bool = False
    """Ask PyTorch for deterministic CUDA kernels, slower; a CPU run is deterministic anyway."""
    process_timeout: float = Field(600, gt=0, le=86400)
    """Seconds after which processes of a run that wait for each other give up."""
    data: component(DATASETS)  # type: ignore[valid-type]
    """Data set: where it lies and which splits play which role."""
    unlabelled: list[component(DATASETS)] = []  # type: ignore[valid-type]
    """Train splits of further data sets of which the images alone are used, by a `train.method` that learns from such;
    their label files need not be there."""
    pipeline: PipelineConfig = PipelineConfig()
    """Augmentation, input size of the evaluation, loader processes."""
    model: component(MODELS) = Field(default="MDG", validate_default=True)  # type: ignore[valid-type]
    """Network; every part of it can be replaced."""
    loss: list[component(LOSSES)] = Field(default=[], validate_default=True)  # type: ignore[valid-type]
    """Weighted terms on the main logits; empty takes the published objective 0.5 Dice + 0.5 cross-entropy."""
    auxiliary_loss: component(LOSSES) = Field(  # type: ignore[valid-type]
        default={"type": "CrossEntropy", "weight": 0.3}, validate_default=True
    )
    """Term on each of the two auxiliary heads, where the model has them."""
    optimizer: component(OPTIMIZERS) = Field(default="AdamW", validate_default=True)  # type: ignore[valid-type]
    """Optimizer and its parameter groups."""
    schedule: component(SCHEDULES) = Field(default="Poly", validate_default=True)  # type: ignore[valid-type]
    """Learning rate per optimizer step."""
    train: TrainConfig = TrainConfig()
    eval: EvalConfig = EvalConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    log: LogConfig = LogConfig()
    ops: OpsConfig = OpsConfig()

    @field_validator("device", mode="before")
    @classmethod
    def _advise_device(cls, device: Any) -> Any:
        advice = next((text for word, text in DEVICES.items() if str(device).lower().startswith(word)), None)
        if advice is not None:
            raise ValueError(f"expected `auto`, `cpu`, `cuda` or `mps`: {advice}")
        return device

    @field_validator("loss", mode="before")
    @classmethod
    def _published_objective(cls, value: Any) -> Any:
        published = [{"type": "Dice", "weight": 0.5}, {"type": "CrossEntropy", "weight": 0.5, "label_smoothing": 0.1}]
        return published if value == [] else value

    @model_validator(mode="after")
    def _check_pairs(self) -> RunConfig:
        split, data = self.eval.selection, self.data
        held_out = split == "val" and getattr(data, "holdout", None) is not None
        if split != "last" and not held_out and getattr(data, f"{split}_split", None) is None:
            raise ValueError(
                f"eval.selection is '{split}', but data.{split}_split is null: name a split, hold one out of the train "
                "split (data.holdout: 0.1), or set eval.selection: last"
            )
        val_split = getattr(data, "val_split", None)
        if split == "val" and val_split is not None and val_split == getattr(data, "test_split", None):
            raise ValueError(
                f"data.val_split and data.test_split are both '{val_split}', so val would select on test: name "
                "another val split, or say so openly with eval.selection: test"
            )
        return self
