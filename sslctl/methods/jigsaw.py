"""Jigsaw: in which of a set of orders do the tiles of an image lie? (Noroozi and Favaro 2016)"""

from __future__ import annotations

import functools
import itertools
import math
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from ..errors import SpecError
from ..layers.encoder import Encoder, encode
from ..runtime import distributed
from ..runtime.device import send
from ..runtime.seeding import generator
from ..schedule import Step
from ..spec.schema import Data
from ..views.recipe import ViewRecipe, ViewSpec
from .base import PRETEXT, Chance, Context, Group, Method, Output, Params, Views

if TYPE_CHECKING:
    from ..backbones import Backbone


class JigsawParams(Params):
    """Hyper-parameters of Jigsaw; the authors' tiles, the head of VISSL's ResNet version."""

    grid: int = Field(3, ge=2, le=3, description="tiles along a side")
    permutations: int = Field(100, ge=2, le=5000, description="orders to tell apart; paper: up to 1000")
    tile: float = Field(
        64 / 85, gt=0, le=1, description="side of a tile as a share of its cell; it lies anywhere in it"
    )
    normalize_tiles: bool = Field(False, description="every tile at mean 0, deviation 1: paper yes, authors' code no")
    embed: int = Field(1000, ge=1, description="width of a tile's embedding")


_VIEW = ViewSpec(scale=(0.765, 1.0), ratio=(1.0, 1.0), jitter_p=0.0, grayscale_p=0.5, blur_p=0.0)


class Jigsaw(Method[JigsawParams]):
    """Unsupervised Learning of Visual Representations by Solving Jigsaw Puzzles.

    A global view is cut into grid x grid cells, row by row, and a tile from somewhere in each; all tiles go through the
    network, and from their embeddings in a permuted order that order is to be told. Local views are too small to cut
    and do not count. Half of the images are grey, as in the authors' code; its shift of colour channels is left out.
    """

    Params = JigsawParams
    views = ViewRecipe("1x255", (_VIEW,), _VIEW)
    recipe: ClassVar[Data] = {
        "backbone": {"arch": "resnet50", "args": {"zero_init_last": False}},
        "optim": {
            "name": "sgd", "lr": 0.1, "schedule": "step", "milestones": [30, 60, 90, 100], "warmup_epochs": 5.0,
            "weight_decay": 1e-4,
        },
        "run": {"epochs": 105.0},
    }  # fmt: skip

    permutations: Tensor

    def __init__(self, params: JigsawParams, backbone: Backbone, context: Context) -> None:
        super().__init__(params)
        head = nn.Sequential(nn.Linear(backbone.dim, params.embed), nn.BatchNorm1d(params.embed), nn.ReLU())
        self.student = Encoder(backbone, head)
        orders = distant_permutations(params.grid**2, params.permutations)
        self.classifier = nn.Linear(params.grid**2 * params.embed, len(orders))
        self.register_buffer("permutations", torch.from_numpy(orders.astype(np.int64)))
        self.patch = backbone.patch

    def forward(self, views: Views, step: Step) -> Output:
        g, n = len(views.globals), self.params.grid**2
        everyone = len(views.index) * distributed.world_size()
        draw = generator(step)
        labels = torch.randint(len(self.permutations), (everyone, g), generator=draw)
        shifts = torch.rand(everyone, g, n, 2, generator=draw)
        labels, shifts = (x.chunk(distributed.world_size())[distributed.rank()] for x in (labels, shifts))
        labels, shifts = send(labels, views.index.device), send(shifts, views.index.device)

        tiles = [tile for i, view in enumerate(views.globals) for tile in self.cut(view, shifts[:, i])]
        h, z = encode(self.student, tiles)  # (G * n, B, D), (G * n, B, E)
        z = z.view(g, n, *z.shape[1:]).permute(2, 0, 1, 3)  # (B, G, n, E)
        order = self.permutations[labels][..., None].expand_as(z)  # (B, G, n, E)
        logits = self.classifier(z.gather(2, order).flatten(2)).flatten(0, 1)
        accuracy = (logits.detach().argmax(-1) == labels.flatten()).float().mean()
        embedding = h[:n].mean(0).detach()
        return Output(F.cross_entropy(logits, labels.flatten()), {"accuracy": accuracy}, embedding)

    def cut(self, view: Tensor, shift: Tensor) -> list[Tensor]:
        """Cut ``view`` (B, C, S, S) into tiles, row by row, each placed in its cell by ``shift`` (B, n, 2)."""
        grid = self.params.grid
        cell = view.shape[-1] // grid
        side = round(cell * self.params.tile)
        if self.patch:  # a ViT takes whole patches
            side = max(self.patch, side // self.patch * self.patch)
        if not 0 < side <= cell:
            raise SpecError(
                f"views of {view.shape[-1]} px: no tile of {side} px fits in {grid}x{grid} cells", "larger views"
            )
        span = torch.arange(side, device=view.device)
        start = (shift * (cell - side + 1)).long()  # (B, n, 2)
        cells = torch.arange(grid**2, device=view.device)
        rows = (cells // grid * cell + start[..., 0])[..., None] + span  # (B, n, side)
        columns = (cells % grid * cell + start[..., 1])[..., None] + span
        image = torch.arange(len(view), device=view.device)[:, None, None, None]
        tiles = view[image, :, rows[..., None], columns[:, :, None, :]].permute(1, 0, 4, 2, 3)  # (n, B, C, side, side)
        if self.params.normalize_tiles:
            deviation, mean = torch.std_mean(tiles, (2, 3, 4), keepdim=True)
            tiles = (tiles - mean) / (deviation + 1e-6)
        return list(tiles)

    def groups(self) -> list[Group]:
        return self.one_group()

    recipes = """
        jigsaw-r50-105ep: {linear: 48.6}
        # The network is given whole images in the end, so tiles hold as much of one as they can.
        small:
          method: {grid: 2, permutations: 24, embed: 128, tile: 0.9}
          views: {scale: [0.8, 1]}
    """
    tiny: ClassVar[Data] = {"grid": 2, "permutations": 6, "embed": 8}

    compares_views = False
    health_on_features = True

    @classmethod
    def chance(cls, params: JigsawParams, context: Context) -> Chance:
        return Chance(PRETEXT, math.log(params.permutations), "ln permutations")


@functools.cache
def distant_permutations(items: int, count: int) -> NDArray[np.uint8]:
    """Return ``count`` orders of 0 … items - 1, far apart: (count, items), always the same.

    The identity first, then greedily the order that differs from its nearest in the set at most places, in a tie from
    all of them, in a tie the first one. SpecError where there are not that many.
    """
    flat = itertools.chain.from_iterable(itertools.permutations(range(items)))
    every = np.fromiter(flat, np.uint8).reshape(-1, items)
    if count > len(every):
        raise SpecError(f"method.permutations {count}: {items} tiles have only {len(every)} orders", "fewer")
    chosen, nearest, total = [0], np.full(len(every), items), np.zeros(len(every), np.int64)
    while len(chosen) < count:
        distance = (every != every[chosen[-1]]).sum(1)
        nearest, total = np.minimum(nearest, distance), total + distance
        chosen.append(int(np.argmax(nearest * (items * count + 1) + total)))
    return every[chosen]
