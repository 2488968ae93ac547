"""Masks for images without labels: what ``tools/infer_mm.py`` calls.

Pairs are decoded, segmented and written side by side: reading and writing go on in threads of their own while the
network works.

Legend: H W image size, K classes.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from mdg.data.reading.images import open_image, quiet_opencv
from mdg.data.reading.pair_files import Pairs, find_pairs, pairs_in_list
from mdg.data.reading.pairs import read_pair
from mdg.data.reading.video import Half, Video, frame_pairs, grey, halves, is_video
from mdg.engine.outputs import DEFAULT, DEFAULT_OF_VIDEOS, OF_A_PAIR, PROBABLE, Outputs, require_kinds
from mdg.engine.predictor import Pair, Prediction, Predictor, parse_choices
from mdg.errors import FLAGS, ConfigError, DataError, MachineError, NonFiniteError, UserError, first_few
from mdg.utils.files import explained
from mdg.utils.logging import console, setup_logging
from mdg.utils.progress import Progress
from mdg.utils.threads import in_order

logger = logging.getLogger("mdg.infer")
SHOWN = 20  # pairs in a message
LINE = "\n  "
READERS = 2  # threads that decode
ABSENT = "none"  # in the place of the images of a camera
WAITING = 8  # predictions that may wait to be written

Reader = Callable[[], Pair]


class UnusablePairs(DataError):
    """Some pairs could not be segmented; all others were."""

    exit_code = 1


class Item(NamedTuple):
    """A pair to be read: its name, how, and its RGB file where it has one."""

    name: str
    read: Reader
    image: Path | None = None


class Read(NamedTuple):
    """A pair that was read, or why it was not."""

    item: Item
    pair: Pair | None
    error: UserError | None = None


def predict(
    rgb: str | Path | None,
    thermal: str | Path | None = None,
    checkpoint: str | Path | None = None,
    config: str | Path | None = None,
    *,
    out_dir: str | Path = "predictions",
    opts: Sequence[str] = (),
    resume: bool = False,
    thermal_scaling: Any = None,
    align: str | None = None,
    grey_rgb: str | None = None,
    save: Sequence[str] = (),
    rgb_name: str | None = None,
    thermal_name: str | None = None,
    pair_list: str | Path | None = None,
    batch_size: int = 1,
    rgb_half: Half | None = None,
    delay: float = 0.0,
    frames: int | None = None,
    every: int = 1,
) -> list[Path]:
    """Segments image pairs, or the frames of videos, and writes what ``save`` names.

    Args:
        rgb: An image or a folder of images (without ``thermal``, 4-channel PNGs as in MFNet), a video, the address of a
            stream or the number of a camera.
        thermal: The same of the thermal camera; folders hold files of the same names. "none" here, or as ``rgb``, does
            without that camera, for networks that can.
        checkpoint, config, opts: As for :func:`mdg.evaluate`.
        out_dir: Folder for the outputs; existing files in it are never overwritten.
        resume: Leave out the pairs whose outputs exist.
        thermal_scaling, align, grey_rgb: Options of :class:`PairOptions` (``thermal_scaling`` also as YAML, or as the
            name of a mode); None prepares images as those of the training set were.
        save: What to write: ``mask``, ``overlay``, ``colour``, ``divergence``, ``entropy``, ``probabilities``,
            ``labelme`` of every pair; ``areas``, ``uncertainty``, ``coco``, ``cvat``, ``video`` of all. Empty: masks
            and overlays of images, a video and areas of videos.
        rgb_name, thermal_name: How files in the folders are called, such as ``{name}_ir.*``; equal names else.
        pair_list: A CSV that names the pairs, in place of ``rgb``.
        batch_size: Pairs of equal size in one pass.
        rgb_half: Of a video that shows both cameras: the half in which colour is.
        delay: Seconds by which the thermal video began later.
        frames: Stop behind so many frames.
        every: Take every so many-th frame of a video.

    Returns:
        The files written of pairs, the masks where these are among them.

    Raises:
        UserError: Missing or unpaired files, outputs that exist, an unusable checkpoint.
        UnusablePairs: Files of some pairs cannot be used; raised when all the others have been segmented.
    """
    out_dir = Path(out_dir)
    chosen = parse_choices(thermal_scaling=thermal_scaling, align=align, grey_rgb=grey_rgb)
    if (rgb is None) == (pair_list is None):
        raise ConfigError("expected --rgb or --pairs, and not both")
    cameras, rgb, thermal = _cameras(rgb, thermal)
    opts = [*opts, *([] if cameras == "both" else [f"eval.cameras={cameras}"])]
    moving = rgb is not None and is_video(rgb)
    kinds = tuple(save) or (DEFAULT_OF_VIDEOS if moving else DEFAULT)
    require_kinds(kinds)
    setup_logging(True)
    task = _Task(checkpoint, config, opts, chosen, out_dir, kinds, batch_size, frames, every, cameras)
    if moving:
        assert rgb is not None
        _require_folder(out_dir, [])
        return _predict_video(task, str(rgb), thermal, rgb_half, delay)
    colour, heat = (None if path is None else Path(path) for path in (rgb, thermal))
    if pair_list is not None:
        pairs = pairs_in_list(Path(pair_list))
    else:
        assert colour is not None
        pairs = find_pairs(colour, heat, rgb_name=rgb_name, thermal_name=thermal_name, leave_out=out_dir)
    if cameras == "both":
        _require_fourth_channel(pairs)
    _require_folder(out_dir, [colour, heat])
    outputs = Outputs(out_dir, kinds)
    pairs = _without_outputs(outputs, pairs, resume)
    if not pairs:
        console.print(f"nothing left to do: every pair has its outputs in {out_dir}")
        return []
    predictor = task.predictor()

    def reader(files: tuple[Path, Path | None]) -> Reader:
        if cameras == "both":
            return partial(read_pair, *files, predictor.options, FLAGS)
        return partial(predictor.prepare, *_alone(files[0], cameras))

    reading = (Item(name, reader(files), files[0]) for name, files in islice(pairs.items(), frames))
    return _run(predictor, reading, min(len(pairs), frames or len(pairs)), outputs, batch_size)


class _Task(NamedTuple):
    """What a run of predictions is asked for, besides its inputs."""

    checkpoint: str | Path | None
    config: str | Path | None
    opts: Sequence[str]
    chosen: dict[str, Any]
    out_dir: Path
    kinds: tuple[str, ...]
    batch_size: int
    frames: int | None
    every: int
    cameras: str

    def predictor(self) -> Predictor:
        return Predictor(self.checkpoint, self.config, opts=self.opts, pair_options=self.chosen)


def _predict_video(
    task: _Task, rgb: str, thermal: str | Path | None, rgb_half: Half | None, delay: float
) -> list[Path]:
    if task.cameras != "both":
        return _predict_one_video(task, rgb)
    if thermal is None and rgb_half is None:
        raise ConfigError(
            f"{rgb}: expected --thermal with the video of the other camera, or --rgb-half left (or right) where this "
            "one shows both beside each other"
        )
    if thermal is not None and rgb_half is not None:
        raise ConfigError("expected --thermal or --rgb-half, and not both")
    if thermal is not None and not is_video(thermal):
        raise ConfigError(f"{rgb} is a video and {thermal} is none; expected two of a kind")
    with ExitStack() as stack:
        colour = stack.enter_context(Video(rgb))
        if thermal is None:
            assert rgb_half is not None
            found = halves(colour, rgb_half)
        else:
            found = frame_pairs(colour, stack.enter_context(Video(thermal)), delay)
        title = Path(rgb).stem if Path(rgb).suffix else "camera"
        outputs = Outputs(task.out_dir, task.kinds, title=title, rate=max(colour.rate / task.every, 1.0))
        return _predict_frames(task, outputs, title, found, colour.frames)


def _predict_one_video(task: _Task, video: str) -> list[Path]:
    """The frames of the camera that is there."""
    with Video(video) as frames:
        seen = frames if task.cameras == "rgb" else (grey(image, video) for image in frames)
        found = (_alone(image, task.cameras) for image in seen)
        title = Path(video).stem if Path(video).suffix else "camera"
        outputs = Outputs(task.out_dir, task.kinds, title=title, rate=max(frames.rate / task.every, 1.0))
        return _predict_frames(task, outputs, title, found, frames.frames)


def _predict_frames(
    task: _Task, outputs: Outputs, title: str, found: Iterable[Sequence[Any]], length: int | None
) -> list[Path]:
    """Segments what a video shows, ``length`` frames if that is known."""
    _require_absent([file for file in outputs.common if file.exists()], task.out_dir)
    predictor = task.predictor()
    wanted = ((place, images) for place, images in enumerate(found) if place % task.every == 0)
    reading = (
        Item(f"{title}_{place:06d}", partial(predictor.prepare, *images))
        for place, images in islice(wanted, task.frames)
    )
    total = task.frames
    if length is not None:
        total = min(-(-length // task.every), task.frames or length)
    return _run(predictor, reading, total, outputs, task.batch_size)


def _alone(image: Any, cameras: str) -> tuple[Any, Any]:
    """The image of the camera that is there, in the place of RGB or of thermal."""
    return (image, None) if cameras == "rgb" else (None, image)


def _cameras(rgb: str | Path | None, thermal: str | Path | None) -> tuple[str, str | Path | None, str | Path | None]:
    """Which cameras there are, by "none" in the place of one that is absent, and where the first of them is found."""
    absent = [str(path) == ABSENT for path in (rgb, thermal)]
    if all(absent):
        raise ConfigError("--rgb none --thermal none: expected an image, a folder or a video of one camera")
    if absent[0]:
        if thermal is None:
            raise ConfigError("--rgb none: expected --thermal with the images of the other camera")
        return "thermal", thermal, None
    return ("rgb", rgb, None) if absent[1] else ("both", rgb, thermal)


def _run(
    predictor: Predictor, reading: Iterable[Item], total: int | None, outputs: Outputs, batch_size: int
) -> list[Path]:
    """Reads, segments and writes; what cannot be read is left out and named at the end."""
    done: list[Path] = []
    unlike: list[str] = []
    failed: dict[str, str] = {}
    wanted = {"probabilities": bool(PROBABLE & set(outputs.kinds)), "divergence": "divergence" in outputs.kinds}
    unit = "pairs" if set(OF_A_PAIR) & set(outputs.kinds) else "frames"
    with quiet_opencv(), outputs, _Writer(outputs) as writer, Progress(total, unit) as progress:
        try:
            for batch in _batches(in_order(_read, reading, READERS), batch_size):
                good = [read for read in batch if read.error is None]
                for read in batch:
                    if read.error is not None:
                        if total == 1:
                            raise read.error
                        failed[read.item.name] = str(read.error)
                        logger.warning("left out: %s", read.error)
                pairs = [read.pair for read in good if read.pair is not None]
                names = [read.item.name for read in good]
                if pairs:
                    found = predictor.predict(pairs, names, **wanted)
                    for read, prediction in zip(good, found, strict=True):
                        writer.write(read.item, prediction)
                        unlike += [read.item.name] if prediction.is_unlike else []
                        done += outputs.files(read.item.name)[-1:]
                progress.advance(len(batch))
        except KeyboardInterrupt:
            logger.warning("stopped; %d %s are done", progress.done, unit)
    _tell(predictor, outputs, progress, len(failed))
    if unlike:
        logger.warning("%d of %d %s are unlike what trained the network, and their masks are not to be trusted: %s",
                       len(unlike), progress.done, unit, first_few(unlike, SHOWN))  # fmt: skip
    if failed:
        raise UnusablePairs(
            f"{len(failed)} of {progress.done} pairs were left out:\n  {first_few([*failed.values()], SHOWN, LINE)}"
        )
    return done


def _read(item: Item) -> Read:
    try:
        return Read(item, item.read())
    except (MachineError, NonFiniteError):  # of no pair in particular
        raise
    except UserError as error:
        return Read(item, None, error)


def _batches(found: Iterable[Read], batch_size: int) -> Iterator[list[Read]]:
    """Neighbours of one size, so many at most; what could not be read goes with whatever comes."""
    batch: list[Read] = []
    shape: tuple[int, ...] | None = None
    for read in found:
        own = read.pair[0].shape if read.pair is not None else None
        if batch and (len(batch) >= batch_size or (own is not None and shape is not None and own != shape)):
            yield batch
            batch, shape = [], None
        batch.append(read)
        shape = own if own is not None else shape
    if batch:
        yield batch


class _Writer:
    """Writes in a thread of its own, in order, with few predictions waiting; a context manager."""

    def __init__(self, outputs: Outputs):
        self.outputs = outputs
        self._pool = ThreadPoolExecutor(1)
        self._waiting: deque[Future[None]] = deque()

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            while self._waiting:
                future = self._waiting.popleft()
                if kind is None:
                    future.result()
        finally:
            self._pool.shutdown(cancel_futures=kind is not None and kind is not KeyboardInterrupt)

    def write(self, item: Item, prediction: Prediction) -> None:
        """Raises what an earlier one met."""
        self._waiting.append(self._pool.submit(self.outputs.write, item.name, prediction, item.image))
        while self._waiting and (self._waiting[0].done() or len(self._waiting) > WAITING):
            self._waiting.popleft().result()


def _tell(predictor: Predictor, outputs: Outputs, progress: Progress, failed: int) -> None:
    kinds = ", ".join(kind for kind in reversed(OF_A_PAIR) if kind in outputs.kinds)
    parts = [kinds] if kinds else []
    parts += [file.name for file in outputs.common]
    count = progress.done - failed
    done = f"{count} {progress.unit if count != 1 else progress.unit.removesuffix('s')}"
    console.print(
        f"{done}: {'; '.join(parts)} in {outputs.folder} ({progress.rate():.1f} {progress.unit}/s); ids: "
        + ", ".join(f"{k} {name}" for k, name in enumerate(predictor.classes))
    )


def _require_fourth_channel(pairs: Pairs) -> None:
    """Before the network is loaded; one header is read where all is well."""
    files = [rgb for rgb, thermal in pairs.values() if thermal is None]
    channels = None
    for file in files:
        try:
            channels = open_image(file)[1].channels
        except DataError:
            continue  # it is named where the pair is read
        if channels == 4:
            return
    if channels is not None:
        raise DataError(
            f"{files[-1]}: got {channels} channel(s), expected 4 (RGB and thermal in one image): {FLAGS.no_fourth}"
        )


def _require_folder(out_dir: Path, inputs: Sequence[Path | None]) -> None:
    """Outputs can be written there, and will not be taken for inputs by the next command."""
    for path in inputs:
        if path is not None and path.is_dir() and out_dir.resolve() == path.resolve():
            raise DataError(f"--out {out_dir}: the images lie there, and masks would be taken for images; name another")
    existing = next(parent for parent in (out_dir, *out_dir.absolute().parents) if parent.exists())
    with explained(out_dir), tempfile.TemporaryFile(dir=existing):
        pass


def _without_outputs(outputs: Outputs, pairs: Pairs, resume: bool) -> Pairs:
    files = {name: outputs.files(name) for name in pairs}
    existing = [file for parts in files.values() for file in parts if file.exists()]
    if not resume:
        _require_absent(existing + [file for file in outputs.common if file.exists()], outputs.folder)
        return pairs
    # Areas are appended, pair by pair; every other common file would be replaced by one of the pairs that are left.
    whole = [kind for kind in outputs.of_all if kind != "areas" or not any(files.values())]
    if whole and (existing or any(file.exists() for file in outputs.common)):
        raise ConfigError(
            f"--resume with --save {' '.join(whole)}: these are made of all pairs at once, and would hold those that "
            "are left alone; leave them out here, or name another folder with --out"
        )
    return {name: pair for name, pair in pairs.items() if not (files[name] and all(f.exists() for f in files[name]))}


def _require_absent(existing: Sequence[Path], out_dir: Path) -> None:
    if existing:
        shown = os.path.relpath(existing[0], out_dir)
        raise DataError(
            f"{out_dir}: {shown} exists and is not overwritten; --resume leaves out the pairs that are done, --out "
            "names another folder"
        )
