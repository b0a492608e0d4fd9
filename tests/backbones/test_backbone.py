"""Backbones: DINO's ViT to the last digits, any view size, stems, drop path, and clear refusals."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from timm.models import VisionTransformer
from torch import Tensor

from sslctl.backbones import Backbone, attention, build_backbone
from sslctl.errors import SpecError
from sslctl.profiling.estimate import estimate, noise_views
from sslctl.schedule import Step
from sslctl.spec.schema import BackboneSpec

from ..training import picture_folder, small_spec, training
from .nets import resnet, vit

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    return load_file(GOLDEN / "dino_vit.safetensors")


@pytest.fixture(scope="module")
def dino(golden: dict[str, Tensor]) -> Backbone:
    net = VisionTransformer(
        img_size=32, patch_size=8, embed_dim=16, depth=3, num_heads=2, mlp_ratio=2, num_classes=0, dynamic_img_size=True
    ).double()
    net.load_state_dict({k.removeprefix("state/"): v for k, v in golden.items() if k.startswith("state/")})
    return Backbone(net, 32, position="dino").eval()


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("size", ["native", "wide", "small"])  # 32x32, 48x40, 16x16
def test_features_attention_and_blocks_are_those_of_dino(dino: Backbone, golden: dict[str, Tensor], size: str) -> None:
    x = golden[f"{size}/x"]
    found = dino(x, blocks=2)
    close(found.pooled, golden[f"{size}/forward"])
    assert torch.equal(found.blocks[-1], torch.cat([found.prefix, found.patches], 1))
    for ours, theirs in zip(found.blocks, ("intermediate0", "intermediate1"), strict=True):
        close(ours, golden[f"{size}/{theirs}"])
    rows = golden[f"{size}/last_selfattention"][:, :, 0, 1:]
    close(attention(dino, x).flatten(2), rows)
    close(attention(dino, x, 2), attention(dino, x, -1))
    assert attention(dino, x).shape[2:] == (x.shape[2] // 8, x.shape[3] // 8)


def test_resizing_of_positions_of_timm_is_another_one(dino: Backbone, golden: dict[str, Tensor]) -> None:
    other = copy.deepcopy(dino)
    other.position = "timm"
    close(other(golden["native/x"]).pooled, golden["native/forward"])
    assert (other(golden["wide/x"]).pooled - golden["wide/forward"]).abs().max() > 1e-4


def test_positions_learn_through_their_resizing_and_a_copy_is_independent(
    dino: Backbone, golden: dict[str, Tensor]
) -> None:
    twin = copy.deepcopy(dino)
    twin(golden["wide/x"]).pooled.square().sum().backward()
    assert (twin.net.pos_embed.grad.abs().sum(-1) > 0).all()
    with torch.no_grad():
        twin.net.pos_embed.zero_()
    close(dino(golden["wide/x"]).pooled, golden["wide/forward"])


def test_a_vit_takes_any_multiple_of_its_patch_and_names_the_nearest() -> None:
    net = vit(64)
    assert (net.is_vit, net.dim, net.patch, net.stem) == (True, 16, 8, "imagenet")
    assert net(torch.randn(2, 3, 64, 64)).pooled.shape == net(torch.randn(2, 3, 24, 40)).pooled.shape == (2, 16)
    with pytest.raises(SpecError, match="50 is not a multiple of the patch size 8") as e:
        net(torch.randn(2, 3, 64, 50))
    assert "48 or 56" in e.value.hint
    with pytest.raises(SpecError, match="100 is not a multiple"):
        vit(100)
    with pytest.raises(SpecError, match="225 is not a multiple of the patch size 16") as e:
        build_backbone(BackboneSpec(arch="vit_tiny_patch16_224"), 225)
    assert "224 or 240" in e.value.hint


def test_state_names_are_those_of_timm_and_the_norm_has_dinos_epsilon() -> None:
    net = vit()
    assert {
        "net.cls_token",
        "net.pos_embed",
        "net.patch_embed.proj.weight",
        "net.blocks.1.attn.qkv.bias",
    } <= net.state_dict().keys()
    assert all(key.startswith("net.") for key in net.state_dict())
    assert {m.eps for m in net.modules() if "LayerNorm" in type(m).__name__} == {1e-6}
    assert net.net.pos_embed.shape == (1, 1 + 4 * 4, 16)


def test_a_vit_gives_its_class_token_and_without_one_the_mean_of_its_patches() -> None:
    x = torch.randn(2, 3, 32, 32)
    net = vit().eval()
    torch.testing.assert_close(net(x).pooled, net.net.forward_features(x)[:, 0])
    net = vit(arch="vit_base_patch16_gap_224").eval()
    assert not net.net.has_class_token
    torch.testing.assert_close(net(x).pooled, net.net.forward_features(x).mean(1))


def test_attention_is_refused_where_there_is_none() -> None:
    with pytest.raises(SpecError, match="need a ViT, this is a ResNet"):
        attention(resnet(32), torch.randn(1, 3, 32, 32))
    with pytest.raises(SpecError, match="block 5: the backbone has 2"):
        attention(vit(), torch.randn(1, 3, 32, 32), 5)


def test_attention_of_registers_and_of_an_early_block() -> None:
    net = vit(args={"reg_tokens": 3}).eval()
    x = torch.randn(2, 3, 32, 48)
    block = net.net.blocks[0]
    q, k, _ = block.attn.qkv(block.norm1(net.net._pos_embed(net.net.patch_embed(x)))).chunk(3, -1)  # 2 heads of width 8
    for head in range(2):
        part = slice(8 * head, 8 * head + 8)
        row = (q[:, :1, part] @ k[..., part].transpose(1, 2) / 8**0.5).softmax(-1)[:, 0, 4:]
        torch.testing.assert_close(attention(net, x, 0)[:, head].flatten(1), row)


def test_attention_is_the_same_function_fused_and_plain() -> None:
    net = vit().eval()
    x = torch.randn(2, 3, 32, 32)
    with torch.autocast("cpu", torch.bfloat16):
        trained = net(x).pooled
        assert not net.net.blocks[0].attn.fused_attn
        with torch.no_grad():
            net(torch.randn(1, 3, 32, 8 * 65))  # 260 patches
            assert net.net.blocks[0].attn.fused_attn
            short = net(x).pooled
            assert not net.net.blocks[0].attn.fused_attn
    evaluated = net(x).pooled
    assert net.net.blocks[0].attn.fused_attn
    assert torch.equal(short, trained)
    torch.testing.assert_close(trained.float(), evaluated, rtol=0.05, atol=0.05)


def test_checkpointed_blocks_have_the_same_gradients_and_keep_less(tmp_path):
    found = {}
    for again in (False, True):
        user = small_spec(picture_folder(tmp_path / "pictures"), "dino", backbone={"grad_checkpointing": again})
        t = training(user)
        torch.manual_seed(0)
        views = noise_views(t, 8)
        torch.manual_seed(1)  # drop path
        t.method(views, Step(2, 10, 2)).loss.backward()
        found[again] = ([p.grad for p in t.method.student.backbone.parameters()], estimate(t).per_image)
    assert all(torch.equal(a, b) for a, b in zip(found[False][0], found[True][0], strict=True))
    assert found[True][1] < 0.8 * found[False][1]


def random_vit(arch: str = "vit_tiny_patch16_224", **args: object) -> Backbone:
    torch.manual_seed(0)
    return vit(arch=arch, args=args).double().eval()


def test_kept_patches_have_their_own_positions() -> None:
    """Every token of a block of its own: nothing mixes, so what is kept is as it is among all."""
    net, x = random_vit(depth=0, reg_tokens=2), torch.randn(2, 3, 32, 48, dtype=torch.float64)
    whole, keep = net(x), torch.tensor([[5, 0, 23], [7, 1, 2]])
    part = net(x, keep=keep)
    assert part.grid == whole.grid == (4, 6)
    for image in range(2):
        assert torch.equal(part.patches[image], whole.patches[image, keep[image]])
    assert torch.equal(part.prefix, whole.prefix)


def test_what_is_dropped_has_no_influence_and_order_none() -> None:
    net, x = random_vit(), torch.randn(2, 3, 32, 32, dtype=torch.float64)
    everything = torch.arange(16).expand(2, -1)
    close(net(x, keep=everything).patches, net(x).patches)
    keep = torch.tensor([[3, 9, 4], [0, 1, 15]])
    other = x.clone()
    other[0, :, :8, :24] = 1.0  # patches 0 to 2 of the first image
    other[1, :, 8:16] = 1.0  # patches 4 to 7 of the second
    close(net(other, keep=keep).pooled, net(x, keep=keep).pooled)
    close(net(x, keep=keep.flip(1)).patches.flip(1), net(x, keep=keep).patches)
    assert (net(x, keep=keep).pooled - net(x).pooled).abs().max() > 1e-3


def test_masked_patches_are_the_mask_token_with_positions() -> None:
    net, x = random_vit(), torch.randn(2, 3, 32, 32, dtype=torch.float64)
    mask = torch.zeros(2, 16, dtype=torch.bool)
    mask[0, 5], mask[1, 2:9] = True, True
    with pytest.raises(SpecError, match="without a mask token"):
        net(x, mask=mask)
    net.add_mask_token(std=0.5)
    assert net.mask_token is not None and net.state_dict()["mask_token"].shape == (1, 16)
    close(net(x, mask=torch.zeros_like(mask)).patches, net(x).patches)
    t = net.net.patch_embed(x).flatten(1, 2)
    t[0, 5], t[1, 2:9] = net.mask_token[0], net.mask_token[0]
    t = torch.cat([net.net.cls_token.expand(2, -1, -1), t], 1) + net.net.pos_embed
    close(net(x, mask=mask).patches, net.net.norm(net.net.blocks(t))[:, 1:])
    net(x, mask=mask).patches.sum().backward()
    assert net.mask_token.grad is not None and bool(net.mask_token.grad.any())


def test_the_encoder_of_mae_is_one_that_keeps_patches() -> None:
    """Encoder and decoder of facebookresearch/mae, models_mae.py: the authors' prediction (golden ``mae``)."""
    golden = load_file(GOLDEN / "mae.safetensors")
    state = {k.removeprefix("state/"): v for k, v in golden.items() if k.startswith("state/")}
    net = VisionTransformer(
        img_size=32, patch_size=8, embed_dim=16, depth=2, num_heads=2, mlp_ratio=2, num_classes=0, dynamic_img_size=True
    )
    backbone = Backbone(net, 32).double()
    fixed = net.pos_embed.detach().clone()
    backbone.fix_positions(columns_first=True)
    assert not torch.equal(fixed, net.pos_embed) and not net.pos_embed.requires_grad
    torch.testing.assert_close(net.pos_embed, state["pos_embed"], rtol=0, atol=1e-6)
    backbone.load_timm_state({name: state[name] for name in net.state_dict()})
    order = golden["noise"].argsort(1)
    kept = int((golden["mask"] == 0).sum(1)[0])
    found = backbone(golden["x"], keep=order[:, :kept])

    def embed(t: Tensor) -> Tensor:
        return torch.nn.functional.linear(t, state["decoder_embed.weight"], state["decoder_embed.bias"])

    decoder = VisionTransformer(
        img_size=32, patch_size=8, embed_dim=12, depth=1, num_heads=2, mlp_ratio=2, num_classes=0
    ).double()
    decoder.blocks.load_state_dict(
        {k.removeprefix("decoder_blocks."): v for k, v in state.items() if k.startswith("decoder_blocks.")}
    )
    dropped = state["mask_token"].expand(2, 16 - kept, -1)
    places = torch.cat([embed(found.patches), dropped], 1).gather(1, order.argsort(1)[..., None].expand(-1, -1, 12))
    t = decoder.blocks(torch.cat([embed(found.prefix), places], 1) + state["decoder_pos_embed"])
    t = torch.nn.functional.layer_norm(t, (12,), state["decoder_norm.weight"], state["decoder_norm.bias"], 1e-6)
    predicted = torch.nn.functional.linear(t[:, 1:], state["decoder_pred.weight"], state["decoder_pred.bias"])
    close(predicted, golden["pred"])


def test_a_net_that_is_not_a_vit_refuses_masks() -> None:
    net, x = resnet(32), torch.randn(1, 3, 32, 32)
    for wish in ({"mask": torch.ones(1, 16)}, {"keep": torch.ones(1, 16)}, {"blocks": 1}):
        with pytest.raises(SpecError, match="need a ViT, this is a ResNet"):
            net(x, **wish)
    with pytest.raises(SpecError, match="need a ViT"):
        net.add_mask_token()
