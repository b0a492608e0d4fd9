"""DINOv3 and its kin in the names of Facebook, Hugging Face and timm: the features of whoever wrote the file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from sslctl.errors import CheckpointError
from sslctl.exchange.imports import formulas
from sslctl.exchange.imports.parity import write_import
from sslctl.exchange.imports.recognise import ImportOptions, import_file
from sslctl.exchange.open_encoder import import_any, open_encoder

from .files import saved

State = dict[str, Tensor]
TINY = {"embed_dim": 32, "depth": 2, "num_heads": 2, "patch_size": 8}


def net(arch: str = "vit_small_patch16_dinov3_qkvb", **args: object) -> nn.Module:
    """timm's own network, with weights that make every part of it show."""
    torch.manual_seed(7)
    made = timm.create_model(arch, num_classes=0, img_size=32, **{"global_pool": "token"} | TINY | args)
    with torch.no_grad():
        for p in made.parameters():
            p.normal_(std=0.3)
    return made.eval()


def facebook(state: State, heads: int = 2, base: float = 100.0, gated: bool = False) -> State:
    """timm's names as facebookresearch/dinov3 has them, with the buffers that lie in its files."""
    out: State = {"mask_token": torch.zeros(1, 32)}
    for name, value in state.items():
        name = name.replace("reg_token", "storage_tokens").replace("fc1_g", "w1").replace("fc1_x", "w2")
        name = re.sub(r"\.gamma_(\d)", r".ls\1.gamma", name.replace("fc2", "w3") if gated else name)
        if name.endswith("q_bias"):
            v = state[name.replace("q_bias", "v_bias")]
            out[name.replace("q_bias", "qkv.bias")] = torch.cat([value, torch.full_like(value, 5.0), v])
            mask = torch.cat([torch.ones(32), torch.full((32,), 0.0), torch.ones(32)])
            out[name.replace("q_bias", "qkv.bias_mask")] = mask
        elif not name.endswith("v_bias"):
            out[name] = value
    n = 32 // heads // 4
    out["rope_embed.periods"] = base ** (torch.arange(n) / n)
    return out


@pytest.mark.parametrize("gated", [False, True])
def test_a_file_of_facebooks(gated: bool, tmp_path: Path) -> None:
    theirs = net(**({"swiglu_mlp": True, "swiglu_align_to": 8} if gated else {}))
    path = saved(facebook(theirs.state_dict(), gated=gated), tmp_path / "dinov3.pth")
    encoder, extracted = import_file(path)
    assert (extracted.layout.name, encoder.spec.method.name, encoder.backbone.heads) == ("dinov3", "dinov3", 2)
    assert extracted.left_over.keys() == {"mask_token"} and not encoder.notes
    for size in ((32, 32), (48, 24)):
        x = torch.randn(2, 3, *size)
        with torch.no_grad():
            torch.testing.assert_close(encoder.backbone(x).pooled, theirs(x), rtol=1e-5, atol=1e-5)
    report = write_import(encoder, extracted, tmp_path / "out.safetensors")
    assert report["against"].endswith("the file's own tensors") and report["relative"] < 1e-5


def test_its_periods_say_base_and_heads_and_may_be_rounded(tmp_path: Path) -> None:
    theirs = net(num_heads=1, rope_temperature=10.0)
    path = saved(facebook(theirs.state_dict(), heads=1, base=10.0), tmp_path / "ten.pth")
    encoder, _ = import_file(path)
    assert encoder.spec.backbone.args["rope_temperature"] == pytest.approx(10.0) and encoder.backbone.heads == 1
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(encoder.backbone(x).pooled, theirs(x), rtol=1e-5, atol=1e-5)
    state = facebook(net().state_dict())
    state["rope_embed.periods"] = state["rope_embed.periods"].bfloat16()
    encoder, _ = import_file(saved(state, tmp_path / "rounded.pth"))
    assert "rope_temperature" not in encoder.spec.backbone.args and "to bfloat16" in encoder.notes[0]
    state["rope_embed.periods"] = torch.tensor([1.0, 2.0, 3.0, 4.0])
    with pytest.raises(CheckpointError, match="not powers of a base"):
        import_file(saved(state, tmp_path / "other.pth"))


def test_keys_with_a_bias_of_their_own_keep_it(tmp_path: Path) -> None:
    theirs = net(attn_type="rope")
    path = saved(facebook(theirs.state_dict()), tmp_path / "bias.pth")
    encoder, _ = import_file(path)
    x = torch.randn(2, 3, 32, 48)
    with torch.no_grad():
        ours = encoder.backbone(x).pooled
        torch.testing.assert_close(ours, theirs(x), rtol=1e-5, atol=1e-5)
        state = torch.load(path, weights_only=True)
        torch.testing.assert_close(ours, formulas.rotary_vit(state, x, 2), rtol=1e-4, atol=1e-4)


def test_a_file_in_timms_names(tmp_path: Path) -> None:
    theirs, path = net("vit_small_patch16_dinov3"), tmp_path / "model.safetensors"
    save_file(theirs.state_dict(), path)
    encoder, extracted = import_file(path, ImportOptions(heads=2))
    assert extracted.layout.name == "timm_dinov3" and not extracted.left_over
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(encoder.backbone(x).pooled, theirs(x), rtol=1e-5, atol=1e-5)


def test_an_eva_by_its_name(tmp_path: Path) -> None:
    theirs, path = net("eva02_tiny_patch14_224", global_pool="avg"), tmp_path / "eva.safetensors"
    save_file(theirs.state_dict(), path)
    encoder, extracted = import_file(path, ImportOptions(arch="eva02_tiny_patch14_224", args=TINY))
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(encoder.backbone(x).pooled, theirs(x), rtol=1e-5, atol=1e-5)
    assert write_import(encoder, extracted, tmp_path / "out.safetensors")["relative"] < 1e-5


@pytest.mark.parametrize("gated", [False, True])
def test_a_folder_of_hugging_faces(gated: bool, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    more: dict[str, Any] = {"use_gated_mlp": True, "hidden_act": "silu"} if gated else {}
    config = transformers.DINOv3ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48, image_size=32, patch_size=8,
        num_register_tokens=4, **more,
    )  # fmt: skip
    torch.manual_seed(0)
    theirs = transformers.DINOv3ViTModel(config).eval()
    with torch.no_grad():
        for p in theirs.parameters():
            p.normal_(std=0.3)
    theirs.save_pretrained(tmp_path / "hub")
    encoder, extracted = import_any(tmp_path / "hub")
    assert extracted.naming.title == "Hugging Face's DINOv3"
    assert torch.equal(open_encoder(tmp_path / "hub").backbone.net.reg_token, theirs.embeddings.register_tokens)
    for size in ((32, 32), (24, 48)):
        x = torch.randn(2, 3, *size)
        with torch.no_grad():
            ours, theirs_ = encoder.backbone(x), theirs(x)
            torch.testing.assert_close(ours.pooled, theirs_.pooler_output, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(ours.patches, theirs_.last_hidden_state[:, 5:], rtol=1e-5, atol=1e-5)
    assert write_import(encoder, extracted, tmp_path / "out.safetensors")["against"].startswith("transformers")
