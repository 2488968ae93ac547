"""The page itself, in Gradio: what lies where, and what happens when somebody touches it.

What is computed and shown is in the other files of this room; none of them knows Gradio.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import gradio as gr
import numpy as np

from mdg.engine.predictor import Predictor
from mdg.utils import visualization as vis
from mdg.web.about import About
from mdg.web.actions import Actions, clear, guarded, look, repaint
from mdg.web.inputs import LABELS, READING, SIZES
from mdg.web.looks import LOOKS, OPACITY
from mdg.web.samples import Sample

TITLE = "RGB-thermal segmentation"
SCALINGS = [
    ("as in training", ""),
    ("as stored, 8 bits", "none"),
    ("-10 to 45 degrees Celsius", "{mode: celsius, range: [-10, 45]}"),
    ("percentiles 1 to 99 of each image", "percentile"),
    ("extremes of each image", "minmax"),
]
AT_ONCE = 2  # pairs: one is read or drawn while the network sees another
WAITING = 24  # requests; one more is told to come back
KEPT_S = 3600.0  # seconds that a result is kept for whoever looks at it
SAMPLE_HEIGHT = 180  # px of a camera's picture among the samples
NARROW = 700  # px of a window: there the result lies below what was pressed
TO_RESULT = (
    "() => {{ if (innerWidth < {width}) document.getElementById('{element}').scrollIntoView({{behavior: 'smooth'}}) }}"
)
CSS = Path(__file__).with_name("style.html")


def build(predictor: Predictor, samples: Sequence[Sample], about: About, folder: Path, frames: int) -> gr.Blocks:
    """The page.

    Args:
        predictor: The network.
        samples: Pairs to begin with.
        about: Of the network.
        folder: For files of results.
        frames: Frames of a video that are taken at most.
    """
    actions = Actions(predictor, folder, frames)
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(600, int(KEPT_S))) as page:
        gr.HTML(
            f"<h1>{TITLE}</h1><p>{html.escape(about.network)}, learnt from {html.escape(about.trained_on)}.</p>",
            elem_classes="mdg-head",
        )
        with gr.Tab("A pair"):
            _pair_tab(actions, samples, about)
        with gr.Tab("A video"):
            _video_tab(actions)
        with gr.Tab("About"):
            gr.HTML(about.page(), elem_classes="mdg-about")
    return page.queue(max_size=WAITING, default_concurrency_limit=AT_ONCE, api_open=False)


def _reading() -> list[gr.components.Component]:
    """Thermal values, sizes, grey RGB."""
    with gr.Accordion(READING, open=False):
        scaling = gr.Dropdown(
            SCALINGS,
            value="",
            label=LABELS["thermal_scaling"],
            allow_custom_value=True,
            info="For files of more than 8 bits. Or type one, such as {mode: fixed, range: [7000, 9500]}",
        )
        sizes = gr.Dropdown(
            [(label, value) for value, label in SIZES.items()],
            value="",
            label=LABELS["align"],
            info="To change them is right where both cameras show the same view",
        )
        grey = gr.Checkbox(label=f"{LABELS['grey_rgb']}: repeat", info="A camera that takes grey pictures at night")
    return [scaling, sizes, grey]


def _drop(label: str, name: str) -> gr.File:
    return gr.File(label=label, height=140, elem_classes="mdg-drop", elem_id=name, min_width=200)


def _layout(kind: str, one: str) -> gr.Radio:
    choices = [
        (f"two {kind}s{one}", "files"),
        ("side by side, colour left", "left"),
        ("side by side, colour right", "right"),
    ]
    return gr.Radio(choices, value="files", label="What the files show", elem_id=f"{kind}-layout")


def _pair_tab(actions: Actions, samples: Sequence[Sample], about: About) -> None:
    result = gr.State(None, time_to_live=KEPT_S, delete_callback=clear)
    looks = [look for look in LOOKS if look != "divergence" or _diverges(actions.predictor, samples)]
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            gr.HTML(_of_samples(about), elem_classes="mdg-soft")
            gallery = gr.Gallery(
                [(_thumbnail(sample), sample.title) for sample in samples],
                label="Samples",
                show_label=False,
                columns=2,
                height="auto",
                allow_preview=False,
                object_fit="contain",
                elem_id="samples",
                buttons=[],
                format="png",
            )
            with gr.Row():
                rgb = _drop("RGB image, or one file that holds both", "rgb")
                thermal = _drop("Thermal image", "thermal")
            layout = _layout("file", ", or one that holds both")
            reading = _reading()
            go = gr.Button("Segment", variant="primary", elem_id="segment")
        with gr.Column(scale=3, min_width=300):
            with gr.Row():
                left = gr.Dropdown(looks, value="RGB", label="Left", min_width=120, elem_id="left", filterable=False)
                right = gr.Dropdown(
                    looks, value="overlay", label="Right", min_width=120, elem_id="right", filterable=False
                )
            pictures = gr.ImageSlider(
                label="Result",
                show_label=False,
                interactive=False,
                format="png",
                elem_id="pictures",
                max_height=560,
                buttons=["fullscreen"],
            )
            opacity = gr.Slider(0, 1, OPACITY, step=0.05, label="Opacity of the overlay", elem_id="opacity")
            areas = gr.HTML(elem_id="areas")
            files = gr.File(
                label="Downloads",
                file_count="multiple",
                interactive=False,
                visible=False,
                elem_classes="mdg-files",
                elem_id="files",
            )

    shown, choices = [result, pictures, areas, files], [opacity, left, right]
    started = go.click(
        guarded(actions.files),
        [rgb, thermal, layout, *reading, result, *choices],
        shown,
        concurrency_id="network",
        api_visibility="private",
    )

    def choose(event: gr.SelectData, *values: Any) -> Any:  # Gradio looks at the signature
        return guarded(actions.sample)(samples[event.index], *values)

    chosen = gallery.select(choose, [result, *choices], shown, concurrency_id="network", api_visibility="private")
    for event in (started, chosen):
        event.then(None, js=TO_RESULT.format(width=NARROW, element="pictures"), api_visibility="private")
    for side in (left, right):
        side.change(guarded(look), [result, *choices], pictures, show_progress="hidden", api_visibility="private")
    opacity.change(
        guarded(repaint),
        [result, *choices],
        [pictures, files],
        trigger_mode="always_last",
        show_progress="hidden",
        api_visibility="private",
    )


def _diverges(predictor: Predictor, samples: Sequence[Sample]) -> bool:
    """Whether the network measures divergence; its first pass, which takes longest, is behind it then."""
    return bool(predictor.predict([(samples[0].rgb, samples[0].thermal)], probabilities=False)[0].divergence)


def _thumbnail(sample: Sample) -> np.ndarray:
    size = round(sample.rgb.shape[1] * SAMPLE_HEIGHT / sample.rgb.shape[0]), SAMPLE_HEIGHT
    parts = [cv2.resize(part, size, interpolation=cv2.INTER_AREA) for part in (sample.rgb, vis.grey(sample.thermal))]
    return np.concatenate([parts[0], np.full((SAMPLE_HEIGHT, 4, 3), 255, np.uint8), parts[1]], axis=1)


def _of_samples(about: About) -> str:
    told = "Press a sample: generated scenes that trained no network, RGB beside thermal."
    if about.dataset != "Synthetic":
        learnt = about.dataset or "other images"
        told = (
            f"Press a sample: generated scenes, RGB beside thermal. This network learnt from {learnt}, which look "
            "otherwise: it will err here."
        )
    return html.escape(told)


def _video_tab(actions: Actions) -> None:
    result = gr.State(None, time_to_live=KEPT_S, delete_callback=clear)
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            with gr.Row():
                rgb = _drop("RGB video, or one with both", "rgb-video")
                thermal = _drop("Thermal video", "thermal-video")
            layout = _layout("video", " that began together")
            every = gr.Slider(1, 25, 1, step=1, label="Take every Nth frame")
            reading = _reading()
            with gr.Row():
                go = gr.Button("Segment", variant="primary", elem_id="segment-video", min_width=120)
                stop = gr.Button("Stop", min_width=120)
            gr.HTML(
                f"Up to {actions.frames} frames are taken. tools/infer_mm.py takes all of them.",
                elem_classes="mdg-soft",
            )
        with gr.Column(scale=3, min_width=300):
            bar = gr.HTML(elem_id="progress")
            video = gr.Video(label="Result", interactive=False, buttons=["download"], elem_id="video", loop=True)
            areas = gr.HTML(elem_id="video-areas")
            files = gr.File(
                label="Downloads", file_count="multiple", interactive=False, visible=False, elem_classes="mdg-files"
            )
    started = go.click(
        actions.video,
        [rgb, thermal, layout, every, *reading, result],
        [result, bar, video, areas, files],
        concurrency_limit=1,
        api_visibility="private",
        show_progress="hidden",
    )
    stop.click(lambda: "", None, bar, cancels=[started], api_visibility="private")
