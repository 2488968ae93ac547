"""Encoders of timm as a stream: cut at the four maps at 1/4, 1/8, 1/16 and 1/32 of the input, so that what the streams
exchange after a stage is what the next stage sees.

Legend: B batch, H W map, C channels.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mdg.errors import ConfigError
from mdg.models.backbones.layered import Layered
from mdg.models.backbones.mit import STAGES
from mdg.models.backbones.tiny_vit import attend_globally
from mdg.models.layers import to_bchw, to_bhwc
from mdg.options.backbones import TimmOptions
from mdg.registry import BACKBONES

REDUCTIONS = (4, 8, 16, 32)
FAMILIES = (
    "ResNet and its kin, RegNet, ConvNeXt, ConvNeXt V2, Swin, EfficientNet, EfficientNet-Lite, MobileNetV3 and V4, "
    "PVT v2, RepViT, EfficientViT, PoolFormer, FastViT, TinyViT"
)
PREFIXES = ("", "module.", "model.", "backbone.", "encoder.", "module.model.", "module.backbone.")
# What lets a network take images of any size; few take any of these.
ANY_SIZE: tuple[dict[str, Any], ...] = (
    {"strict_img_size": False, "dynamic_img_size": True},
    {"strict_img_size": False},
    {},
)


@BACKBONES.register(TimmOptions, name="Timm")
class TimmEncoder(Layered):
    """A network of timm without its head, with stochastic depth and weights as timm has them.

    Args:
        options: Its name.
        in_channels: 3 for RGB, 1 for thermal; timm adapts the stem.

    Attributes:
        widths: Channels of the four maps.
        statistics: Mean and standard deviation of R, G, B that its weights were trained with, as fractions.

    Raises:
        ConfigError: A name that timm does not know, or a network that cannot be stepped from map to map.
    """

    def __init__(self, options: TimmOptions, *, in_channels: int):
        super().__init__()
        net = create(options, in_channels)
        pad_by_numbers(net)
        self.name, self.global_last_block = options.name, options.global_last_block
        modules, taps = steps_of(net, options.name)
        if self.global_last_block:
            attend_globally(modules[-1][1], options.name)
        self.body = nn.ModuleList(module for _, module in modules)
        self.paths = [path for path, _ in modules]  # in timm's own network, by which weights are found
        self.ends = [self.paths.index(tap) + 1 for tap in taps]
        widths = dict(zip(_paths(net), net.feature_info.channels(), strict=True))
        self.widths = tuple(widths[tap] for tap in taps)
        self.channels_last = _format(net) == "NHWC"
        config = getattr(net, "pretrained_cfg", None) or {}
        mean, std = config.get("mean", (0.485, 0.456, 0.406)), config.get("std", (0.229, 0.224, 0.225))
        self.statistics = tuple(mean), tuple(std)

    def forward_stage(self, stage: int, x_BHWC: Tensor) -> Tensor:
        """One stage: ``[B, H, W, C_in] -> [B, H', W', C_s]``, with H' = H/4 for stage 1 and H/2 for stages 2 to 4."""
        begin, end = (0, *self.ends)[stage - 1], self.ends[stage - 1]
        # Networks that work channels-last take the image as the others do.
        x = x_BHWC if self.channels_last and begin > 0 else to_bchw(x_BHWC)
        for place in range(begin, end):
            x = self.body[place](x)
        return x if self.channels_last else to_bhwc(x)

    def from_file(self, tensors: dict[str, Tensor]) -> tuple[str, dict[str, Tensor], list[str]]:
        """The tensors of a file under the names of this module.

        Known are the names of timm, with or without what training scripts put in front of them, those of the original
        repositories that timm converts, and any others in timm's order with timm's shapes.

        Returns:
            Whose names the file has, the tensors, and the names that belong to nothing of timm's network.
        """
        whole = {name: value.shape for name, value in whole_network(self.name).state_dict().items()}
        title, named = timm_names(self.name, tensors, whole)
        own = {f"{path}.": f"body.{place}." for place, path in enumerate(self.paths)}
        stem = next(name for name, value in self.state_dict().items() if value.dim() == 4)
        found: dict[str, Tensor] = {}
        for name, value in named.items():
            path = next((path for path in own if name.startswith(path)), None)
            if path is not None and not self._left_out(name):
                found[own[path] + name[len(path) :]] = value
        if stem in found and found[stem].shape[1] == 3 and self.state_dict()[stem].shape[1] == 1:
            found[stem] = found[stem].sum(dim=1, keepdim=True)
        return title, found, [name for name in named if name not in whole]

    def _left_out(self, name: str) -> bool:
        """Whether a tensor is the bias of windows that a block does not have any more."""
        if not self.global_last_block or not name.startswith(f"{self.paths[-1]}."):
            return False
        stage: Any = self.body[-1]
        return name.endswith(f".{len(stage.blocks) - 1}.attn.attention_biases")

    def layers(self) -> list[list[str]]:
        """A layer is a block where a part is a sequence of blocks, else a part."""
        found: list[list[str]] = []
        for place, module in enumerate(self.body):
            if isinstance(module, nn.Sequential) and len(module) > 1:
                found += [[f"body.{place}.{name}"] for name, _ in module.named_children()]
            else:
                found.append([f"body.{place}"])
        return found


