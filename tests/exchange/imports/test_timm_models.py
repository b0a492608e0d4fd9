"""Models of timm by name: its own weights, or random ones that say so."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch

from sslctl.errors import MachineError
from sslctl.exchange.open_encoder import open_encoder
from sslctl.runs.meta import ImageSpec


def test_random_weights_of_a_name_are_said_loudly_and_are_the_same_each_time() -> None:
    state = torch.random.get_rng_state()
    first, second = open_encoder("random:resnet18"), open_encoder(Path("random:resnet18"))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert "RANDOM" in first.notes[0]
    assert first.meta.sha256 == second.meta.sha256
    assert first.meta.image == ImageSpec(size=224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    assert not first.backbone.training and not any(p.requires_grad for p in first.backbone.parameters())


def test_pretrained_weights_of_a_name_are_timms_and_never_random_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    create, asked = timm.create_model, []

    def fetched(name: str, pretrained: bool = False, **more: object) -> torch.nn.Module:
        if not pretrained:
            return create(name, **more)
        asked.append(name)
        torch.manual_seed(7)
        return create(name.partition(".")[0], **more)

    monkeypatch.setattr(timm, "create_model", fetched)
    found = open_encoder("timm:resnet18.tv_in1k")
    assert asked == ["resnet18.tv_in1k"] and not found.notes
    torch.manual_seed(7)
    theirs = create("resnet18", num_classes=0).eval()
    x = torch.randn(2, 3, 64, 64)
    assert torch.equal(found.backbone(x).pooled, theirs(x))

    def unreachable(name: str, pretrained: bool = False, **more: object) -> torch.nn.Module:
        if pretrained:
            raise OSError("no route to the hub\nand a long story")
        return create(name, **more)

    monkeypatch.setattr(timm, "create_model", unreachable)
    with pytest.raises(MachineError, match=r"timm:resnet18: its weights cannot be fetched: no route to the hub$") as e:
        open_encoder("timm:resnet18")
    assert "random:resnet18" in e.value.hint
