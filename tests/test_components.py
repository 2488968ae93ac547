"""Every registered component: the registry and the constructor give the same part, and every option is read."""

from __future__ import annotations

import importlib
import inspect
import sys
import typing
from pathlib import Path

import numpy as np
import pytest
import torch
from layouts import (
    custom_options,
    write_cityscapes,
    write_custom,
    write_fmb,
    write_mfnet_folders,
    write_pst900,
    write_shards,
)
from torch import nn

from mdg import registry
from mdg.config import load_config
from mdg.data import RGBTDataset
from mdg.registry import ComponentOptions, ComponentRegistry

REGISTRIES = [value for value in vars(registry).values() if isinstance(value, ComponentRegistry)]
COMPONENTS = [(entry, name) for entry in REGISTRIES for name in entry.names() if name != "TinySegmentor"]
every_component = pytest.mark.parametrize(
    ("entry", "name"), COMPONENTS, ids=[f"{entry.name}-{name}" for entry, name in COMPONENTS]
)
SIZE = {"size": (32, 48)}
OPTIONS = {
    "Resize": SIZE,
    "RandomResizedCrop": SIZE,
    "MDG": {"rgb_backbone": "b0", "thermal_backbone": "b0"},
    "Timm": {"name": "resnet18"},
    "PlainViT": {"name": "vit_tiny_patch16_224", "width": 8},
}
SMALL = (32, 64, 160, 256)
DEMO = load_config("configs/demo.yaml")
CONTEXT = {
    registry.MODELS: lambda: {"num_classes": 3},
    registry.BACKBONES: lambda: {"in_channels": 1},
    registry.INTERACTIONS: lambda: {"stage": 2, "width": 64},
    registry.FUSIONS: lambda: {"stage": 2, "width": 8},
    registry.DECODERS: lambda: {"widths": SMALL, "num_classes": 3},
    registry.LOSSES: lambda: {"num_classes": 3, "ignore_index": 255},
    registry.OPTIMIZERS: lambda: {"model": nn.Linear(2, 3)},
    registry.SCHEDULES: lambda: {"steps_per_epoch": 5, "epochs": 20},
    registry.TRANSFORMS: dict,
    registry.DATASETS: lambda: {"role": "train"},
    registry.METHODS: lambda: {"config": DEMO, "num_classes": 9},
}
WRITTEN = {
    "MFNet": write_mfnet_folders,
    "PST900": write_pst900,
    "FMB": write_fmb,
    "Cityscapes": write_cityscapes,
    "Shards": write_shards,
}
ELSEWHERE = {
    **dict.fromkeys(
        ["MDG", "SingleStream", "LateFusion"], {"pretrained"}
    ),  # mdg.models.build_model reads files; a constructor opens none
    "Folder": {"label_map", "ignore_ids"},  # of labels that are ids; here they are colours
}


def plain_options(cls: type) -> type[registry.Options]:
    """The class of options that a constructor names."""
    return typing.get_type_hints(cls.__init__)["options"]


def small_options(name: str, folder: Path) -> dict:
    if name in WRITTEN:
        return {"root": WRITTEN[name](folder)}
    if name == "Folder":
        return custom_options(write_custom(folder))
    return OPTIONS.get(name, {})


def make(build, context, cls):
    """A part, with what its constructor names of the context."""
    torch.manual_seed(0)
    named = inspect.signature(cls.__init__).parameters
    return build(**{name: value for name, value in context().items() if name in named})


def assert_same_part(one: object, two: object) -> None:
    assert type(one) is type(two)
    if isinstance(one, RGBTDataset):
        assert one.facts() == two.facts() and one.names == two.names and len(one) > 0
        for array, other in zip(vars(one[0]).values(), vars(two[0]).values(), strict=True):
            assert np.array_equal(array, other)
    elif isinstance(one, nn.Module):
        state, other = one.state_dict(), two.state_dict()
        assert repr(one) == repr(two) and state.keys() == other.keys()
        assert all(torch.equal(state[key], other[key]) for key in state)
    elif isinstance(one, torch.optim.Optimizer):
        assert one.state_dict() == two.state_dict()
    else:
        assert vars(one) == vars(two)


@every_component
def test_the_registry_and_the_constructor_give_the_same_part(entry, name, tmp_path):
    cls, values = entry.get(name), small_options(name, tmp_path)
    values = {key: value for key, value in values.items() if key != "type"}
    built = make(lambda **given: entry.create({"type": name, **values}, **given), CONTEXT[entry], entry.get(name))
    direct = make(lambda **given: cls(plain_options(cls)(**values), **given), CONTEXT[entry], entry.get(name))
    assert_same_part(built, direct)


@every_component
def test_a_constructor_takes_its_options_and_states_no_default_of_them(entry, name):
    cls = entry.get(name)
    own, first, *context = inspect.signature(cls.__init__).parameters.values()
    assert first.name == "options" and first.default is first.empty
    assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in context)
    assert not {parameter.name for parameter in context} & set(plain_options(cls).model_fields) - {"type"}


@every_component
def test_every_option_is_read_by_the_constructor(entry, name, tmp_path):
    options = entry.parse({"type": name, **small_options(name, tmp_path)})
    read: set[str] = set()

    class Watched(type(options)):
        def __getattribute__(self, key: str):
            read.add(key)
            return super().__getattribute__(key)

    watched = Watched.model_construct(**dict(options))
    assert isinstance(watched, ComponentOptions)
    read.clear()
    make(lambda **given: entry.get(name)(watched, **given), CONTEXT[entry], entry.get(name))
    unread = set(type(options).model_fields) - {"type"} - read - ELSEWHERE.get(name, set())
    assert not unread


def test_a_file_that_its_package_does_not_name_is_found(tmp_path, monkeypatch):
    """So that a new part needs no line in an ``__init__``."""
    (tmp_path / "toy_options.py").write_text("from toy import TOYS, Options\nTOYS.declare(Ball=Options)\n")
    (tmp_path / "toy.py").write_text(
        "from mdg.registry import ComponentRegistry, Options\nTOYS = ComponentRegistry('toy', 'toy_options', 'toys')\n"
    )
    (tmp_path / "toys").mkdir()
    (tmp_path / "toys" / "__init__.py").write_text("")
    (tmp_path / "toys" / "ball.py").write_text(
        "from toy import TOYS\n@TOYS.register()\nclass Ball:\n    def __init__(self, options):\n"
        "        self.type = options.type\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    try:
        toys = importlib.import_module("toy").TOYS
        assert toys.names() == ["Ball"] and "toys.ball" not in sys.modules
        assert toys.create("Ball").type == "Ball"
    finally:
        for name in ("toy", "toy_options", "toys", "toys.ball"):
            sys.modules.pop(name, None)
