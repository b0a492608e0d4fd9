"""An encoder as one traced graph of plain operators: any batch size, and any image size where the net takes it."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch
from timm.layers import Conv2dSame
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from ...backbones import Backbone
from ...backbones.backbone import VIT_EXAMPLE
from ...errors import SpecError
from ...runs.meta import ImageSpec
from .formats import Order, two_sizes

OUTPUTS = ("pooled", "cls", "patches")


def check_outputs(backbone: Backbone, wanted: str) -> tuple[str, ...]:
    """Return the names that ``wanted`` stands for: one of OUTPUTS, or ``all`` that this net has.

    Raises SpecError for any other.
    """
    lacks = {"cls": not backbone.has_class_token, "patches": not backbone.has_map}
    has = tuple(name for name in OUTPUTS if not lacks.get(name))
    if wanted == "all":
        return has
    if wanted not in has:
        lack = "class token" if wanted == "cls" else "map of features"
        reason = "no such output" if wanted not in OUTPUTS else f"{backbone.family} has no {lack}"
        raise SpecError(f"--features {wanted}: {reason}", f"one of {', '.join(has)}, all; cls {VIT_EXAMPLE}")
    return (wanted,)


def outputs(backbone: Backbone, x: Tensor, names: tuple[str, ...]) -> dict[str, Tensor]:
    """Return ``names`` of OUTPUTS for images x (B, 3, H, W), from one pass.

    pooled (B, dim), the encoder's feature; cls (B, D), the class token after the final norm; patches
    (B, D, H / stride, W / stride), the last map.
    """
    features = backbone(x)
    found = {"pooled": lambda: features.pooled, "cls": lambda: features.prefix[:, 0], "patches": lambda: features.map}
    return {name: found[name]() for name in names}


class Shipped(nn.Module):
    """What is traced: the encoder, the outputs asked for, and with ``raw`` the arithmetic on pixels before it.

    float32 (B, 3, H, W), normalised; with ``raw`` uint8 (B, H, W, 3), RGB as decoders give it, of the right size.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: Backbone, names: tuple[str, ...], raw: bool, image: ImageSpec) -> None:
        super().__init__()
        self.backbone = backbone
        self.names = names
        self.raw = raw
        for key in ("mean", "std"):
            self.register_buffer(key, torch.tensor(getattr(image, key))[:, None, None] * 255)

    def forward(self, images: Tensor) -> Tensor | dict[str, Tensor]:
        if self.raw:
            images = (images.permute(0, 3, 1, 2).float() - self.mean) / self.std
        found = outputs(self.backbone, images, self.names)
        return found if len(found) > 1 else found[self.names[0]]


def trace(order: Order) -> tuple[ExportedProgram, tuple[str, ...], list[tuple[int, int]]]:
    """The graph, the names of its outputs, and two sizes (H, W) that it takes (one where it takes no other).

    Raises SpecError for outputs that the net does not have, and for a net that cannot be traced.
    """
    backbone, image = order.encoder.backbone, order.encoder.meta.image
    names = check_outputs(backbone, order.features)
    # TensorFlow's padding depends on the size, and a tracer that follows it does not come back.
    fixed = backbone.is_vit or any(isinstance(module, Conv2dSame) for module in backbone.modules())
    sizes = two_sizes(order.encoder, fixed)
    net = Shipped(copy.deepcopy(backbone), names, order.preprocess, image).eval().requires_grad_(False)
    for tried in (sizes, sizes[:1]) if len(sizes) > 1 else (sizes,):
        try:
            return _traced(net, order, tried), names, tried
        except Exception as e:  # whatever in the net the tracer cannot follow, at first because sizes are open
            reason = next(iter(str(e).strip().splitlines()), type(e).__name__)
    raise SpecError(f"{backbone.family} cannot be traced: {reason}", "--format timm")


def _traced(net: nn.Module, order: Order, sizes: list[tuple[int, int]]) -> ExportedProgram:
    # No two dimensions of the example are equal where they are open: equal ones could be taken for the same.
    h, w = sizes[-1]
    example = torch.zeros(2, h, w, 3, dtype=torch.uint8) if order.preprocess else torch.zeros(2, 3, h, w)
    dynamic: dict[int, Any] = {0: Dim("batch")}
    if len(sizes) > 1:
        dynamic |= dict.fromkeys(sides(order), Dim.DYNAMIC)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.export.export(net, (example,), dynamic_shapes={"images": dynamic})


def sides(order: Order) -> tuple[int, int]:
    """Which dimensions of the input are height and width."""
    return (1, 2) if order.preprocess else (2, 3)


def says(order: Order, names: tuple[str, ...], sizes: list[tuple[int, int]]) -> tuple[str, list[str]]:
    """What goes in and what comes out, for people."""
    backbone, (h, w) = order.encoder.backbone, sizes[0]
    side = f"{h}, {w}" if len(sizes) == 1 else "H, W"
    takes = f"uint8 (B, {side}, 3), RGB" if order.preprocess else f"float32 (B, 3, {side}), normalised"
    places = f"{h // backbone.patch}, {w // backbone.patch}" if backbone.is_vit else "h, w"
    gives = {"pooled": f"(B, {backbone.dim})", "cls": "(B, D)", "patches": f"(B, D, {places})"}
    return takes, [f"{name} {gives[name]}" for name in names]
