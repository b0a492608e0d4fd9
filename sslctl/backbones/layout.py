"""How a timm network that is not a plain ViT lays out its features, established by running it on the meta device."""

from __future__ import annotations

import copy
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from ..errors import SpecError

FAILURES = (RuntimeError, ValueError, AssertionError, NotImplementedError)  # of a network on a size it does not take
Order = Literal["NCHW", "NHWC", "tokens", "unknown"]


class Layout(NamedTuple):
    """Width of the pooled feature, and the order of the axes of what comes before pooling.

    ``NCHW`` (ResNet, ConvNeXt), ``NHWC`` (Swin, MambaOut), or ``tokens`` (B, N, C): ``prefix`` of them, then one for
    each ``patch`` x ``patch`` px. A network of ``unknown`` order has a pooled feature and no patches.
    """

    dim: int
    order: Order
    prefix: int = 0
    patch: int = 0

    def split(self, out: Tensor, pooled: Tensor, x: Tensor) -> tuple[Tensor, Tensor, tuple[int, int]]:
        """Return patches (B, N, D'), prefix (B, R, D') and grid of ``out``, the features of images ``x``.

        Raises SpecError where ``out`` does not have one token for each patch of the images.
        """
        if self.order == "unknown":
            return pooled[:, None][:, :0], pooled[:, None][:, :0], (0, 0)
        if self.order == "tokens":
            grid = (x.shape[-2] // self.patch, x.shape[-1] // self.patch)
            if out.shape[1] != self.prefix + grid[0] * grid[1]:
                raise SpecError(
                    f"views of {x.shape[-2]}x{x.shape[-1]} px: the backbone gives {out.shape[1]} tokens, "
                    f"not {self.prefix} + {grid[0]} x {grid[1]}",
                    f"take views of a multiple of {self.patch} px",
                )
            return out[:, self.prefix :], out[:, : self.prefix], grid
        if self.order == "NCHW":
            grid, patches = (out.shape[2], out.shape[3]), out.flatten(2).transpose(1, 2)
        else:
            grid, patches = (out.shape[1], out.shape[2]), out.flatten(1, 2)
        return patches, patches[:, :0], grid


def find_layout(net: Any, image_size: int) -> Layout:
    """Return the layout of ``net``'s features; nothing is computed, so no statistics move.

    timm states how wide they are (``num_features``). Where there are as many places to a side as channels, a pass of
    another size tells which is which. Raises SpecError for a net that does not take ``image_size`` px or does not give
    one vector per image.
    """
    probe, name = copy.deepcopy(net).to("meta").eval(), type(net).__name__
    try:
        shape, pooled = _shapes(probe, image_size)
    except FAILURES as e:
        reason = (str(e).splitlines() or [type(e).__name__])[0]
        raise SpecError(f"backbone: {name} fails on {image_size} px: {reason}", "use larger views") from e
    if pooled is None or len(pooled) != 2:
        raise not_an_encoder(name, "it does not give one vector per image")
    dim, width = pooled[1], int(net.num_features)
    if shape is not None and len(shape) == 4:
        axes = [axis for axis in (1, 3) if shape[axis] == width]
        if len(axes) == 2:
            larger = _shapes(probe, 2 * image_size)[0]
            axes = [axis for axis in axes if larger is not None and larger[axis] == width]
        if axes:
            return Layout(dim, "NCHW" if axes[0] == 1 else "NHWC")
    if shape is not None and len(shape) == 3 and shape[2] == width:
        prefix = int(getattr(net, "num_prefix_tokens", 0))
        side = round(max(1, shape[1] - prefix) ** 0.5)
        if side * side == shape[1] - prefix and image_size % side == 0:
            return Layout(dim, "tokens", prefix, image_size // side)
    return Layout(dim, "unknown")


def find_stride(net: Any, layout: Layout) -> int | None:
    """Return the pixels of the image, each way, for one place of the map; None where that depends on the image."""
    if layout.order == "tokens":
        return layout.patch
    probe = copy.deepcopy(net).to("meta").eval()
    rows = []
    for size in (256, 512):  # multiples of every stride
        shape = _shapes(probe, size)[0]
        rows.append(0 if shape is None else shape[2 if layout.order == "NCHW" else 1])
    return 256 // rows[0] if layout.order != "unknown" and 0 < rows[0] < rows[1] else None


def _shapes(probe: nn.Module, size: int) -> tuple[torch.Size | None, torch.Size | None]:
    """Return the shapes of the features of an image of ``size`` px, and of the pooled ones; None for no tensor."""
    features: Any = probe.forward_features(torch.empty(1, 3, size, size, device="meta"))  # type: ignore[operator]
    pooled: Any = probe.forward_head(features)  # type: ignore[operator]
    return tuple(x.shape if isinstance(x, Tensor) else None for x in (features, pooled))  # type: ignore[return-value]


def not_an_encoder(arch: str, reason: str) -> SpecError:
    return SpecError(
        f"backbone.arch '{arch}' cannot be used: {reason}", "take a ResNet, ConvNeXt, RegNet or ViT of timm"
    )
