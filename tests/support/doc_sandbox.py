"""A folder like a fresh clone, with small stand-ins for what a reader of README and docs would have: data sets as
downloaded, pictures, videos, a trained run."""

from __future__ import annotations

import os
import shutil
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
import torch
from commands import REPOSITORY, shell
from doc_blocks import SHORT_RUN, SMALL_FRAMES, SMALL_NETWORK
from layouts import raw_counts, write_fmb, write_image, write_mfnet_packed, write_pst900

from mdg.data.annotations.write import Drawing, write_labelme
from mdg.data.datasets.mfnet import CLASSES
from mdg.data.synthetic import render_scene
from mdg.models.backbones.mit import MixTransformer
from mdg.options.models import MixTransformerOptions

RUN = "20260101-000000"
SIZE = (96, 128)
POINTS = [(5, 5), (120, 6), (60, 45), (10, 90), (118, 88), (30, 30), (90, 70), (64, 20), (20, 60), (100, 40)]


def build(folder: Path) -> Path:
    """Makes ``folder/mdg`` and gives it back; a run of two steps is trained in it."""
    clone = folder / "mdg"
    clone.mkdir(parents=True)
    for name in ("mdg", "tools", "scripts", "tests", "setup.py", "Makefile", "pyproject.toml"):
        (clone / name).symlink_to(REPOSITORY / name)
    for name in ("configs", "docs"):
        shutil.copytree(REPOSITORY / name, clone / name)
    (clone / ".venv").symlink_to(sys.prefix)
    (clone / "pretrained").mkdir()
    _write_data(folder, clone)
    _write_pictures(clone)
    _write_rig_pairs(clone)
    _write_drawings(clone)
    _write_weights(clone)
    _train(clone)
    return clone


def run(clone: Path, script: str, timeout: float = 1500) -> tuple[int, str]:
    """Runs a shell script in the clone; gives its exit code and what it printed."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = shell(
        "bash",
        "-c",
        f"cd {clone}\n{script}",
        timeout=timeout,
        PATH=path,
        HOME=str(clone.parent / "home"),
        MPLBACKEND="Agg",
    )
    return done.returncode, done.stdout + done.stderr


def _write_data(folder: Path, clone: Path) -> None:
    downloads = folder / "home" / "Downloads"
    downloads.mkdir(parents=True)
    mfnet = write_mfnet_packed(folder / "downloaded" / "ir_seg_dataset", size=SIZE)
    shutil.copyfile(mfnet / "test.txt", mfnet / "test_night.txt")
    for name, root in {
        "ir_seg_dataset": mfnet,
        "PST900_RGBT_Dataset": write_pst900(folder / "downloaded" / "PST900_RGBT_Dataset"),
        "FMB": write_fmb(folder / "downloaded" / "FMB"),
    }.items():
        with zipfile.ZipFile(downloads / f"{name}.zip", "w") as archive:
            for file in sorted(p for p in root.rglob("*") if p.is_file()):
                archive.write(file, file.relative_to(root.parent))
    mini = folder / "shared" / "data" / "mfnet_mini"
    shutil.copytree(mfnet, mini)
    shutil.copytree(mfnet, clone / "data" / "MFNet")
    for number in range(12):
        split = "train" if number < 8 else "test"
        scene = render_scene(0, number, *SIZE)
        write_image(clone / f"data/courtyard/{split}/rgb/{number:04}.jpg", scene.rgb.repeat(2, 0).repeat(2, 1))
        write_image(clone / f"data/courtyard/{split}/thermal/{number:04}.tiff", raw_counts(scene.thermal))
        write_image(clone / f"data/courtyard/{split}/labels/{number:04}.png", scene.label % 5)


def _write_pictures(clone: Path) -> None:
    frames = [render_scene(0, number, *SIZE) for number in range(4)]
    write_image(clone / "photo.png", frames[0].rgb)
    write_image(clone / "heat.png", frames[0].thermal)
    (clone / "four_channel_pngs").mkdir()
    writers = {
        name: cv2.VideoWriter(str(clone / name), cv2.VideoWriter_fourcc(*"mp4v"), 5, SIZE[::-1])
        for name in ("visible.mp4", "infrared.mp4")
    }
    for number, scene in enumerate(frames):
        bgr_HW3 = np.ascontiguousarray(scene.rgb[..., ::-1])
        cv2.imwrite(str(clone / "four_channel_pngs" / f"{number}.png"), np.dstack([bgr_HW3, scene.thermal]))
        write_image(clone / "all" / f"{number}_rgb.png", scene.rgb)
        write_image(clone / "all" / f"{number}_ir.png", scene.thermal)
        writers["visible.mp4"].write(bgr_HW3)
        writers["infrared.mp4"].write(cv2.cvtColor(scene.thermal, cv2.COLOR_GRAY2BGR))
        write_image(clone / "guessed" / f"{number}_mask.png", scene.label)
    for writer in writers.values():
        writer.release()


def _write_rig_pairs(clone: Path) -> None:
    for number in range(8):
        scene = render_scene(1, 2 * number, 240, 320)  # by day
        write_image(clone / "rgb" / f"{number}.png", scene.rgb)
        write_image(clone / "thermal" / f"{number}.png", scene.thermal)
    rows = [f"0.png,{2.5 * x + 3},{2.5 * y - 2},{2.5 * x},{2.5 * y}\n" for x, y in POINTS]
    (clone / "points.csv").write_text("pair,x_rgb,y_rgb,x_thermal,y_thermal\n" + "".join(rows), encoding="utf-8")


def _write_drawings(clone: Path) -> None:
    drawing = Drawing(list(CLASSES), tolerance=1.0, min_pixels=5)
    (clone / "drawn").mkdir()
    for number in range(12):
        scene = render_scene(0, number, *SIZE)
        for place in ("street", "courtyard"):
            write_image(clone / f"data/{place}/rgb/{number:04}.png", scene.rgb)
            write_image(clone / f"data/{place}/thermal/{number:04}.png", scene.thermal)
        write_labelme(clone / f"drawn/{number:04}.json", scene.label, f"../data/street/rgb/{number:04}.png", drawing)


def _train(clone: Path) -> None:
    """``exp/mdg_b2/RUN``, the newest, and ``exp/mdg_b4/RUN``, both scored; the weights of the former as ``best.pt``."""
    opts = " ".join(f"'{word}'" for word in (*SHORT_RUN, *SMALL_FRAMES, *SMALL_NETWORK))
    commands = [
        f"python tools/train.py configs/mfnet/mdg_b2.yaml --run-dir exp/{name}/{RUN} --opts {opts} seed={seed}\n"
        f"python tools/val_mm.py --checkpoint exp/{name}/{RUN}/checkpoints/best.pt\n"
        for seed, name in enumerate(("mdg_b4", "mdg_b2"))
    ]
    code, said = run(clone, "set -e\n" + "".join(commands))
    assert code == 0, said
    trained = clone / "exp" / "mdg_b2" / RUN
    (clone / "exp" / "mdg_b2" / "run").mkdir()
    for place in ("best.pt", "exp/mdg_b2/run/best.pt"):
        shutil.copyfile(trained / "checkpoints" / "best.pt", clone / place)


def _write_weights(clone: Path) -> None:
    """An encoder in the layout of NVlabs and in that of Hugging Face, of random numbers."""
    torch.save(MixTransformer(MixTransformerOptions(variant="b0"), in_channels=3).state_dict(), clone / "mit.pth")
    code, said = run(
        clone, "mkdir segformer\npython scripts/convert_weights.py mit.pth segformer/model.safetensors --to huggingface"
    )
    assert code == 0, said
