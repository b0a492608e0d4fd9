"""CPC: from the patches above, find the patch further below among those of all images (van den Oord et al. 2018)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ..errors import SpecError
from ..layers.encoder import Encoder, encode
from ..layers.losses import info_nce_below
from ..runtime import distributed
from ..runtime.device import send
from ..runtime.seeding import generator
from ..schedule import Step
from ..spec.schema import Data, Spec
from ..views.recipe import ViewRecipe, ViewSpec
from .base import PRETEXT, Chance, Context, Method, Output, Params, Views

if TYPE_CHECKING:
    from ..backbones import Backbone


CONTRAST = 0.6
BRIGHTNESS = 1.5  # deviations of normalised pixels


class CPCParams(Params):
    """Hyper-parameters of CPC; those of v2's pseudo-code (arXiv 1905.09272, appendix), the only code there is."""

    grid: int = Field(6, ge=2, description="patches along a side; 7 in v1")
    patch: float = Field(80 / 260, gt=0, le=1, description="side of a patch as a share of the view's; 0.25 in v1")
    first_step: int = Field(3, ge=1, description="rows below that are predicted, from here: nearer patches overlap")
    last_step: int = Field(3, ge=1, description="rows below that are predicted, up to here; 5 in v1")
    directions: int = Field(4, ge=1, le=4, description="sides of the image to predict from; 1 in v1. Paper: v2 has 4")
    out: int = Field(64, ge=1, description="width of predictions and targets")
    scale: float = Field(0.1, gt=0, description="factor on predictions")
    hidden: int = Field(256, ge=1, description="width within the context network")
    layers: int = Field(5, ge=1, description="layers of the context network: how many rows up it sees")
    patch_jitter: float = Field(0.0, ge=0, le=1.5, description="strength of colour changes of each patch by itself")


_VIEW = ViewSpec(scale=(0.7, 1.0), ratio=(1.0, 1.0), jitter_p=0.8, grayscale_p=0.25, blur_p=0.0)


