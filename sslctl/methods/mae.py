"""MAE: from a quarter of an image's patches, paint the pixels of the others (He et al. 2021)."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, ClassVar

import torch
from pydantic import Field
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from ..backbones.positions import sincos_positions
from ..backbones.vit_init import begin_as_mae
from ..layers.encoder import Encoder
from ..layers.precision import full_precision
from ..runtime.device import send
from ..runtime.seeding import uniforms
from ..schedule import Step
from ..spec.schema import Data
from ..views.recipe import ViewRecipe, ViewSpec
from .base import Chance, Context, Method, Output, Params, Views

if TYPE_CHECKING:
    from ..backbones import Backbone, Features


class MAEParams(Params):
    """Hyper-parameters of MAE; defaults of facebookresearch/mae, models_mae.py."""

    mask_ratio: float = Field(0.75, gt=0, lt=1, description="share of the patches to paint; paper: 0.75 is best")
    normalize_target: bool = Field(
        True,
        description="pixels of a patch at mean 0, deviation 1: better features; paper, ViT-L: 73.9 %, 73.5 without",
    )
    decoder_width: int = Field(512, ge=4, multiple_of=4, description="width of the decoder")
    decoder_depth: int = Field(8, ge=1, description="blocks of the decoder; paper: 1 is nearly as good to fine-tune")
    decoder_heads: int = Field(16, ge=1, description="attention heads of the decoder")
    decoder_mlp_ratio: float = Field(4.0, gt=0, description="hidden width of the decoder's MLPs, over its width")


_VIEW = ViewSpec(scale=(0.2, 1.0), interpolation="bicubic", jitter_p=0.0, grayscale_p=0.0, blur_p=0.0)


class MAE(Method[MAEParams]):
    """Masked Autoencoders Are Scalable Vision Learners.

    A random quarter of a view's patches goes through the encoder; the decoder sees these and a mask token in place of
    each other patch, and predicts the pixels of those: the squared error, mean over the numbers of a patch and over
    masked patches. Positions are sines and cosines, fixed. Every view, local ones too, is masked and painted by itself;
    one view is the paper's. The mask is drawn by image and step.
    """

    Params = MAEParams
    views = ViewRecipe("1x224", (_VIEW,), _VIEW.model_copy(update={"scale": (0.05, 0.2)}))
    recipe: ClassVar[Data] = {
        "backbone": {"arch": "vit_base_patch16_224"},
        "optim": {
            "name": "adamw", "lr": 1.5e-4, "warmup_epochs": 40.0, "warmup_reaches": False, "weight_decay": 0.05,
            "betas": [0.9, 0.95],
        },
        "run": {"epochs": 800.0},
    }  # fmt: skip
    compares_views = False
    needs_vit = True
    health_on_features = True

    def __init__(self, params: MAEParams, backbone: Backbone, context: Context) -> None:
        super().__init__(params)
        begin_as_mae(backbone)
        self.student = Encoder(backbone, Decoder(params, backbone))

    def forward(self, views: Views, step: Step) -> Output:
        losses, features = zip(*(self.paint(x, views.index, step, i) for i, x in enumerate(views.all)), strict=True)
        return Output(torch.stack(losses).mean(), {}, features[0].pooled.detach())

    def paint(self, x: Tensor, index: Tensor, step: Step, view: int) -> tuple[Tensor, Features]:
        """Return the loss on view number ``view``, (B, C, H, W), of images ``index``, and the encoder's features."""
        target = patches(x, self.student.backbone.patch)  # (B, N, P)
        order = self.noise(step, index, target.shape[1], view).argsort(1)
        visible = max(1, int(target.shape[1] * (1 - self.params.mask_ratio)))
        features = self.student.backbone(x, keep=order[:, :visible])
        painted = self.student.head(features, order)  # (B, N, P)
        mask = torch.ones_like(order).scatter(1, order[:, :visible], 0)  # (B, N), 1 is to be painted
        return masked_error(painted, target, mask, self.params.normalize_target), features

    def noise(self, step: Step, index: Tensor, n: int, view: int) -> Tensor:
        """Return what orders the ``n`` patches of each image: the lowest stay visible, (B, n)."""
        return uniforms(step, index, n, stream=view)

    recipes = """
        mae-vitb16-1600ep: {linear: 68.0, run: {batch_size: 4096, epochs: 1600}}
        mae-vitl16-1600ep:
          linear: 75.8
          backbone: {arch: vit_large_patch16_224}
          run: {batch_size: 4096, epochs: 1600}
        # The feature is the mean of the patches: in so short a run nothing has gathered in [CLS], which has no loss.
        small:
          method: {decoder_width: 96, decoder_depth: 1, decoder_heads: 4}
          backbone:
            arch: vit_tiny_patch16_224
            args: {patch_size: 4, embed_dim: 96, depth: 4, num_heads: 4, class_token: false, global_pool: avg}
          views: {scale: [0.5, 1]}
          optim: {lr: 0.003, warmup_epochs: 2, weight_decay: 0.05, betas: [0.9, 0.95]}
          run: {epochs: 40}
    """
    tiny: ClassVar[Data] = {"decoder_width": 8, "decoder_depth": 1, "decoder_heads": 2}

    @classmethod
    def chance(cls, params: MAEParams, context: Context) -> Chance:
        normal = "falls fast to blurred patches, then slowly as edges get sharp; it says little of the features"
        return Chance(normal, 1.0, "1, the patch's mean") if params.normalize_target else Chance(normal)


