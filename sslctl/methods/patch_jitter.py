"""Patches of an image coloured one by one, so that they share what is in the image and not its light (CPC v2)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..runtime import distributed
from ..runtime.device import send
from ..runtime.seeding import generator
from ..schedule import Step

CONTRAST = 0.6
BRIGHTNESS = 1.5  # deviations of normalised pixels


def jitter_patches(patches: list[Tensor], strength: float, step: Step) -> list[Tensor]:
    """Every one of the ``patches`` (B, C, S, S) of every image by itself: one of its channels stands for all of them,
    its contrast is multiplied by 1 ± 0.6 ``strength`` and its brightness moved by ± 1.5 ``strength``, all uniform.

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
