"""What stands for a backbone in tests of objectives: any small network that gives one vector an image."""

from __future__ import annotations

from torch import Tensor, nn

from sslctl.backbones import Backbone, Features, build_backbone
from sslctl.spec.schema import BackboneSpec


class StubBackbone(nn.Module):
    """A network (B, ...) -> (B, D), in ``pool``, that is called as a backbone is and has no patches."""

    is_vit = False
    patch = 0

    def pool(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Features:
        out = self.pool(x)
        return Features(out, out[:, None][:, :0], out[:, None][:, :0], (0, 0))


class Flat(StubBackbone):
    """A backbone that gives its input, which is already a vector."""

    def pool(self, x: Tensor) -> Tensor:
        return x


def tiny_vit(size: int = 24) -> Backbone:
    """A real ViT of one block, width 8, patches of 4 px, for methods that need one."""
    args = {"patch_size": 4, "embed_dim": 8, "depth": 1, "num_heads": 2}
    return build_backbone(BackboneSpec(arch="vit_tiny_patch16_224", args=args), size)