class CPC(Method[CPCParams]):
    """Representation Learning with Contrastive Predictive Coding, and its second version.

    A global view is cut into a grid of overlapping patches; the backbone encodes each. A masked convolutional network
    gathers, for each patch, what lies at its height and above (the context), and a linear map of it for every step k is
    to find the patch k rows below among all patches of all images on all processes: the mean cross-entropy, summed over
    the steps, mean over directions. Local views are too small to cut and do not count.

    The backbone must not have batch norm, whose statistics would tell patches of an image by each other: here group
    norm (the papers: none, then layer norm in a ResNet-161 of their own). Patches are augmented as their image is, and
    with ``patch_jitter`` also by themselves, as v2 does, and more; its pseudo-code leaves that out.
    """

    Params = CPCParams
    views = ViewRecipe("1x260", (_VIEW,), _VIEW)
    recipe: ClassVar[Data] = {
        "backbone": {"arch": "resnet50_gn"},
        "optim": {
            "name": "adamw", "lr": 4e-4, "lr_scaling": "none", "schedule": "constant", "warmup_epochs": 0.0,
            "betas": [0.8, 0.999], "weight_decay": 0.0, "clip": 0.01,
        },
        "run": {"epochs": 200.0},
    }  # fmt: skip

    def __init__(self, params: CPCParams, backbone: Backbone, context: Context) -> None:
        super().__init__(params)
        if not params.first_step <= params.last_step < params.grid:
            steps = f"{params.first_step} to {params.last_step}"
            raise SpecError(f"method: steps {steps} do not fit a grid of {params.grid}", "lower steps or a finer grid")
        self.student = Encoder(backbone, nn.Linear(backbone.dim, params.out))
        self.contexts = nn.ModuleList(ContextNetwork(backbone.dim, params) for _ in range(params.directions))
        self.multiple = backbone.patch or 1

    def forward(self, views: Views, step: Step) -> Output:
        p = self.params
        patches = [x for view in views.globals for x in self.cut(view)]
        if p.patch_jitter:
            patches = jitter_patches(patches, p.patch_jitter, step)
        h, z = encode(self.student, patches)  # (G * n, B, D), (G * n, B, out)
        grids = [x.view(-1, p.grid, p.grid, *x.shape[1:]).permute(0, 3, 1, 2, 4).flatten(0, 1) for x in (h, z)]
        losses = []
        for turn, context in enumerate(self.contexts):
            features, targets = (torch.rot90(x, turn, (1, 2)) for x in grids)  # (G * B, rows, columns, D)
            steps = enumerate(context(features), p.first_step)
            losses.append(torch.stack([info_nce_below(x * p.scale, targets, k) for k, x in steps]).sum())
        embedding = h[: p.grid**2].mean(0).detach()
        return Output(torch.stack(losses).mean(), {}, embedding)

    def cut(self, view: Tensor) -> list[Tensor]:
        """Cut ``view`` (B, C, S, S) into patches, row by row, evenly spaced from edge to edge."""
        size = view.shape[-1]
        side = max(self.multiple, round(size * self.params.patch) // self.multiple * self.multiple)
        if side > size:
            raise SpecError(f"views of {size} px: no patch of {side} px fits", "larger views")
        starts = [round(i * (size - side) / (self.params.grid - 1)) for i in range(self.params.grid)]
        return [view[..., y : y + side, x : x + side] for y in starts for x in starts]

    recipes = """
        cpc-v1-grid:
          method: {grid: 7, patch: 0.25, first_step: 1, last_step: 5, directions: 1}
          views: {multi_crop: 1x256}
          optim: {lr: 2e-4, betas: [0.9, 0.999], clip: 0}
          run: {batch_size: 512}
        # Patches overlap and are coloured one by one: else their position or the light of their image gives them away.
        small:
          method:
            {grid: 2, patch: 0.67, first_step: 1, last_step: 1, hidden: 64, layers: 2, scale: 1, patch_jitter: 1}
          views: {scale: [0.8, 1], grayscale: 0.8}
          backbone: {args: {norm_layer: groupnorm1, zero_init_last: false}}
          optim: {clip: 1}
    """
    tiny: ClassVar[Data] = {
        "grid": 3,
        "patch": 0.5,
        "first_step": 1,
        "last_step": 2,
        "layers": 1,
        "hidden": 8,
        "out": 8,
        "patch_jitter": 1,
    }

    @classmethod
    def advice(cls, params: CPCParams, context: Context, spec: Spec) -> list[str]:
        lines, arch = super().advice(params, context, spec), spec.backbone.arch
        if arch.startswith("resnet") and "_gn" not in arch and "norm_layer" not in spec.backbone.args:
            lines.append(
                f"backbone.arch {arch}: its batch norm tells patches of an image by each other, which spares CPC the "
                "learning; for example --set backbone.args.norm_layer=groupnorm"
            )
        return lines

    compares_views = False
    health_on_features = True

    @classmethod
    def chance(cls, params: CPCParams, context: Context) -> Chance:
        return Chance(PRETEXT)


class ContextNetwork(nn.Module):
    """The masked network and its predictions for each step: (B, rows, columns, D) -> (steps, B, rows, columns, out)."""

    def __init__(self, dim: int, p: CPCParams) -> None:
        super().__init__()
        self.layers = nn.ModuleList(row_and_above(dim, p.hidden) for _ in range(p.layers))
        self.predict = nn.ModuleList(nn.Linear(dim, p.out) for _ in range(p.first_step, p.last_step + 1))

    def forward(self, h: Tensor) -> Tensor:
        c = h.permute(0, 3, 1, 2)
        for layer in self.layers:
            c = c + layer(c)
        c = F.relu(c).permute(0, 2, 3, 1)
        return torch.stack([layer(c) for layer in self.predict])


def row_and_above(dim: int, hidden: int) -> nn.Sequential:
    """Build convolutions that see a patch's row and the one above, never one below."""
    across, down = nn.Conv2d(hidden, hidden, (1, 3), padding=(0, 1)), nn.Conv2d(hidden, hidden, (2, 1))
    inner = [nn.Conv2d(dim, hidden, 1), nn.ReLU(), across, nn.ZeroPad2d((0, 0, 1, 0)), down, nn.ReLU()]
    return nn.Sequential(*inner, nn.Conv2d(hidden, dim, 1))


def jitter_patches(patches: list[Tensor], strength: float, step: Step) -> list[Tensor]:
    """Jitter each of the ``patches`` (B, C, S, S) of each image by itself.

    One of its channels stands for all of them, its contrast is multiplied by 1 ± 0.6 ``strength`` and its brightness
    moved by ± 1.5 ``strength``, all uniform.

    Of what CPC v2 does to patches (Hénaff et al. 2019, arXiv 1905.09272): the dropping of colours, in each patch by
    itself, and of its colour transforms contrast and brightness. What is drawn depends on the step and on the image's
    place in the batch of all processes.
    """
    world = distributed.world_size()
    everyone = len(patches[0]) * world
    u = torch.rand(everyone, len(patches), 3, generator=generator(step)).chunk(world)[distributed.rank()]
    done = []
    for x, draw in zip(patches, send(u, patches[0].device).unbind(1), strict=True):
        channel = (draw[:, 0] * x.shape[1]).long()
        grey = x[torch.arange(len(x), device=x.device), channel][:, None]  # (B, 1, S, S)
        contrast, brightness = (strength * (2 * draw[:, 1:] - 1)).T[..., None, None, None]
        mean = grey.mean((2, 3), keepdim=True)
        grey = mean + (grey - mean) * (1 + CONTRAST * contrast) + BRIGHTNESS * brightness
        done.append(grey.expand_as(x))
    return done