norm = functools.partial(nn.LayerNorm, eps=1e-6)


class Decoder(nn.Module):
    """Visible patches among mask tokens, with positions, through a few blocks to pixels: (B, N, C·patch²)."""

    table: Tensor

    def __init__(self, p: MAEParams, backbone: Backbone) -> None:
        super().__init__()
        self.embed = nn.Linear(backbone.dim, p.decoder_width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, p.decoder_width))
        self.grid = backbone.native_grid
        self.register_buffer(
            "table", sincos_positions(self.grid, p.decoder_width, columns_first=True), persistent=False
        )
        self.blocks = nn.Sequential(
            *(Block(p.decoder_width, p.decoder_heads, p.decoder_mlp_ratio, qkv_bias=True, norm_layer=norm)
              for _ in range(p.decoder_depth))
        )  # fmt: skip
        self.norm = norm(p.decoder_width)
        self.pixels = nn.Linear(p.decoder_width, 3 * backbone.patch**2)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(self, features: Features, order: Tensor) -> Tensor:
        """Decode, with ``order`` (B, N): visible patches first, in the order of ``features.patches`` (B, M, D)."""
        prefix, visible = features.prefix.shape[1], features.patches.shape[1]
        x = self.embed(torch.cat([features.prefix, features.patches], 1))  # (B, R + M, W)
        patches = self.mask_token.to(x.dtype).expand(*order.shape, -1)
        place = order[:, :visible, None].expand(-1, -1, x.shape[2])
        patches = patches.scatter(1, place, x[:, prefix:])  # (B, N, W)
        x = torch.cat([x[:, :prefix], patches + self.positions(features.grid, x)[:, 1:]], 1)
        out: Tensor = self.pixels(self.norm(self.blocks(x)))[:, prefix:]
        return out

    def positions(self, grid: tuple[int, int], like: Tensor) -> Tensor:
        """Return the fixed positions of ``grid``, (1, 1 + N, W) on the device of ``like``."""
        if grid == self.grid:
            return self.table.to(like.dtype)
        return send(sincos_positions(grid, like.shape[2], columns_first=True), like.device).to(like.dtype)


def patches(x: Tensor, side: int) -> Tensor:
    """Cut ``x`` (B, C, H, W) into patches, row by row: (B, N, side²·C), channels last within a patch."""
    b, c, h, w = x.shape
    cut = x.reshape(b, c, h // side, side, w // side, side)
    return cut.permute(0, 2, 4, 3, 5, 1).reshape(b, -1, side * side * c)


@full_precision
def masked_error(painted: Tensor, target: Tensor, mask: Tensor, normalize: bool) -> Tensor:
    """Return the mean squared error of the patches (B, N, P) whose ``mask`` (B, N) is 1.

    ``normalize``: each patch of the target less its mean, over its deviation (unbiased variance + 1e-6).
    """
    if normalize:
        variance, mean = torch.var_mean(target, -1, keepdim=True)
        target = (target - mean) / (variance + 1e-6).sqrt()
    errors = (painted - target).square().mean(-1)  # (B, N)
    return (errors * mask).sum() / mask.sum()
