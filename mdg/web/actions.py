"""What happens when somebody touches the page: from the values of its parts to new ones.

Whatever goes wrong is a sentence on the page, which keeps what it showed.
"""

from __future__ import annotations

import html
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr

from mdg.engine.predictor import Pair, Predictor
from mdg.errors import MachineError, UserError
from mdg.utils.cli import OUT_OF_MEMORY
from mdg.utils.crash import write_report
from mdg.web.inputs import Layout, name_of, options_of_page, read_files
from mdg.web.looks import Shown, areas_page
from mdg.web.moving import segment_video
from mdg.web.samples import Sample

logger = logging.getLogger("mdg.web")


class Actions:
    """What the parts of the page call.

    Args:
        predictor: The network.
        folder: For files of results; it is removed at the end.
        frames: Frames of a video that are taken at most.
    """

    def __init__(self, predictor: Predictor, folder: Path, frames: int):
        self.predictor, self.folder, self.frames = predictor, folder, frames

    def files(
        self,
        rgb: str | None,
        thermal: str | None,
        layout: Layout,
        scaling: str | None,
        sizes: str | None,
        grey: bool,
        old: Shown | None,
        *view: Any,
    ) -> list[Any]:
        """Segments files that were dropped.

        Args:
            rgb, thermal, layout: As for :func:`mdg.web.inputs.read_files`.
            scaling, sizes, grey: As for :func:`mdg.web.inputs.options_of_page`.
            old: What was shown before.
            view: Opacity, left and right look.

        Returns:
            The result, its two pictures, its areas, its files.

        Raises:
            UserError: Files that cannot be used.
        """
        options = options_of_page(self.predictor.options, scaling, sizes, grey)
        return self._pair(read_files(rgb, thermal, layout, options), name_of(rgb, thermal), old, *view)

    def sample(self, sample: Sample, old: Shown | None, *view: Any) -> list[Any]:
        """Segments a sample; as :meth:`files`."""
        return self._pair((sample.rgb, sample.thermal), f"scene_{sample.scene}", old, *view)

    def _pair(self, pair: Pair, name: str, old: Shown | None, opacity: float, left: str, right: str) -> list[Any]:
        with self._room() as folder:
            shown = Shown(self.predictor.predict([pair])[0], folder, name, opacity)
            areas, unlike = shown.prediction.areas(), shown.prediction.is_unlike
            told = areas_page(areas, self.predictor.palette, shown.divergence(), unlike=unlike)
        clear(old)
        return [shown, look(shown, opacity, left, right), told, _offered(shown.files)]

    def video(
        self,
        rgb: str | None,
        thermal: str | None,
        layout: Layout,
        every: int,
        scaling: str | None,
        sizes: str | None,
        grey: bool,
        old: Path | None,
    ) -> Iterator[list[Any]]:
        """Segments a video in steps; arguments as of :meth:`files`, ``every`` takes every so many-th frame.

        Yields:
            The folder of the result, how far it is, the video, its areas, its files. What goes wrong is told here.
        """
        same = gr.skip()
        try:
            options = options_of_page(self.predictor.options, scaling, sizes, grey)
            with self._room() as folder:
                name, limits = name_of(rgb, thermal), {"most": self.frames, "every": int(every)}
                for state in segment_video(self.predictor, rgb, thermal, layout, options, folder, name, **limits):
                    if not state.files:
                        yield [same, bar_page(state.done, state.total), same, same, same]
            clear(old)
            if state.note:
                gr.Info(html.escape(state.note), duration=None)
            told = areas_page(state.areas, self.predictor.palette, what=f"the image, mean of {state.done} frames")
            yield [folder, "", str(state.files[0]), told, _offered(state.files)]
        except Exception as error:
            tell(error)
            yield [same, "", same, same, same]

    @contextmanager
    def _room(self) -> Iterator[Path]:
        """A folder of its own, which stays where all went well."""
        folder = Path(tempfile.mkdtemp(prefix="result-", dir=self.folder))
        try:
            yield folder
        except BaseException:  # GeneratorExit too, of a video that is stopped
            clear(folder)
            raise


def clear(result: Shown | Path | None) -> None:
    """Removes the files of a result that nobody looks at any more."""
    folder = result.folder if isinstance(result, Shown) else result
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


def look(shown: Shown | None, opacity: float, left: str, right: str) -> Any:
    """The two pictures of a result."""
    return gr.skip() if shown is None else (shown.look(left, opacity), shown.look(right, opacity))


def repaint(shown: Shown | None, opacity: float, left: str, right: str) -> Any:
    """The two pictures, and the files with the overlay painted anew."""
    if shown is None:
        return gr.skip()
    shown.paint(opacity)
    pictures = look(shown, opacity, left, right) if "overlay" in (left, right) else gr.skip()
    return [pictures, _offered(shown.files)]


def _offered(files: Sequence[Path]) -> Any:
    return gr.update(value=[str(file) for file in files], visible=True)


def sentence(error: Exception) -> str:
    """What went wrong, as HTML for a message on the page; what nobody foresaw goes into a report."""
    if not isinstance(error, UserError):
        if isinstance(error, MemoryError) or any(hint in str(error).lower() for hint in OUT_OF_MEMORY):
            error = MachineError("not enough memory for images of this size; take smaller ones")
        else:
            file = write_report("demo_web", error)
            logger.error("unforeseen %s: %s; a report lies in %s", type(error).__name__, error, file)
            error = MachineError(
                f"unforeseen {type(error).__name__}; this is a fault of mdg, and the server's log says more"
            )
    return html.escape(str(error))


def tell(error: Exception) -> None:
    """Shows what went wrong until it is closed."""
    gr.Warning(sentence(error), duration=None)


def guarded(action: Callable[..., Any]) -> Callable[..., Any]:
    """The action; where it fails the page says why, and keeps what it showed."""

    def run(*arguments: Any) -> Any:
        try:
            return action(*arguments)
        except Exception as error:
            tell(error)
            return gr.skip()

    return run


def bar_page(done: int, total: int | None) -> str:
    """How far a video is, as HTML."""
    share = "" if total is None else f' value="{done}" max="{max(total, done)}"'
    return f'<label class="mdg-bar">{done} of {total or "?"} frames <progress{share}></progress></label>'
