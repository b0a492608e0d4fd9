"""A timm model as an encoder: one call gives the pooled feature, the patches, the prefix tokens and their grid."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from timm.layers import Attention, PatchEmbed
from timm.layers.attention import AttentionRope
from timm.models import VisionTransformer, group_parameters
from timm.models.eva import Eva, EvaAttention
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..errors import SpecError
from .layout import Layout, find_layout, find_stride
from .positions import dino_positions, sincos_positions

VIT_EXAMPLE = "for example --arch vit_small_patch16_224"
Stem = Literal["imagenet", "small"]

SHORT = 256  # patches; of so few, the N x N matrices of attention are small beside the other activations
PLAIN_ATTENTION = (Attention, EvaAttention, AttentionRope)  # softmax(q k) v, with or without rotary positions


class Features(NamedTuple):
    """What one pass of a backbone gives, for B images.

    ``pooled`` (B, D) is the encoder's feature. ``patches`` (B, N, D') are the features at each place of the image, row
    by row: a ViT's patch tokens after the final norm, any other net's last feature map. ``prefix`` (B, R, D') are the
    tokens before them ([CLS], then registers). ``grid`` is (rows, columns) of the whole image, also where only some
    patches were computed. ``blocks`` are all tokens (B, R + N, D') after each of the last blocks asked for, each
    through the final norm.
    """

    pooled: Tensor
    patches: Tensor
    prefix: Tensor
    grid: tuple[int, int]
    blocks: tuple[Tensor, ...] = ()

    @property
    def map(self) -> Tensor:
        """The patches where they lie in the image: (B, D', rows, columns). SpecError for a net without any."""
        if self.grid == (0, 0):
            raise SpecError("this backbone has no map of features", "take a ViT, ResNet or ConvNeXt")
        return self.patches.transpose(1, 2).reshape(*self.patches.shape[::2], *self.grid)


class Backbone(nn.Module):
    """An encoder without classifier; calling it is the only way to run the network.

    A ViT's pooled feature is its [CLS] token after the final norm (the mean of its patches where it has none), any
    other net's its pooled map. ``net`` is the plain timm model, so state names are ``net.<timm name>``; it is private
    to this package. ``patch`` is 0 for a net that does not cut its images into patches, and ``image_size``
    only informative for one that is not a ViT.
    """

    net: Any  # the timm model, an nn.Module
    mask_token: nn.Parameter | None  # (1, D)
    grad_checkpointing = False  # recompute a ViT's blocks in the backward pass instead of keeping their activations

    def __init__(self, net: nn.Module, image_size: int, stem: Stem = "imagenet", position: str = "timm") -> None:
        super().__init__()
        self.net = net
        self.is_vit = isinstance(net, VisionTransformer | Eva) and type(net.patch_embed) is PatchEmbed
        self.stem = stem
        self.position = position
        self.image_size = image_size
        self.layout = self._layout_of_vit() if self.is_vit else find_layout(net, image_size)
        self.dim, self.patch = self.layout.dim, self.layout.patch
        self.register_parameter("mask_token", None)

    def forward(self, x: Tensor, mask: Tensor | None = None, keep: Tensor | None = None, blocks: int = 0) -> Features:
        """Return the features of images ``x`` (B, 3, H, W).

        ``mask`` (B, N), bool: these patches are replaced by the mask token before positions are added (iBOT, DINOv2,
        SimMIM). ``keep`` (B, M), int64: only these patches enter the blocks, with their positions (MAE, I-JEPA), and
        ``patches`` is (B, M, D). ``blocks``: also return the tokens after so many of the last blocks.
        Raises SpecError for sizes that are not multiples of the patch size, and where a net that is not a ViT is asked
        for what only a ViT can do.
        """
        self.check_size(*x.shape[-2:])
        if self.is_vit:
            return self._vit(x, mask, keep, blocks)
        if mask is not None or keep is not None or blocks:
            what = "the tokens of single blocks" if blocks else "masked or dropped patches"
            raise SpecError(f"{what} need a ViT, this is a {self.family}", VIT_EXAMPLE)
        out = self.net.forward_features(x)
        pooled = self.net.forward_head(out)
        return Features(pooled, *self.layout.split(out, pooled, x))

    def _vit(self, x: Tensor, mask: Tensor | None, keep: Tensor | None, blocks: int) -> Features:
        net = self.net
        self._choose_attention(x)
        t = net.patch_embed(x)  # (B, h, w, D)
        grid = (t.shape[1], t.shape[2])
        if mask is not None:
            if self.mask_token is None:
                raise SpecError("a mask without a mask token", "call add_mask_token() where the method is built")
            t = torch.where(mask.view(*t.shape[:3], 1), self.mask_token.to(t.dtype), t)
        t, rope = self._with_positions(t)
        if keep is not None:
            t, rope = self._only(t, rope, keep)
        t = net.norm_pre(t if isinstance(net, Eva) else net.patch_drop(t))
        last: list[Tensor] = []  # of the blocks asked for
        recompute = self.grad_checkpointing and torch.is_grad_enabled()
        for i, block in enumerate(net.blocks):
            if rope is not None:
                block = functools.partial(block, rope=rope[i] if self._rope_of_each_block else rope)
            t = checkpoint(block, t, use_reentrant=False) if recompute else block(t)
            if i >= len(net.blocks) - blocks:
                last.append(net.norm(t))
        t = last[-1] if last else net.norm(t)
        r = self.prefix_tokens
        return Features(net.forward_head(t), t[:, r:], t[:, :r], grid, tuple(last))

    def _layout_of_vit(self) -> Layout:
        net = self.net
        return Layout(net.num_features, "tokens", net.num_prefix_tokens, net.patch_embed.patch_size[0])

    @property
    def _rope_of_each_block(self) -> bool:
        return bool(getattr(self.net, "rope_mixed", False))

    def _choose_attention(self, x: Tensor) -> None:
        # In bf16 on a CPU a training step with fused attention takes 1.4 times as long as with plain attention, and a
        # forward pass 1.04 to 1.1 times; of many tokens without gradient, fused attention saves the N x N matrix.
        half = x.device.type == "cpu" and torch.is_autocast_enabled("cpu")
        plain = half and (torch.is_grad_enabled() or x.shape[-2] * x.shape[-1] <= SHORT * self.patch**2)
        for block in self.net.blocks:
            if type(getattr(block, "attn", None)) in PLAIN_ATTENTION:
                block.attn.fused_attn = not plain

    def _with_positions(self, t: Tensor) -> tuple[Tensor, Tensor | None]:
        """Add prefix and positions to patches (B, h, w, D): tokens (B, R + N, D), and rotary positions if any."""
        net = self.net
        if self.position == "dino":
            position = dino_positions(net.pos_embed, net.patch_embed.grid_size, t.shape[1:3])
            cls = net.cls_token.expand(t.shape[0], -1, -1)  # len() would fix the batch of a traced graph
            t = torch.cat([cls, t.flatten(1, 2)], 1)
            return net.pos_drop(t + position), None
        return net._pos_embed(t) if isinstance(net, Eva) else (net._pos_embed(t), None)

    def _only(self, t: Tensor, rope: Tensor | None, keep: Tensor) -> tuple[Tensor, Tensor | None]:
        """Select the prefix and the patches ``keep`` (B, M) of tokens ``t``, and these patches' rotary positions."""
        r = self.prefix_tokens
        patches = t[:, r:].gather(1, keep[..., None].expand(-1, -1, t.shape[2]))
        if rope is not None:  # (N, d), or (blocks, heads, N, d)
            rope = rope[keep][:, None] if rope.ndim == 2 else rope[:, :, keep].transpose(1, 2)
        return torch.cat([t[:, :r], patches], 1), rope

    def add_mask_token(self, std: float = 0.0) -> None:
        """Add the learned token that stands for masked patches, normal of deviation ``std`` (iBOT, DINOv2: zero)."""
        self.require_vit("mask tokens")
        like = next(self.parameters())
        self.mask_token = nn.Parameter(torch.zeros(1, self.dim, dtype=like.dtype, device=like.device))
        if std:
            nn.init.normal_(self.mask_token, std=std)

    @torch.no_grad()
    def fix_positions(self, columns_first: bool = False) -> None:
        """Replace a ViT's learned positions by sines and cosines that are not trained (``sincos_positions``).

        [CLS] and registers get none. A ViT with rotary positions alone has no table and stays as it is.
        """
        self.require_vit("fixed positions")
        table = self.net.pos_embed
        if table is not None:
            fixed = sincos_positions(self.native_grid, self.dim, columns_first)[:, 1:]
            table[:, -fixed.shape[1] :] = fixed
            table[:, : -fixed.shape[1]] = 0
            table.requires_grad_(False)

    def check_size(self, height: int, width: int) -> None:
        """Raise SpecError, with the nearest sizes, where ``height`` x ``width`` px cannot be cut into patches."""
        for size in (height, width):
            if self.patch and (size % self.patch or size < self.patch):
                raise not_a_multiple(f"a view of {height}x{width} px", size, self.patch)

    def require_vit(self, what: str) -> None:
        """Raise SpecError where this is not a ViT, which ``what`` (plural) needs."""
        if not self.is_vit:
            raise SpecError(f"{what} need a ViT, this is a {self.family}", VIT_EXAMPLE)

    @property
    def family(self) -> str:
        """timm's class, for messages: ResNet, VisionTransformer."""
        return type(self.net).__name__

    @property
    def depth(self) -> int:
        """Blocks of a ViT; 0 for any other net."""
        return len(self.net.blocks) if self.is_vit else 0

    @property
    def heads(self) -> int:
        """Attention heads in a block of a ViT; 0 for any other net."""
        return int(self.net.blocks[0].attn.num_heads) if self.is_vit else 0

    @property
    def prefix_tokens(self) -> int:
        """Tokens before the patches: [CLS] and registers."""
        return self.layout.prefix

    @property
    def has_class_token(self) -> bool:
        return self.is_vit and self.net.cls_token is not None

    @property
    def pools_class_token(self) -> bool:
        """Whether the pooled feature is [CLS], not the mean of the patches."""
        return self.has_class_token and self.net.global_pool == "token"

    @property
    def has_map(self) -> bool:
        """Whether there are patches at all: of every net whose features could be told apart."""
        return self.layout.order != "unknown"

    @property
    def native_grid(self) -> tuple[int, int]:
        """Rows and columns of patches that a ViT's position table is for."""
        self.require_vit("native grids")
        rows, columns = self.net.patch_embed.grid_size
        return int(rows), int(columns)

    @functools.cached_property
    def stride(self) -> int:
        """Pixels of the image, each way, for one place of the map. SpecError where that is not one number."""
        stride = find_stride(self.net, self.layout)
        if stride is None:
            raise SpecError(f"{self.family} has no map with a fixed stride", "take a ViT, ResNet or ConvNeXt")
        return stride

    @property
    def channels_last(self) -> bool:
        """Whether the net is faster on channels-last tensors: where it convolves."""
        return not self.is_vit

    def layer_depths(self) -> dict[str, int]:
        """Return how deep each parameter lies, counted from the input, by its name here, for layer-wise decay.

        What a layer is, timm says of each of its models: a block of a ViT, a stage of a ResNet.
        """
        depths = group_parameters(self.net, self.net.group_matcher(not self.is_vit), reverse=True)
        return {f"net.{name}": depth for name, depth in depths.items()} | (
            {} if self.mask_token is None else {"mask_token": 0}
        )

    def watch_blocks(self, see: Callable[[Tensor], object]) -> None:
        """Call ``see`` with the tokens that enter each block of a ViT, in every pass from now on."""

        def hook(block: nn.Module, args: tuple[Tensor, ...]) -> None:
            see(args[0])

        for block in self.net.blocks if self.is_vit else ():
            block.register_forward_pre_hook(hook)

    def timm_state(self) -> dict[str, Tensor]:
        """Return the weights under timm's names, without the mask token."""
        return dict(self.net.state_dict())

    def load_timm_state(self, state: dict[str, Tensor], assign: bool = False) -> None:
        """Load weights under timm's names; as ``nn.Module.load_state_dict``, strictly."""
        self.net.load_state_dict(state, assign=assign)


def pooled(out: Features | Tensor) -> Tensor:
    """Return the pooled feature of what an encoder gave: a backbone's, or (B, ...) itself of any other module."""
    return out.pooled if isinstance(out, Features) else out


def not_a_multiple(what: str, size: int, patch: int) -> SpecError:
    below = size // patch * patch
    near = " or ".join(str(n) for n in (below, below + patch) if n)
    return SpecError(f"{what}: {size} is not a multiple of the patch size {patch}", f"the nearest are {near} px")
