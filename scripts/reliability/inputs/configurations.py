"""Configurations and --opts."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from reliability.inputs.kit import Bad, Kit

WHAT = "configurations and --opts"
LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10)
)
TEXTS: dict[str, str | bytes] = {
    "empty": "",
    "comment": "# nothing\n",
    "list": "- a\n- b\n",
    "word": "hello\n",
    "number": "3\n",
    "null": "null\n",
    "nul-byte": "seed: 1\0\n",
    "control-character": "name: a\x07b\n",
    "tab": "train:\n\tepochs: 1\n",
    "open-quote": "name: 'a\n",
    "open-bracket": "custom_imports: [a\n",
    "two-documents": "seed: 1\n---\nseed: 2\n",
    "duplicate": "seed: 1\nseed: 2\n",
    "list-as-key": "[a, b]: 1\n",
    "mapping-as-key": "{a: 1}: 1\n",
    "number-as-key": "1: 2\n",
    "null-as-key": "~: 2\n",
    "unknown-anchor": "name: *nobody\n",
    "anchor-in-itself": "train: &a {x: *a}\n",
    "billion-laughs": LAUGHS,
    "billion-laughs-merged": "".join(
        f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}], k{n}: 1}}\n" if n else "a0: &a0 {k: 1}\n"
        for n in range(9)
    ),
    "python-tag": "name: !!python/object/apply:os.system ['true']\n",
    "unknown-tag": "name: !mine x\n",
    "binary-tag": "name: !!binary aGVsbG8=\n",
    "broken-binary": "name: !!binary '*'\n",
    "set-tag": "train: !!set {a, b}\n",
    "omap-tag": "train: !!omap [a: 1]\n",
    "timestamp": "name: 2001-01-01\n",
    "broken-timestamp": "name: 2001-99-99\n",
    "broken-int-tag": "seed: !!int x\n",
    "broken-float-tag": "seed: !!float x\n",
    "sexagesimal": "name: 1:20:30\n",
    "deep-list": "name: " + "[" * 3000 + "]" * 3000 + "\n",
    "deep-mapping": "name: " + "{a: " * 3000 + "1" + "}" * 3000 + "\n",
    "long-key": "k" * 5000 + ": 1\n",
    "long-number": "seed: " + "9" * 6000 + "\n",
    "long-hex": "seed: 0x" + "f" * 6000 + "\n",
    "large-file": "# " + "x" * 3_000_000 + "\nseed: 1\n",
    "many-keys": "".join(f"k{n}: 1\n" for n in range(20_000)),
    "merge-key-of-a-word": "train: {<<: x}\n",
    "not-utf-8": b"name: \xff\xfe\xfa\n",
    "utf-16": "seed: 1\n".encode("utf-16"),
    "latin-1": "name: gr\xf6\xdfe\n".encode("latin-1"),
    "surrogate-escape": "name: '\\ud800'\n",
    "base-missing": "_base_: nothing.yaml\n",
    "base-itself": "_base_: bad.yaml\n",
    "base-folder": "_base_: .\n",
    "base-number": "_base_: 3\n",
    "base-list-of-numbers": "_base_: [1, 2]\n",
    "base-long": f"_base_: {'x' * 300}.yaml\n",
    "base-device": "_base_: /dev/zero\n",
    "base-nul": '_base_: "a\\0b"\n',
}
SECTIONS: dict[str, dict[str, Any]] = {
    "data-unknown-type": {"data": {"type": "Nobody"}},
    "data-absent": {"data": {"type": "MFNet", "root": "nowhere"}},
    "data-long-root": {"data": {"type": "MFNet", "root": "x" * 300}},
    "data-root-below-a-file": {"data": {"type": "MFNet", "root": "bad.yaml/x"}},
    "data-huge-image": {"data": {"type": "Synthetic", "height": 10**8, "width": 10**8}},
    "data-large-image": {"data": {"type": "Synthetic", "height": 16384, "width": 16384}},
    "data-no-images": {"data": {"type": "Synthetic", "train_images": 0}},
    "model-unknown": {"model": {"type": "Nobody"}},
    "model-number": {"model": 3},
    "loss-unknown": {"loss": [{"type": "Nobody"}]},
    "loss-number": {"loss": [3]},
    "loss-weight-nan": {"loss": [{"type": "Dice", "weight": float("nan")}]},
    "loss-class-weights-short": {"loss": [{"type": "CrossEntropy", "class_weights": [1, 2]}]},
    "optimizer-unknown": {"optimizer": {"type": "adamw2"}},
    "optimizer-option-of-another": {"optimizer": {"type": "AdamW", "lr": 1e-3, "momentum": 0.9}},
    "schedule-unknown": {"schedule": "poly2"},
    "import-absent": {"custom_imports": ["no_such_module"]},
    "import-nul": {"custom_imports": ["a\0b"]},
    "import-relative": {"custom_imports": ["..x"]},
    "import-empty": {"custom_imports": [""]},
    "import-number": {"custom_imports": [3]},
    "import-text": {"custom_imports": "reliability.tiny"},
    "name-slash": {"name": "a/b"},
    "name-dots": {"name": "../x"},
    "name-empty": {"name": ""},
    "name-long": {"name": "x" * 300},
    "name-nul": {"name": "a\0b"},
    "exp-dir-below-a-file": {"exp_dir": "bad.yaml/x"},
    "exp-dir-long": {"exp_dir": "x" * 300},
    "exp-dir-nul": {"exp_dir": "a\0b"},
    "exp-dir-proc": {"exp_dir": "/proc/x"},
    "seed-65-bits": {"seed": 2**65},
    "seed-negative": {"seed": -1},
    "threads-many": {"threads": 100_000_000},
    "workers-many": {"pipeline": {"workers": 100_000}},
    "transform-unknown": {"pipeline": {"train": [{"type": "Shear"}]}},
    "crop-huge": {"pipeline": {"train": [{"type": "RandomResizedCrop", "size": [10**6, 10**6]}]}},
    "crop-one-number": {"pipeline": {"train": [{"type": "RandomResizedCrop", "size": 32}]}},
    "eval-window-zero": {"eval": {"mode": "slide", "window": [0, 0]}},
    "eval-scales-nan": {"eval": {"scales": [float("nan")]}},
    "eval-scales-huge": {"eval": {"scales": [1e9]}},
    "device-mps": {"device": "mps"},
    "device-absent": {"device": "cuda"},
    "precision-unknown": {"train": {"precision": "fp8"}},
    "pretrained-absent": {"model": {"type": "MDG", "pretrained": {"rgb": "nothing.pth"}}},
    "pretrained-folder": {"model": {"type": "MDG", "pretrained": {"rgb": "."}}},
    "pretrained-yaml": {"model": {"type": "MDG", "pretrained": {"rgb": "bad.yaml"}}},
    "pretrained-device": {"model": {"type": "MDG", "pretrained": {"rgb": "/dev/zero"}}},
}
OPTS = {
    "nothing": [""],
    "no-equals": ["train.epochs"],
    "no-key": ["=3"],
    "dots": ["..=3"],
    "empty-part": ["train..epochs=1"],
    "unknown": ["train.epoch=1"],
    "unknown-section": ["trian.epochs=1"],
    "nul": ["name=a\0b"],
    "broken-yaml": ["data.classes=[a"],
    "braces": ["data.rgb={split}/x"],
    "colon": ["name=a: b: c"],
    "tag": ["name=!!python/name:os.system"],
    "anchor": ["name=*a"],
    "laughs": [f"custom_imports={LAUGHS}"],
    "superscript": ["pipeline.train.\u00b2=1"],
    "arabic-digit": ["pipeline.train.\u0663=1"],
    "index-out-of-range": ["pipeline.train.7={type: HorizontalFlip}"],
    "index-negative": ["pipeline.train.-1={type: HorizontalFlip}"],
    "index-huge": [f"pipeline.train.{'9' * 5000}=1"],
    "into-a-number": ["seed.x=1"],
    "into-a-word": ["device.x=1"],
    "long-value": ["name=" + "x" * 100_000],
    "long-key": ["x" * 100_000 + "=1"],
    "deep-key": [".".join("x" * 5000) + "=1"],
    "newline": ["name=a\nb"],
    "surrogate": ["name=\udcff"],
    "surrogate-key": ["\udcff=1"],
    "infinite-rate": ["optimizer.lr=.inf"],
    "rate-of-zero": ["optimizer.lr=0"],
    "negative-epochs": ["train.epochs=-1"],
    "epochs-of-a-fraction": ["train.epochs=1.5"],
    "epochs-yes": ["train.epochs=yes"],
    "batch-huge": ["train.batch_size=1000000000000"],
    "image-one": ["data.height=1"],
    "diverges": ["optimizer.lr=1e30", "train.max_skipped_steps=2"],
}
ODD = {"mapping": {"zzz": [1]}, "text": "zzz\0", "nan": float("nan"), "list": [[[]]], "huge": 2**70}


def bad_inputs(kit: Kit) -> Iterator[Bad]:
    """Texts that are no configuration, sections that cannot be, values of the wrong kind under every key."""
    for name, text in TEXTS.items():
        for tool in ("tools/train.py", "tools/check_data.py"):
            yield Bad(f"{name}-{tool[6:-3]}", partial(_text, tool, text))
    for name, changes in SECTIONS.items():
        yield Bad(name, partial(_section, changes))
    for name, opts in OPTS.items():
        yield Bad(f"opts-{name}", partial(_opts, opts))
    for path, value in _leaves(_resolved(kit), ()):
        for what, odd in ODD.items():
            if _wrong(path, value, what):
                yield Bad(f"{'.'.join(path)}-{what}", partial(_leaf, path, odd))


def _resolved(kit: Kit) -> dict[str, Any]:
    from mdg.config import load_config

    return load_config(kit.lab.config).model_dump(mode="json")


def _leaves(tree: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(tree, dict) and tree:
        for key, value in tree.items():
            yield from _leaves(value, (*path, key))
    else:
        yield path, tree


def _wrong(path: tuple[str, ...], value: Any, what: str) -> bool:
    """Whether such a value can be nothing but a mistake there."""
    if what == "list":
        return not isinstance(value, list)
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return what == "mapping" or (number and (what != "huge" or isinstance(value, int)))


def _text(tool: str, text: str | bytes, kit: Kit, folder: Path) -> tuple[str, list]:
    return tool, [kit.write(folder, text)]


def _section(changes: dict[str, Any], kit: Kit, folder: Path) -> tuple[str, list]:
    place = [] if changes.keys() & {"exp_dir", "name"} else ["--run-dir", folder / "run"]
    return "tools/train.py", [kit.config(folder, **changes), *place]


def _opts(opts: list[str], kit: Kit, folder: Path) -> tuple[str, list]:
    return "tools/train.py", [kit.config(folder), "--run-dir", folder / "run", "--opts", *opts]


def _leaf(path: tuple[str, ...], odd: Any, kit: Kit, folder: Path) -> tuple[str, list]:
    tree = copy.deepcopy(_resolved(kit))
    inside = tree
    for key in path[:-1]:
        inside = inside[key]
    inside[path[-1]] = odd
    return "tools/train.py", [kit.write(folder, tree), "--run-dir", folder / "run"]
