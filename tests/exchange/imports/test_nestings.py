"""The same encoder in the nesting of every tool is the same encoder; names of other libraries become timm's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from sslctl.errors import CheckpointError, SpecError
from sslctl.exchange.imports import formulas as formulas
from sslctl.exchange.imports.container import read_foreign
from sslctl.exchange.imports.recognise import ImportOptions, import_file
from sslctl.exchange.open_encoder import open_encoder

from .files import saved

State = dict[str, Tensor]


LIGHTNING = {"pytorch-lightning_version": "2.5", "epoch": 1, "global_step": 7}


@pytest.fixture(scope="module")
def net() -> nn.Module:
    torch.manual_seed(3)
    made = torchvision.models.ResNet(BasicBlock, [1, 1, 1, 1], num_classes=10)
    made(torch.randn(8, 3, 64, 64))  # statistics of its own
    made.fc = nn.Identity()
    return made.eval()


@pytest.fixture(scope="module")
def vit() -> nn.Module:
    torch.manual_seed(4)
    return timm.create_model(
        "vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=4, num_classes=0
    ).eval()


def under(prefix: str, state: State, shift: float = 0.0) -> State:
    return {prefix + k: v + shift if v.is_floating_point() else v for k, v in state.items()}


HEAD = {"weight": torch.ones(10, 512), "bias": torch.ones(10)}


B = "backbone."


RESNET_FILES = {
    "vissl": lambda s: {"classy_state_dict": {"base_model": {"model": {
        "trunk": under("_feature_blocks.", s), "heads": under("0.clf.0.", HEAD)}}}, "phase_idx": 3, "loss": {}},
    "vissl_converted": lambda s: {"model_state_dict": under("_feature_blocks.", s)},
    "lightly": lambda s: LIGHTNING | {"state_dict": under(B, s) | under("projection_head.layers.0.", HEAD)},
    "lightly_dino": lambda s: LIGHTNING | {
        "state_dict": under(B, s) | under("student_backbone.", s, 0.1) | under("projection_head.last_layer.", HEAD)},
    "lightly_dinov2": lambda s: LIGHTNING | {
        "state_dict": under("teacher_backbone.", s) | under("student_backbone.", s, 0.1)},
    "solo": lambda s: LIGHTNING | {"state_dict": under(B, s) | under("momentum_backbone.", s, 0.1)
                                   | under("classifier.", HEAD) | {"queue": torch.ones(2, 2)}},
    "byol_learner": lambda s: under("online_encoder.net.", s) | under("target_encoder.net.", s, 0.1)
    | under("net.", s) | under("online_predictor.net.0.", HEAD),
    "student_teacher": lambda s: {"student": under("module.backbone.", s, 0.1), "teacher": under(B, s)},
    "dinov2_teacher": lambda s: {"teacher": under(B, s) | under("dino_head.", HEAD)},
    "ibot_full": lambda s: {"student": under("module.backbone.", s, 0.1), "teacher": under("module.backbone.", s),
                            "ibot_loss": {"center": torch.zeros(1)}},
    "moco_v2": lambda s: under("encoder_q.", s) | under("encoder_k.", s, 0.1) | under("encoder_q.fc.2.", HEAD),
    "torchvision": lambda s: under("_orig_mod.module.", s | under("fc.", HEAD)),
    "other": lambda s: {"net": under("trunk.", s), "extra": torch.ones(2)},
}  # fmt: skip


@pytest.mark.parametrize("name", RESNET_FILES)
def test_a_resnet_is_found_in_every_nesting(name: str, net: nn.Module, tmp_path: Path) -> None:
    encoder, extracted = import_file(saved(RESNET_FILES[name](net.state_dict()), tmp_path / "file.ckpt"))
    assert extracted.layout.name == name
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(encoder.backbone(x).pooled, net(x), rtol=1e-5, atol=1e-5)
    everything = {name for group in extracted.left_over.values() for name in group} | {
        extracted.prefix + k for k in net.state_dict()
    }
    assert everything == set(read_foreign(tmp_path / "file.ckpt").tensors)


def test_the_other_branch_can_be_asked_for_where_there_is_one(net: nn.Module, tmp_path: Path) -> None:
    path = saved(RESNET_FILES["solo"](net.state_dict()), tmp_path / "solo.ckpt")
    teacher, extracted = import_file(path, ImportOptions(branch="momentum"))
    assert extracted.prefix == "state_dict.momentum_backbone."
    assert teacher.meta.imported.branch == "teacher (momentum)"
    assert torch.equal(teacher.backbone.net.conv1.weight, net.get_parameter("conv1.weight") + 0.1)
    single = saved(RESNET_FILES["torchvision"](net.state_dict()), tmp_path / "single.pth")
    with pytest.raises(SpecError, match="--branch momentum: torchvision ResNet files contain a single encoder"):
        import_file(single, ImportOptions(branch="momentum"))


def test_two_encoders_of_no_known_tool_are_not_guessed_between(net: nn.Module, tmp_path: Path) -> None:
    s = net.state_dict()
    with pytest.raises(CheckpointError, match="with encoders under 'left.', 'right.'"):
        import_file(saved({"left": s, "right": s}, tmp_path / "two.pth"))


def test_layers_that_another_branch_has_are_missed(net: nn.Module, tmp_path: Path) -> None:
    content = RESNET_FILES["student_teacher"](net.state_dict())
    for key in [key for key in content["teacher"] if "layer3.0.bn2" in key]:
        del content["teacher"][key]
    with pytest.raises(CheckpointError, match=r"missing: teacher\.backbone\.layer3\.0\.bn2\.weight, which exists"):
        import_file(saved(content, tmp_path / "file.pth"))


def test_children_of_a_resnet_in_a_row_are_named_by_their_places(net: nn.Module, tmp_path: Path) -> None:
    row = nn.Sequential(*list(net.children())[:-1])
    content = LIGHTNING | {"state_dict": under(B, row.state_dict()) | under("projection_head.layers.0.", HEAD)}
    encoder, extracted = import_file(saved(content, tmp_path / "file.ckpt"))
    assert extracted.layout.name == "lightly"
    plain, _ = import_file(saved(net.state_dict(), tmp_path / "plain.pth"))
    assert encoder.meta.sha256 == plain.meta.sha256


def test_old_files_without_batch_counts_and_halves_are_whole(net: nn.Module, tmp_path: Path) -> None:
    s = {k: v.half() for k, v in net.state_dict().items() if "num_batches" not in k}
    encoder, extracted = import_file(
        saved({"state_dict": under("module.encoder_q.", s | under("fc.", HEAD))}, tmp_path / "x")
    )
    assert extracted.layout.name == "moco_v1"
    assert encoder.backbone.net.conv1.weight.dtype == torch.float32
    assert torch.equal(encoder.backbone.net.conv1.weight, s["conv1.weight"].float())


@pytest.mark.parametrize(("size", "padding"), [(64, "same"), (65, "same"), (32, "solo")])
@torch.no_grad()
def test_other_paddings_follow_their_formula_and_change_the_features(
    size: int, padding: Any, net: nn.Module, tmp_path: Path
) -> None:
    s = dict(net.state_dict())
    if padding == "solo":
        s["conv1.weight"] = s["conv1.weight"][..., :3, :3].clone()
        path = saved(LIGHTNING | {"state_dict": under(B, s) | under("classifier.", HEAD)}, tmp_path / "file.ckpt")
        encoder, _ = import_file(path)
        assert encoder.backbone.stem == "small" and encoder.meta.image.size == 32
    else:
        encoder, _ = import_file(saved(s, tmp_path / "x.pth"), ImportOptions(layout="byol_converted"))
    x = torch.randn(2, 3, size, size)
    ours = encoder.backbone(x).pooled
    torch.testing.assert_close(ours, formulas.resnet(s, x, padding), rtol=1e-5, atol=1e-5)
    # At odd sizes both paddings are the same.
    assert torch.allclose(ours, formulas.resnet(s, x), atol=0.01) == bool(size % 2)


def torchvision_names(s: State) -> State:
    out = {}
    for name, value in s.items():
        for old, new in (
            ("cls_token", "class_token"), ("pos_embed", "encoder.pos_embedding"), ("patch_embed.proj", "conv_proj"),
            ("blocks.", "encoder.layers.encoder_layer_"), ("norm1", "ln_1"), ("norm2", "ln_2"),
            ("attn.qkv.", "self_attention.in_proj_"), ("attn.proj", "self_attention.out_proj"),
            ("mlp.fc1", "mlp.0"), ("mlp.fc2", "mlp.3"),
        ):  # fmt: skip
            name = name.replace(old, new)
        out["encoder.ln." + name[5:] if name.startswith("norm.") else name] = value
    return out


VIT_FILES = {
    "lightly": lambda s: LIGHTNING | {"state_dict": under("backbone.vit.", s) | under("projection_head.0.", HEAD)},
    "ibot_teacher": lambda s: {"state_dict": s | {"masked_embed": torch.zeros(1, 32)}},
    "dinov2_fsdp": lambda s: {"model": under("teacher.backbone.", chunked(s)) | under("student.backbone.", chunked(s))},
    "torchvision_vit": lambda s: torchvision_names(s) | under("heads.head.", HEAD),
    "timm_vit": lambda s: s | under("head.", HEAD),
}


def chunked(s: State) -> State:
    return {k.replace("blocks.0.", "blocks.0.0.").replace("blocks.1.", "blocks.1.1."): v for k, v in s.items()}


@pytest.mark.parametrize("name", VIT_FILES)
@torch.no_grad()
def test_a_vit_is_found_in_every_nesting(name: str, vit: nn.Module, tmp_path: Path) -> None:
    encoder, extracted = import_file(
        saved(VIT_FILES[name](vit.state_dict()), tmp_path / "file.pth"), ImportOptions(heads=4)
    )
    assert extracted.layout.name == name
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(encoder.backbone(x).pooled, vit(x), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_torchvisions_vit_gives_torchvisions_features(tmp_path: Path) -> None:
    torch.manual_seed(5)
    theirs = torchvision.models.VisionTransformer(32, 8, 2, 4, 32, 64, num_classes=3).eval()
    nn.init.normal_(theirs.class_token)
    encoder, extracted = import_file(saved(theirs.state_dict(), tmp_path / "vit.pth"), ImportOptions(heads=4))
    assert extracted.layout.name == "torchvision_vit"
    theirs.heads = nn.Identity()
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(encoder.backbone(x).pooled, theirs(x), rtol=1e-5, atol=1e-5)


def test_heads_show_in_no_shape_and_a_cut_vit_has_to_be_vouched_for(vit: nn.Module, tmp_path: Path) -> None:
    path = saved(vit.state_dict(), tmp_path / "vit.pth")
    assert "attention heads: 1 are assumed" in import_file(path)[0].notes[-1]
    odd = timm.create_model("vit_tiny_patch16_224", img_size=64, depth=11, num_classes=0)
    path = saved(odd.state_dict(), tmp_path / "odd.pth")
    with pytest.raises(
        CheckpointError, match="11 blocks of width 192, where such ViTs have 12: some may be missing"
    ) as e:
        import_file(path)
    assert "--depth 11" in e.value.hint
    assert import_file(path, ImportOptions(depth=11))[0].spec.backbone.args == {"depth": 11}
    with pytest.raises(CheckpointError, match="--depth 12: the file has 11 blocks"):
        import_file(path, ImportOptions(depth=12))


def test_a_net_whose_kind_no_shape_shows_is_read_by_its_name(tmp_path: Path) -> None:
    torch.manual_seed(6)
    theirs = timm.create_model("convnext_atto", num_classes=0).eval()
    path = tmp_path / "weights.safetensors"
    save_file(theirs.state_dict(), path)
    with pytest.raises(CheckpointError, match="no known encoder"):
        open_encoder(path)
    encoder, extracted = import_file(path, ImportOptions(arch="convnext_atto"))
    assert extracted.layout.name == "timm_named" and not extracted.left_over
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(encoder.backbone(x).pooled, theirs(x), rtol=1e-5, atol=1e-5)
