"""detectron2's names for a ResNet: one for each weight, and the way back on the card gives our features."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from sslctl.errors import SpecError
from sslctl.exchange.exports.detectron2_file import detectron2_state, write_detectron2
from sslctl.exchange.exports.formats import ExportJob

from .encoders import encoder


def test_names_are_those_of_detectron2s_own_converter() -> None:
    backbone = encoder("resnet18", 64).backbone
    state, names = backbone.net.state_dict(), detectron2_state(backbone)
    assert len(names) == len(state)
    for ours, theirs in {
        "conv1.weight": "stem.conv1.weight",
        "bn1.running_mean": "stem.conv1.norm.running_mean",
        "layer1.0.conv1.weight": "res2.0.conv1.weight",
        "layer4.1.bn2.bias": "res5.1.conv2.norm.bias",
        "layer2.0.downsample.0.weight": "res3.0.shortcut.weight",
        "layer2.0.downsample.1.weight": "res3.0.shortcut.norm.weight",
    }.items():
        assert torch.equal(names[theirs], state[ours])


def test_the_file_has_what_its_checkpointer_asks_for_and_the_card_leads_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = encoder("resnet18", 64)
    written = write_detectron2(ExportJob(ours, tmp_path / "net.pth", "net.pth"))
    content = torch.load(tmp_path / "net.pth", weights_only=True)
    assert (content["__author__"], content["matching_heuristics"]) == ("sslctl", True)
    assert "res5.1.conv2.weight" in content["model"]
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(written.code, names)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(names["encode"](x), ours.backbone(x).pooled, rtol=1e-5, atol=1e-6)  # type: ignore[operator]
    config = yaml.safe_load(written.remark.split("```yaml\n")[1].split("```")[0])["MODEL"]
    assert config["RESNETS"]["DEPTH"] == 18 and config["RESNETS"]["RES2_OUT_CHANNELS"] == 64
    assert config["PIXEL_MEAN"] == [102.0, 127.5, 153.0] and config["PIXEL_STD"] == [51.0, 76.5, 102.0]


@pytest.mark.parametrize(
    ("kind", "size", "message"), [("resnet18", 32, "small images"), ("resnet10", 64, "has no ResNet with")]
)
def test_networks_that_its_configuration_cannot_name_are_refused(
    kind: str, size: int, message: str, tmp_path: Path
) -> None:
    with pytest.raises(SpecError, match=message):
        write_detectron2(ExportJob(encoder(kind, size), tmp_path / "net.pth", "net.pth"))
    assert list(tmp_path.iterdir()) == []
