"""Where the encoder looks in the same few images, from its first step to its last: small maps kept as a run goes."""

from __future__ import annotations

import json
from collections.abc import Sized
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import Tensor

from ...backbones import Backbone, activation, attention, own_grad_cam
from ...backbones.compiling import uncompiled
from ...data.source import Source
from ...data.unreadable import next_readable
from ...errors import SpecError
from ...evaluate.features.stream import frozen
from ...files import write_atomically
from ...views.evaluation import EvalTransform

FILE = "glimpses.safetensors"
IMAGES = 6
SHARES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0)  # of the run: early on, much changes
SHOWN = 160  # px, at most, of the images that are kept


class Glimpse(NamedTuple):
    """The images as the encoder sees them, uint8 (n, 3, s, s), their names, and maps (n, h, w) by step."""

    images: Tensor
    names: list[str]
    maps: dict[int, Tensor]


class Glimpses:
    """Maps of fixed images of ``source``, taken with ``encoder`` at ``SHARES`` of ``total`` steps, kept in ``folder``.

    Costs ``IMAGES`` images through the network, at most once for each share. The encoder stays as it was, to the bit.
    """

    def __init__(self, folder: Path, encoder: Backbone, source: Source, transform: EvalTransform, total: int) -> None:
        self.path = folder / FILE
        self.encoder = encoder
        self.transform = transform
        self.due = sorted({round(share * total) for share in SHARES})
        self.images, names = fixed_images(source, transform)
        self.glimpse = Glimpse(shown(self.images), names, {})

    def begin(self, step: int) -> None:
        """Take up at ``step`` what an earlier session left; what it saw later is seen again."""
        old = read(self.path)
        if old is not None and torch.equal(old.images, self.glimpse.images):
            self.glimpse.maps.update({at: maps for at, maps in old.maps.items() if at <= step})
        self.at(step)

    def at(self, step: int) -> None:
        """``step`` steps are done: look, where a look is due since the last one."""
        seen = max(self.glimpse.maps, default=-1)
        if any(seen < due <= step for due in self.due):
            with frozen(self.encoder):
                self.glimpse.maps[step] = look(self.encoder, self.transform.normalise(self.images))
            write(self.path, self.glimpse)


def fixed_images(source: Source, transform: EvalTransform, count: int = IMAGES) -> tuple[Tensor, list[str]]:
    """Images evenly spaced over ``source`` as the encoder sees them, uint8 (n, 3, S, S), and their names."""
    images = [next_readable(source, i)[:2] for i in spaced(source, count)]
    return torch.stack([transform.crop(image) for _, image in images]), [source.item_name(i) for i, _ in images]


def spaced(images: Sized, count: int) -> list[int]:
    """Where ``count`` of ``images``, evenly spaced, stand: none at the ends where there are more, else all."""
    if count >= len(images):
        return list(range(len(images)))
    return list(dict.fromkeys(torch.linspace(0, len(images) - 1, count + 2)[1:-1].round().int().tolist()))


def look(encoder: Backbone, x: Tensor) -> Tensor:
    """Where ``encoder`` looks in images (n, 3, S, S), normalised: (n, h, w).

    A ViT's attention in its last block, mean over heads; elsewhere the places that made the embedding what it is.
    """
    x = x.to(next(encoder.parameters()).device)
    with torch.no_grad(), uncompiled():
        try:
            return (attention if encoder.is_vit else own_grad_cam)(encoder, x).mean(1).float().cpu()
        except SpecError:  # a net of another make
            return activation(encoder, x).mean(1).float().cpu()


def shown(images: Tensor) -> Tensor:
    """Images uint8 (n, 3, S, S) no larger than a page needs them."""
    if images.shape[-1] <= SHOWN:
        return images
    return F.interpolate(images, (SHOWN, SHOWN), mode="bilinear", antialias=True)


def write(path: Path, glimpse: Glimpse) -> None:
    tensors = {"images": glimpse.images} | {f"step-{at:09d}": maps for at, maps in glimpse.maps.items()}
    write_atomically(path, serialize(tensors, {"names": json.dumps(glimpse.names)}))


def read(path: Path) -> Glimpse | None:
    """What ``path`` holds; None where there is no such file, or it is damaged."""
    tensors: dict[str, Any] = {}
    try:
        with safe_open(path, "pt") as file:
            names = [str(name) for name in json.loads(file.metadata()["names"])]
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping
        images = tensors.pop("images")
        maps = {int(key.removeprefix("step-")): value for key, value in sorted(tensors.items())}
    except (OSError, SafetensorError, KeyError, ValueError, TypeError, RecursionError):
        return None
    whole = images.ndim == 4 and images.dtype == torch.uint8 and len(names) == len(images)
    return Glimpse(images, names, maps) if whole and all(m.ndim == 3 for m in maps.values()) else None
