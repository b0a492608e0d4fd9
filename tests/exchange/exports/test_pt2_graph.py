"""The file of torch.export: loaded by torch alone, it gives our features."""

from __future__ import annotations

from pathlib import Path

import torch

from sslctl.exchange.exports.formats import Order
from sslctl.exchange.exports.pt2_graph import write

from .encoders import encoder


def test_torch_alone_gives_our_features_at_every_size(tmp_path: Path) -> None:
    ours, path = encoder("resnet", 64), tmp_path / "net.pt2"
    written = write(Order(ours, path, "net.pt2"))
    net = torch.export.load(path).module()
    assert len(written.sizes) == 2 and "torch.export.load('net.pt2')" in written.code
    for size in written.sizes:
        x = torch.randn(3, 3, *size)
        with torch.no_grad():
            torch.testing.assert_close(net(x), ours.backbone(x).pooled, rtol=1e-4, atol=1e-5)
