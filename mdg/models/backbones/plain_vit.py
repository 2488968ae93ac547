"""A plain vision transformer (Dosovitskiy et al., ICLR 2021; distilled: Touvron et al., ICML 2021) as an encoder: maps
behind four of its blocks, all at 1/16 of the input, brought to four sizes by a neck.

Legend: B batch, H W map, N = H*W tokens, C channels, G side of the grid that positions were trained on, P patch.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from mdg.errors import ConfigError
from mdg.models.backbones.layered import Layered
from mdg.models.backbones.timm_encoder import known_to_timm, timm_names, whole_network
from mdg.models.layers import init_weights, to_bhwc
from mdg.ops.resize import resize_bilinear
from mdg.options.backbones import PlainViTOptions
from mdg.registry import BACKBONES

PATCH = 16
SCALES = (4.0, 2.0, 1.0, 0.5)  # of 1/16 of the input; the first map is the finest


class Tokens(nn.Module):
    """Patches and their positions, which are interpolated to the grid at hand.

    The tokens that stand for the whole image (class, distillation) are left out: a position is added to each token by
    itself, so the patches are the same with and without them.

    Args:
        net: timm's network.
    """

    def __init__(self, net: Any):
        super().__init__()
        self.patch_embed = net.patch_embed
        self.grid = tuple(net.patch_embed.grid_size)
        self.positions = nn.Parameter(net.pos_embed.detach()[:, -self.grid[0] * self.grid[1] :].clone())

    def forward(self, image_BCHW: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Image whose sides are multiples of 16 -> tokens ``[B, N, C]`` and their grid."""
        from timm.layers import resample_abs_pos_embed

        height, width = image_BCHW.shape[-2] // PATCH, image_BCHW.shape[-1] // PATCH
        positions_1NC = resample_abs_pos_embed(
            self.positions, new_size=[height, width], old_size=list(self.grid), num_prefix_tokens=0
        )
        return self.patch_embed(image_BCHW).flatten(1, 2) + positions_1NC, (height, width)


class Neck(nn.Module):
    """One map at 1/16 to one of another size: 1x1 convolution, bilinear resize, 3x3 convolution."""

    def __init__(self, channels: int, width: int, scale: float):
        super().__init__()
        self.scale = scale
        self.reduce = nn.Conv2d(channels, width, 1)
        self.smooth = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        size = [round(self.scale * side) for side in x_BCHW.shape[-2:]]
        return self.smooth(resize_bilinear(self.reduce(x_BCHW), size))


@BACKBONES.register(PlainViTOptions)
class PlainViT(Layered):
    """A plain ViT of timm whose maps at 1/4, 1/8, 1/16 and 1/32 come from four blocks, the shallowest the finest.

    It is run at once and not stage by stage: what goes on behind a block are its tokens, not the map that the neck
    makes of them, so nothing that is exchanged between streams after a stage could reach the next one.

    Args:
        options: Which network and blocks, and the width of the maps.
        in_channels: 3 for RGB, 1 for thermal; timm adapts the stem.

    Attributes:
        name: By which timm knows its weights.
        widths: Channels of the four maps.
        statistics: Mean and standard deviation of R, G, B that its weights were trained with, as fractions.

    Raises:
        ConfigError: A name that timm does not know, a network of another kind, or fewer blocks.
    """

    stepped = False
    fresh = ("neck.",)  # names that no file of weights has

    def __init__(self, options: PlainViTOptions, *, in_channels: int):
        super().__init__()
        self.name = options.name
        net = _create(options, in_channels)
        self.taps = tuple(block - 1 for block in options.blocks)
        self.tokens = Tokens(net)
        self.blocks = nn.ModuleList(net.blocks[: options.blocks[-1]])
        self.widths = (options.width,) * len(SCALES)
        self.neck = nn.ModuleList(Neck(net.embed_dim, options.width, scale) for scale in SCALES)
        self.neck.apply(init_weights)
        config = net.pretrained_cfg
        self.statistics = tuple(config["mean"]), tuple(config["std"])

    def forward(self, image_BCHW: Tensor) -> list[Tensor]:
        """``[B, C_in, H, W]``, sides multiples of 32, -> the four maps ``[B, H_s, W_s, width]``, the finest first."""
        return [to_bhwc(neck(x)) for neck, x in zip(self.neck, self.block_maps(image_BCHW), strict=True)]

    def block_maps(self, image_BCHW: Tensor) -> list[Tensor]:
        """What the four blocks give, ``[B, C, H/16, W/16]`` each, before the neck."""
        x_BNC, grid = self.tokens(image_BCHW)
        found = []
        for place, block in enumerate(self.blocks):
            x_BNC = block(x_BNC)
            if place in self.taps:
                found.append(x_BNC.transpose(1, 2).unflatten(2, grid))
        return found

    def from_file(self, tensors: dict[str, Tensor]) -> tuple[str, dict[str, Tensor], list[str]]:
        """The tensors of a file of the whole classifier under the names of this module; the positions of class and
        distillation tokens, the blocks behind the last map and the heads have no place here.

        Returns:
            Whose names the file has, the tensors, and the names that belong to nothing of timm's network.
        """
        whole = {name: value.shape for name, value in whole_network(self.name).state_dict().items()}
        title, named = timm_names(self.name, tensors, whole)
        own, found = self.state_dict(), {}
        others = whole["pos_embed"][1] - own["tokens.positions"].shape[1]  # of class and distillation tokens
        for name, value in named.items():
            if name == "pos_embed" and value.dim() == 3:
                found["tokens.positions"] = value[:, others:]
            elif (place := f"tokens.{name}" if name.startswith("patch_embed.") else name) in own:
                found[place] = value
        stem = "tokens.patch_embed.proj.weight"
        if stem in found and found[stem].dim() == 4 and found[stem].shape[1] == 3 and own[stem].shape[1] == 1:
            found[stem] = found[stem].sum(dim=1, keepdim=True)
        return title, found, [name for name in named if name not in whole]

    def layers(self) -> list[list[str]]:
        """A layer is a block; the tokens are below the first, the neck is with the last."""
        found = [["tokens"], *([f"blocks.{place}"] for place in range(len(self.blocks)))]
        found[-1].append("neck")
        return found


def _create(options: PlainViTOptions, in_channels: int) -> Any:
    import timm  # takes a second
    from timm.models.vision_transformer import VisionTransformer

    known_to_timm(options.name)
    wanted = "a plain vision transformer with patches of 16 pixels, such as deit_base_distilled_patch16_384"
    try:
        net: Any = timm.create_model(
            options.name,
            pretrained=False,
            in_chans=in_channels,
            num_classes=0,
            dynamic_img_size=True,
            drop_path_rate=options.drop_path_rate,
        )
    except (TypeError, RuntimeError, ValueError) as error:
        raise ConfigError(f"timm's '{options.name}' is not {wanted} ({error}); take one") from None
    plain = isinstance(net, VisionTransformer) and net.pos_embed is not None
    if not plain or tuple(net.patch_embed.patch_size) != (PATCH, PATCH) or type(net.norm_pre) is not nn.Identity:
        raise ConfigError(f"timm's '{options.name}' is not {wanted}; take one")
    if options.blocks[-1] > len(net.blocks):
        raise ConfigError(
            f"blocks: got {list(options.blocks)}, and timm's '{options.name}' has {len(net.blocks)} blocks; name four "
            "of them"
        )
    return net
