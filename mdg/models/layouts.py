"""How other people name the tensors of a Mix Transformer, and the way from any of these layouts to any other.

A layout is a list of modules. What a module holds is said in *atoms*, the smallest parts that layouts put together in
different ways: one file has queries, keys and values in three tensors, another has keys below values in one, a third
has all of them in one. In a template ``{s}`` is the stage 1..4, ``{t}`` is ``s - 1``, ``{i}`` the block, ``{p}``
``weight`` or ``bias`` (behind a dot where a template does not place it).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

BLOCK = {"s": r"(?P<s>[1-4])", "t": r"(?P<t>[0-3])", "i": r"(?P<i>\d+)", "p": r"(?P<p>weight|bias)"}


class Module(NamedTuple):
    """A module of a layout: its path, the atoms that its tensors hold from top to bottom, and whether a matrix is
    stored as the kernel of a 1x1 convolution."""

    path: str
    atoms: tuple[str, ...]
    kernel: bool = False


class AtomName(NamedTuple):
    """Which atom: its kind, stage, block (None outside of blocks), and ``weight`` or ``bias``."""

    kind: str
    stage: int
    block: int | None
    part: str


Atoms = dict[AtomName, Tensor]


@dataclass(frozen=True)
class Layout:
    """A way to name the tensors of an encoder.

    Attributes:
        title: Whose it is.
        modules: Templates of the modules.
        prefix: What a file of that layout usually puts in front of every name.
    """

    title: str
    modules: tuple[Module, ...]
    prefix: str = ""

    @cached_property
    def _patterns(self) -> list[tuple[re.Pattern[str], Module]]:
        found = []
        for module in self.modules:
            path = module.path if "{p}" in module.path else module.path + ".{p}"
            pattern = re.sub(r"\\\{(\w)\\\}", lambda match: BLOCK[match[1]], re.escape(path))
            found.append((re.compile(pattern), module))
        return found

    def place(self, name: str) -> tuple[Module, re.Match[str]] | None:
        """The module of a tensor, by its name without a prefix."""
        for pattern, module in self._patterns:
            if match := pattern.fullmatch(name):
                return module, match
        return None

    def starts(self, names: Iterable[str]) -> list[str]:
        """What stands in front of the first patch embedding of this layout, once for every encoder in a file."""
        first = next(module for module in self.modules if module.atoms == ("embed",))
        path = first.path.replace("{s}", "1").replace("{t}", "0") + ".weight"
        return [name.removesuffix(path) for name in names if name == path or name.endswith("." + path)]

    def atoms(self, tensors: Mapping[str, Tensor], prefix: str) -> tuple[Atoms, list[str]]:
        """The atoms of the encoder behind a prefix, and the names behind it that the layout does not know."""
        found: Atoms = {}
        unknown = []
        for name, value in tensors.items():
            if not name.startswith(prefix):
                continue
            placed = self.place(name[len(prefix) :])
            if placed is None:
                unknown.append(name)
                continue
            module, match = placed
            groups = match.groupdict()
            stage = int(groups["s"]) if "s" in groups else int(groups["t"]) + 1
            block = int(groups["i"]) if "i" in groups else None
            if module.kernel and value.dim() == 4 and value.shape[2:] == (1, 1):
                value = value[:, :, 0, 0]
            for kind, part in zip(module.atoms, value.chunk(len(module.atoms)), strict=False):
                found[AtomName(kind, stage, block, groups["p"])] = part
        return found, unknown

    def tensors(self, atoms: Mapping[AtomName, Tensor], prefix: str | None = None) -> dict[str, Tensor]:
        """The inverse of :meth:`atoms`: names as in this layout, modules whose atoms are all there."""
        prefix = self.prefix if prefix is None else prefix
        places = dict.fromkeys((name.stage, name.block, name.part) for name in atoms)
        found = {}
        for stage, block, part in places:
            for module in self.modules:
                parts = [atoms.get(AtomName(kind, stage, block, part)) for kind in module.atoms]
                held = [value for value in parts if value is not None]
                if len(held) < len(parts):
                    continue
                value = torch.cat(held) if len(held) > 1 else held[0]
                if module.kernel and value.dim() == 2:
                    value = value[:, :, None, None]
                path = module.path if "{p}" in module.path else module.path + ".{p}"
                found[prefix + path.format(s=stage, t=stage - 1, i=block, p=part)] = value
        return found


def _modules(kernels: Iterable[str] = (), **paths: str) -> tuple[Module, ...]:
    """Modules by the atoms they hold, joined by ``_and_``."""
    return tuple(Module(path, tuple(atoms.split("_and_")), atoms in kernels) for atoms, path in paths.items())


PUBLIC = Layout(
    "SegFormer's authors",
    _modules(
        embed="patch_embed{s}.proj",
        embed_norm="patch_embed{s}.norm",
        norm1="block{s}.{i}.norm1",
        q="block{s}.{i}.attn.q",
        k_and_v="block{s}.{i}.attn.kv",
        out="block{s}.{i}.attn.proj",
        sr="block{s}.{i}.attn.sr",
        sr_norm="block{s}.{i}.attn.norm",
        norm2="block{s}.{i}.norm2",
        fc1="block{s}.{i}.mlp.fc1",
        depthwise="block{s}.{i}.mlp.dwconv.dwconv",
        fc2="block{s}.{i}.mlp.fc2",
        norm="norm{s}",
    ),
)
HUGGING_FACE = Layout(
    "Hugging Face transformers",
    _modules(
        embed="patch_embeddings.{t}.proj",
        embed_norm="patch_embeddings.{t}.layer_norm",
        norm1="block.{t}.{i}.layer_norm_1",
        q="block.{t}.{i}.attention.self.query",
        k="block.{t}.{i}.attention.self.key",
        v="block.{t}.{i}.attention.self.value",
        out="block.{t}.{i}.attention.output.dense",
        sr="block.{t}.{i}.attention.self.sr",
        sr_norm="block.{t}.{i}.attention.self.layer_norm",
        norm2="block.{t}.{i}.layer_norm_2",
        fc1="block.{t}.{i}.mlp.dense1",
        depthwise="block.{t}.{i}.mlp.dwconv.dwconv",
        fc2="block.{t}.{i}.mlp.dense2",
        norm="layer_norm.{t}",
    ),
    prefix="segformer.encoder.",
)
# The names of its modules since version 5; its files keep the names above.
HUGGING_FACE_5 = Layout(
    "Hugging Face transformers 5",
    _modules(
        embed="stages.{t}.patch_embeddings.proj",
        embed_norm="stages.{t}.patch_embeddings.layer_norm",
        norm1="stages.{t}.blocks.{i}.layernorm_before",
        q="stages.{t}.blocks.{i}.attention.q_proj",
        k="stages.{t}.blocks.{i}.attention.k_proj",
        v="stages.{t}.blocks.{i}.attention.v_proj",
        out="stages.{t}.blocks.{i}.attention.o_proj",
        sr="stages.{t}.blocks.{i}.attention.sequence_reduction.sequence_reduction",
        sr_norm="stages.{t}.blocks.{i}.attention.sequence_reduction.layer_norm",
        norm2="stages.{t}.blocks.{i}.layernorm_after",
        fc1="stages.{t}.blocks.{i}.mlp.fc1",
        depthwise="stages.{t}.blocks.{i}.mlp.dwconv.dwconv",
        fc2="stages.{t}.blocks.{i}.mlp.fc2",
        norm="stages.{t}.layer_norm",
    ),
    prefix="segformer.",
)
OPEN_MMLAB = Layout(
    "OpenMMLab",
    _modules(
        kernels=("fc1", "fc2"),
        embed="layers.{t}.0.projection",
        embed_norm="layers.{t}.0.norm",
        norm1="layers.{t}.1.{i}.norm1",
        q_and_k_and_v="layers.{t}.1.{i}.attn.attn.in_proj_{p}",
        out="layers.{t}.1.{i}.attn.attn.out_proj",
        sr="layers.{t}.1.{i}.attn.sr",
        sr_norm="layers.{t}.1.{i}.attn.norm",
        norm2="layers.{t}.1.{i}.norm2",
        fc1="layers.{t}.1.{i}.ffn.layers.0",
        depthwise="layers.{t}.1.{i}.ffn.layers.1",
        fc2="layers.{t}.1.{i}.ffn.layers.4",
        norm="layers.{t}.2",
    ),
    prefix="backbone.",
)
SMP = Layout("segmentation_models.pytorch", PUBLIC.modules, prefix="encoder.")
# By what a user calls them. That of segmentation_models.pytorch is the public one behind a prefix.
LAYOUTS = {
    "public": PUBLIC,
    "huggingface": HUGGING_FACE,
    "huggingface5": HUGGING_FACE_5,
    "openmmlab": OPEN_MMLAB,
    "smp": SMP,
}


class Found(NamedTuple):
    """An encoder in a file: its layout, and what stands in front of its names."""

    layout: Layout
    prefix: str


def find_encoders(names: Iterable[str]) -> list[Found]:
    """Every Mix Transformer in a file of weights, by the names of its tensors."""
    names = list(names)
    distinct = (PUBLIC, HUGGING_FACE, HUGGING_FACE_5, OPEN_MMLAB)
    return [Found(layout, prefix) for layout in distinct for prefix in layout.starts(names)]