def whole_network(name: str) -> nn.Module:
    """timm's network with its head, without memory for its weights."""
    import timm

    with torch.device("meta"):
        return timm.create_model(name, pretrained=False)


def timm_names(name: str, tensors: dict[str, Tensor], whole: dict[str, torch.Size]) -> tuple[str, dict[str, Tensor]]:
    """Whose names a file has, and its tensors under timm's, as far as they can be told.

    Args:
        name: The network.
        tensors: Of the file.
        whole: Shapes of the tensors of timm's network with its head.
    """
    for prefix in PREFIXES:
        plain = {key.removeprefix(prefix): value for key, value in tensors.items()}
        if sum(key in whole for key in plain) > len(whole) // 2:
            return "timm", plain
    given = {key: value for key, value in tensors.items() if not key.endswith("num_batches_tracked")}
    order = {key: shape for key, shape in whole.items() if not key.endswith("num_batches_tracked")}
    if [value.shape for value in given.values()] == list(order.values()):
        return "another library, in the order of timm", dict(zip(order, given.values(), strict=True))
    import timm.models

    convert = getattr(sys.modules[timm.models.model_entrypoint(name).__module__], "checkpoint_filter_fn", None)
    if convert is not None:
        try:
            return "the original repository", dict(convert(dict(tensors), whole_network(name)))
        except (KeyError, AttributeError, RuntimeError, ValueError, NotImplementedError):  # of a file it does not know
            pass
    return "nobody known", dict(tensors)


def known_to_timm(name: str) -> None:
    """Raises ConfigError where timm has no network of that name."""
    import timm

    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.4)
        raise ConfigError(
            f"timm {timm.__version__} has no network '{name}'" + (f"; near: {', '.join(near)}" if near else "")
        )


def create(options: TimmOptions, in_channels: int) -> Any:
    """timm's network of features.

    Raises:
        ConfigError: timm does not know the name.
    """
    import timm  # takes a second

    known_to_timm(options.name)
    plain: dict[str, Any] = {"features_only": True, "in_chans": in_channels, "pretrained": False}
    if options.drop_path_rate:
        plain["drop_path_rate"] = options.drop_path_rate
    reason: Exception | None = None
    for any_size in ANY_SIZE:
        try:
            return timm.create_model(options.name, **plain, **any_size)
        except TypeError as error:  # an argument that this network does not have
            reason = error
        except (RuntimeError, AttributeError, AssertionError, ValueError) as error:
            reason = error
            break
    raise ConfigError(f"timm's '{options.name}' cannot be built as an encoder ({reason}); take one of {FAMILIES}")


