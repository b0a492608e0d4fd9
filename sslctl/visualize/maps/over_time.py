"""Maps of the same few images over the steps of a run, kept in its directory."""

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
SHARES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0)  # of the run; maps change most at its beginning
MAX_SIDE = 160  # px of the images that are kept


class MapHistory(NamedTuple):
    """Images as the encoder sees them, uint8 (n, 3, s, s), their names, and their maps (n, h, w) by step."""

    images: Tensor
    names: list[str]
    maps: dict[int, Tensor]


class MapRecorder:
    """A recorder of the maps of fixed images of ``source`` at ``SHARES`` of ``total`` steps, in ``folder``.

    It passes ``IMAGES`` images through ``encoder`` at most once for each share and leaves it the same, to the bit.
    """

    def __init__(self, folder: Path, encoder: Backbone, source: Source, transform: EvalTransform, total: int) -> None:
        self.path = folder / FILE
        self.encoder = encoder
        self.transform = transform
        self.due = sorted({round(share * total) for share in SHARES})
        self.images, names = fixed_images(source, transform)
        self.history = MapHistory(shrink(self.images), names, {})

    def begin(self, step: int) -> None:
        """Continue at ``step`` with the maps of an earlier session up to it."""
        old = read_maps(self.path)
        if old is not None and torch.equal(old.images, self.history.images):
            self.history.maps.update({at: maps for at, maps in old.maps.items() if at <= step})
        self.at(step)

    def at(self, step: int) -> None:
        """Record maps after ``step`` steps if they are due."""
        last = max(self.history.maps, default=-1)
        if any(last < due <= step for due in self.due):
            with frozen(self.encoder):
                self.history.maps[step] = mean_maps(self.encoder, self.transform.normalise(self.images))
            write_maps(self.path, self.history)


def fixed_images(source: Source, transform: EvalTransform, count: int = IMAGES) -> tuple[Tensor, list[str]]:
    """Return images evenly spaced over ``source`` as the encoder sees them, uint8 (n, 3, S, S), and their names."""
    images = [next_readable(source, i)[:2] for i in evenly_spaced(source, count)]
    return torch.stack([transform.crop(image) for _, image in images]), [source.item_name(i) for i, _ in images]


def evenly_spaced(images: Sized, count: int) -> list[int]:
    """Return the positions of ``count`` images, evenly spaced and not at the ends; all if there are no more."""
    if count >= len(images):
        return list(range(len(images)))
    return list(dict.fromkeys(torch.linspace(0, len(images) - 1, count + 2)[1:-1].round().int().tolist()))


def mean_maps(encoder: Backbone, x: Tensor) -> Tensor:
    """Compute a map of each image (n, 3, S, S), normalised: (n, h, w).

    For a ViT that is the last block's attention, mean over heads; for other networks Grad-CAM of the embedding.
    """
    x = x.to(next(encoder.parameters()).device)
    with torch.no_grad(), uncompiled():
        try:
            return (attention if encoder.is_vit else own_grad_cam)(encoder, x).mean(1).float().cpu()
        except SpecError:  # a network without these maps
            return activation(encoder, x).mean(1).float().cpu()


def shrink(images: Tensor) -> Tensor:
    """Shrink images uint8 (n, 3, S, S) to at most ``MAX_SIDE`` px."""
    if images.shape[-1] <= MAX_SIDE:
        return images
    return F.interpolate(images, (MAX_SIDE, MAX_SIDE), mode="bilinear", antialias=True)


def write_maps(path: Path, history: MapHistory) -> None:
    """Write ``history`` to a safetensors file. Raises MachineError if the disk refuses."""
    tensors = {"images": history.images} | {f"step-{at:09d}": maps for at, maps in history.maps.items()}
    write_atomically(path, serialize(tensors, {"names": json.dumps(history.names)}))


def read_maps(path: Path) -> MapHistory | None:
    """Read the maps in ``path``; return None if the file is missing or damaged."""
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
    return MapHistory(images, names, maps) if whole and all(m.ndim == 3 for m in maps.values()) else None
