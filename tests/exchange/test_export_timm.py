"""Export for timm: the README's code, run in a fresh process, gives our features; else nothing is left behind."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file

from sslctl.backbones import build_backbone
from sslctl.checkpoint import LoadedEncoder
from sslctl.errors import CheckpointError, SpecError
from sslctl.exchange import export_timm as module
from sslctl.exchange.export_timm import export_timm
from sslctl.specfile import check_spec

TINY = {
    "resnet": {"arch": "resnet18", "args": {"channels": [4, 4, 8, 8], "layers": [1, 1, 1, 1]}},
    "vit": {"arch": "vit_tiny_patch16_224", "args": {"patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}},
}


def encoder(kind: str, size: int, **more: object) -> LoadedEncoder:
    spec = check_spec({"data": {"path": "photos"}, "backbone": TINY[kind] | more, "method": {"name": "swav"}})
    torch.manual_seed(5)
    backbone = build_backbone(spec.backbone, size)
    backbone.train()(3 * torch.randn(16, 3, size, size) + 1)  # statistics of its own
    meta = {
        "image": {"size": size, "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4]},
        "data": {"name": "photos", "fingerprint": "f" * 64, "images": 1234},
        "step": 777,
        "sha256": "a" * 64,
    }
    return LoadedEncoder(backbone.eval(), spec, meta, Path("last.safetensors"))


def code_in(readme: Path) -> str:
    blocks = re.findall(r"```python\n(.*?)```", readme.read_text(), re.DOTALL)
    assert len(blocks) == 1
    return str(blocks[0])


@pytest.mark.parametrize(("kind", "size", "more"), [("resnet", 64, {}), ("vit", 32, {"drop_path": 0.2})])
def test_timm_loads_the_folder_and_gives_our_features(
    kind: str, size: int, more: dict[str, object], tmp_path: Path
) -> None:
    ours = encoder(kind, size, **more)
    found = export_timm(ours, tmp_path / "deep" / "an export")
    assert found.difference <= 1e-6 and found.cosine > 0.999999 and not found.notes
    assert sorted(p.name for p in found.path.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    assert [p.name for p in found.path.parent.iterdir()] == ["an export"]
    assert code_in(found.path / "README.md") == found.load
    assert "timm.create_model('local-dir:an export', pretrained=True)" in found.load
    net = timm.create_model(f"local-dir:{found.path}", pretrained=True).eval()
    x = torch.randn(3, 3, size, size)
    torch.testing.assert_close(net(x), ours.backbone(x), rtol=0, atol=0)
    assert [list(net.pretrained_cfg[k]) for k in ("mean", "std")] == [[0.4, 0.5, 0.6], [0.2, 0.3, 0.4]]
    assert net.pretrained_cfg["crop_pct"] == (1.0 if size < 64 else 0.875)


def test_the_small_stem_comes_with_code_that_builds_it_and_never_loads_wrongly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = encoder("resnet", 32)
    assert ours.backbone.stem == "small"
    found = export_timm(ours, tmp_path / "small")
    assert found.difference <= 1e-6
    assert "cannot build the stem" in found.notes[0] and found.notes[0] in (found.path / "README.md").read_text()
    monkeypatch.chdir(tmp_path)
    scope: dict[str, Any] = {}
    exec(code_in(found.path / "README.md"), scope)
    x = torch.randn(3, 3, 32, 32)
    torch.testing.assert_close(scope["net"](x), ours.backbone(x), rtol=0, atol=0)
    with pytest.raises(RuntimeError, match="conv1"):
        timm.create_model(f"local-dir:{found.path}", pretrained=True)


def test_positions_of_dino_are_exported_with_a_warning() -> None:
    ours = encoder("vit", 48, position="dino").backbone
    assert "at 48 px only" in module._notes(ours)[0]
    assert module._sizes(ours) == [48] and module._sizes(encoder("vit", 48).backbone) == [48, 64]


def test_pooling_is_said_where_it_is_not_timms_own() -> None:
    assert "global_pool" not in module.model_args(encoder("vit", 32))
    other = module.model_args(encoder("vit", 32, arch="vit_base_patch16_siglip_224"))
    assert (other["global_pool"], other["fc_norm"]) == ("avg", False)


def test_config_is_that_of_timms_hub() -> None:
    config = json.loads(json.dumps(module.config(encoder("vit", 32, drop_path=0.2))))
    assert config["architecture"] == "vit_tiny_patch16_224"
    assert (config["num_classes"], config["num_features"]) == (0, 16)
    assert config["model_args"]["img_size"] == 32 and "num_classes" not in config["model_args"]
    assert "drop_path_rate" not in config["model_args"]
    assert config["pretrained_cfg"]["input_size"] == [3, 32, 32]


def test_an_export_that_differs_is_an_error_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = encoder("resnet", 64)
    args = "".join(f", {k}={v!r}" for k, v in ours.spec.backbone.args.items())
    code = f"import timm\nnet = timm.create_model('resnet18', num_classes=0{args}).eval()\n"  # random weights
    monkeypatch.setattr(module, "load_code", lambda encoder, folder: code)
    with pytest.raises(CheckpointError, match="features differ"):
        export_timm(ours, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_replaced_only_on_request_and_only_where_it_is_an_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "parity", lambda backbone, code, place: (0.0, 1.0))
    ours = encoder("resnet", 64)
    out = export_timm(ours, tmp_path / "out").path
    with pytest.raises(SpecError, match="already") as e:
        export_timm(ours, out)
    assert "--force" in e.value.hint
    before = load_file(out / "model.safetensors")["bn1.running_mean"]
    with torch.no_grad():
        ours.backbone.net.bn1.running_mean += 1
    export_timm(ours, out, force=True)
    torch.testing.assert_close(load_file(out / "model.safetensors")["bn1.running_mean"], before + 1)
    (out / "thesis.tex").write_text("dear")
    with pytest.raises(SpecError, match="no export"):
        export_timm(ours, out, force=True)
    assert (out / "thesis.tex").read_text() == "dear"
    (tmp_path / "empty").mkdir()
    assert (export_timm(ours, tmp_path / "empty").path / "config.json").exists()
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(SpecError, match="no export"):
        export_timm(ours, file, force=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "file", "out"]
