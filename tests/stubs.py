"""What stands for a backbone in tests of objectives: any small network that gives one vector an image."""

from __future__ import annotations

from torch import Tensor, nn

from sslctl.backbones import Features


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
