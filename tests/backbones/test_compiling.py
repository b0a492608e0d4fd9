"""Where networks are compiled by themselves, and that a compiled one gives the same features and can be watched."""

from __future__ import annotations

import importlib.util
import shutil

import pytest
import torch

from sslctl.backbones import Features, attention
from sslctl.backbones.compiling import choose_compile, compile_backbones, uncompiled

from .nets import resnet, vit

CUDA = torch.device("cuda")


def test_networks_are_compiled_where_it_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, many = torch.device("cpu"), 10**6
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/cc")
    assert choose_compile(None, CUDA, many) is (importlib.util.find_spec("triton") is not None)
    assert not choose_compile(None, CUDA, 100)
    assert not choose_compile(None, cpu, many)
    assert choose_compile("graphs", cpu, 1) == "graphs"
    assert choose_compile(False, CUDA, many) is False
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert not choose_compile(None, CUDA, many), "without a C compiler Triton's code has no launcher"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch's compiler for CPUs needs one for C++")
@pytest.mark.parametrize("kind", ["cnn", "vit", "rotary"])
def test_a_compiled_backbone_gives_the_same_features_and_gradients(kind: str) -> None:
    torch.manual_seed(0)
    net = (
        resnet(32)
        if kind == "cnn"
        else vit(arch="vit_small_patch16_dinov3" if kind == "rotary" else "vit_tiny_patch16_224")
    )
    x, found = torch.randn(2, 3, 32, 32), {}
    for compiled in (False, True):
        if compiled:
            compile_backbones(net)
        net.zero_grad()
        features = net.eval()(x)
        assert isinstance(features, Features) and features.map.shape[2:] == features.grid
        (features.pooled.square().sum() + features.patches.square().sum()).backward()
        found[compiled] = (features.pooled, features.patches, *(p.grad for p in net.parameters()))
    for ours, plain in zip(found[True], found[False], strict=True):
        assert (ours is None) == (plain is None)
        if ours is not None and plain is not None:
            torch.testing.assert_close(ours, plain, rtol=1e-3, atol=1e-4)
    seen = []
    net.register_forward_hook(lambda *_: seen.append(True))
    with uncompiled(), torch.no_grad():
        net(x)
        if kind != "cnn":
            assert attention(net, x).shape == (2, 2, 4, 4)
    assert seen