class PaddedConv2d(nn.Conv2d):
    """The convolution ``conv``, of its very parameters, behind fixed rows and columns of zeros.

    Args:
        conv: A convolution with the padding of TensorFlow ("same"): the map has ``ceil(side / stride)`` cells a side,
            and the odd row or column of zeros lies below or on the right. That makes the numbers depend on the size of
            the image, unless its sides are multiples of the stride.
    """

    def __init__(self, conv: nn.Conv2d):
        from timm.layers.padding import pad_same_arg

        sizes: dict[str, Any] = {name: getattr(conv, name) for name in ("kernel_size", "stride", "dilation", "groups")}
        super().__init__(conv.in_channels, conv.out_channels, **sizes, bias=conv.bias is not None, device="meta")
        self.weight, self.bias = conv.weight, conv.bias
        stride = list(conv.stride)
        # Left, right, top, bottom: those of an image of one step, as of every whole number of steps.
        self.around = pad_same_arg(stride, list(conv.kernel_size), stride, list(conv.dilation))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """``[B, C, H, W]``, both sides multiples of the stride, to ``[B, C_out, H / stride, W / stride]``."""
        return super().forward(F.pad(x_BCHW, self.around))


def pad_by_numbers(net: nn.Module) -> None:
    """Convolutions that ask for the size of the image to know their padding know it beforehand: here the sides are
    multiples of 32. A graph of open size holds a chain of roundings otherwise, which takes PyTorch ten minutes and more
    to see through."""
    from timm.layers import Conv2dSame

    for path, module in list(net.named_modules()):
        if isinstance(module, Conv2dSame):
            net.set_submodule(path, PaddedConv2d(module))


def steps_of(net: Any, name: str) -> tuple[list[tuple[str, nn.Module]], list[str]]:
    """The modules that the image goes through one after the other, by their paths, and the paths behind which the four
    maps are taken.

    Raises:
        ConfigError: The network cannot be cut like this.
    """
    modules = list(_sequence(net))
    if not modules:
        raise ConfigError(
            f"timm's '{name}' cannot be stepped from map to map (its features are collected inside of one pass, "
            f"{type(net).__name__}); take one of {FAMILIES}"
        )
    reductions = net.feature_info.reduction()
    taps = [path for path, reduction in zip(_paths(net), reductions, strict=True) if reduction in REDUCTIONS]
    if tuple(reduction for reduction in reductions if reduction in REDUCTIONS) != REDUCTIONS:
        raise ConfigError(
            f"timm's '{name}' gives maps at 1/{', 1/'.join(map(str, reductions))} of the input; an "
            f"encoder gives them at 1/4, 1/8, 1/16 and 1/32: take one of {FAMILIES}"
        )
    assert len(taps) == len(STAGES)
    known = [path for path, _ in modules]
    missing = [tap for tap in taps if tap not in known]
    if missing:
        raise ConfigError(
            f"timm's '{name}' cannot be stepped: {missing[0]} is not one of its parts; take one of {FAMILIES}"
        )
    last = known.index(taps[-1])
    return modules[: last + 1], taps


def _paths(net: Any) -> list[str]:
    """Paths behind which maps are taken."""
    return [str(path) for path in net.feature_info.module_name()]


def _format(net: Any) -> str:
    kind = getattr(net, "output_fmt", None)
    return "NCHW" if kind is None else str(getattr(kind, "value", kind))


def _sequence(net: Any) -> Iterator[tuple[str, nn.Module]]:
    """Modules in their order; none where timm does not tell it."""
    if isinstance(net, nn.ModuleDict):  # timm's FeatureListNet
        for key, module in net.items():
            yield _original(net, key), module
    elif hasattr(net, "conv_stem") and hasattr(net, "blocks"):  # EfficientNet and MobileNet
        yield "conv_stem", net.conv_stem
        yield "bn1", net.bn1
        if hasattr(net, "act1"):
            yield "act1", net.act1
        for place, block in enumerate(net.blocks):
            yield f"blocks.{place}", block


def _original(net: Any, key: str) -> str:
    """The path of a part in the whole network: ``stages_0`` is ``stages.0`` there."""
    by_key = {path.replace(".", "_"): path for path in _paths(net)}
    if key in by_key:
        return by_key[key]
    head, _, tail = key.rpartition("_")
    return f"{head}.{tail}" if head and tail.isdigit() else key
