"""Attention of a ViT against the authors' code and the whole matrix; rollout; nets without [CLS]; feature maps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from timm.models import VisionTransformer
from timm.models.vision_transformer import ParallelScalingBlock, ResPostBlock
from torch import Tensor

from sslctl.backbones import Backbone, activation, attention, build_backbone, own_grad_cam, rollout
from sslctl.errors import SpecError
from sslctl.spec.schema import BackboneSpec

GOLDEN = Path(__file__).parents[1] / "golden"
TINY_VIT = {"embed_dim": 16, "depth": 3, "num_heads": 2, "patch_size": 8}


def vit(arch: str = "vit_tiny_patch16_224", **args: object) -> Backbone:
    torch.manual_seed(0)
    net = build_backbone(BackboneSpec(arch=arch, args=TINY_VIT | args), 32)
    with torch.no_grad():
        for block in net.net.blocks:
            block.attn.qkv.weight *= 20  # fresh weights look everywhere alike
    return net.eval().requires_grad_(False)


def whole(net: Backbone, x: Tensor) -> list[Tensor]:
    """The full attention matrices of all blocks, (B, heads, N, N), by timm's own pieces."""
    vit = net.net
    found, t = [], vit.norm_pre(vit._pos_embed(vit.patch_embed(x)))
    for block in vit.blocks:
        a, y = block.attn, block.norm1(t)
        q, k, _ = a.qkv(y).reshape(*y.shape[:2], 3, a.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        found.append((a.q_norm(q) * a.scale @ a.k_norm(k).transpose(2, 3)).softmax(-1))
        t = block(t)
    return found


@pytest.mark.parametrize("size", ["224x224", "288x128"])
def test_the_authors_attention_at_224_and_at_another_shape(size: str) -> None:
    """``get_last_selfattention`` of facebookresearch/dino (7c446df, vision_transformer.py) on the tiny golden ViT.

    It was run in float64 on the picture that ``drawn`` makes, normalised with ImageNet's mean and deviation.
    """
    weights, expected = load_file(GOLDEN / "dino_vit.safetensors"), load_file(GOLDEN / "dino_maps.safetensors")
    net = VisionTransformer(
        img_size=32, patch_size=8, embed_dim=16, depth=3, num_heads=2, mlp_ratio=2, num_classes=0, dynamic_img_size=True
    ).double()
    net.load_state_dict({k.removeprefix("state/"): v for k, v in weights.items() if k.startswith("state/")})
    height, width = map(int, size.split("x"))
    y, x, c = torch.meshgrid(torch.arange(height), torch.arange(width), torch.arange(3), indexing="ij")
    image = ((3 * y + 5 * x * (c + 1) + y * x // 7) % 256).permute(2, 0, 1).double() / 255
    mean, std = (torch.tensor(v).double().view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    found = attention(Backbone(net, 32, position="dino").eval(), ((image - mean) / std)[None])[0]
    torch.testing.assert_close(found, expected[f"{size}/attention"], rtol=1e-6, atol=0)


@pytest.mark.parametrize("args", [{}, {"reg_tokens": 3}, {"reg_tokens": 2, "no_embed_class": True, "qk_norm": True}])
def test_a_few_rows_are_those_of_the_whole_matrix(args: dict[str, object]) -> None:
    net, x = vit(**args), torch.randn(2, 3, 96, 104)  # more tokens than are looked from at a time
    prefix = net.net.num_prefix_tokens
    full = whole(net, x)
    for block in (0, 1, -1):
        expected = full[block][:, :, 0, prefix:].reshape(2, 2, 12, 13)
        torch.testing.assert_close(attention(net, x, block), expected)
    product = torch.eye(prefix + 156).expand(2, -1, -1)
    for a in full:  # Abnar & Zuidema 2020: with the identity for the residual, rows of sum one
        with_residual = a.mean(1) + torch.eye(prefix + 156)
        product = with_residual / with_residual.sum(-1, keepdim=True) @ product
    torch.testing.assert_close(rollout(net, x), product[:, 0, prefix:].reshape(2, 1, 12, 13))


def test_without_a_class_token_the_patches_that_are_pooled_look() -> None:
    net, x = vit("vit_base_patch16_gap_224"), torch.randn(2, 3, 32, 48)
    assert not net.net.has_class_token and net.net.num_prefix_tokens == 0
    torch.testing.assert_close(attention(net, x), whole(net, x)[-1].mean(2).reshape(2, 2, 4, 6))
    torch.testing.assert_close(rollout(net, x).sum((1, 2, 3)), torch.ones(2))


def test_attention_is_read_where_a_block_has_it_and_refused_where_it_is_not_plain() -> None:
    net, x = vit("vit_tiny_patch16_224", block_fn=ResPostBlock), torch.randn(1, 3, 32, 32)
    t = net.net._pos_embed(net.net.patch_embed(x))  # no norm before the attention
    q, k, _ = net.net.blocks[0].attn.qkv(t).reshape(1, 17, 3, 2, 8).permute(2, 0, 3, 1, 4)
    expected = (q[:, :, :1] @ k.transpose(2, 3) / 8**0.5).softmax(-1)[:, :, 0, 1:]
    torch.testing.assert_close(attention(net, x, 0).flatten(2), expected)
    torch.manual_seed(0)
    net = build_backbone(
        BackboneSpec(arch="vit_tiny_patch16_224", args=TINY_VIT | {"block_fn": ParallelScalingBlock}), 32
    )
    with pytest.raises(SpecError, match="plain attention"):
        attention(net, torch.randn(1, 3, 32, 32))


def test_the_feature_map_of_a_vit_is_its_patch_tokens_where_they_lie() -> None:
    net, x = vit(reg_tokens=2), torch.randn(2, 3, 40, 24)
    found, tokens = net(x).map, net.net.forward_features(x)
    assert (net.stride, found.shape) == (8, (2, 16, 5, 3))
    torch.testing.assert_close(found[:, :, 3, 1], tokens[:, 3 + 3 * 3 + 1])
    torch.testing.assert_close(activation(net, x)[:, 0, 3, 1], tokens[:, 13].norm(dim=1))
    with pytest.raises(SpecError, match="convolutional nets"):
        own_grad_cam(net, x)


def test_grad_cam_towards_the_images_own_embedding_is_the_gradient_of_its_score() -> None:
    torch.manual_seed(0)
    spec = BackboneSpec(arch="resnet18", args={"channels": [4, 4, 8, 8], "layers": [1, 1, 1, 1]})
    net, x = build_backbone(spec, 64).eval().requires_grad_(False), torch.randn(2, 3, 96, 160)
    features = net.net.forward_features(x).requires_grad_()
    assert net.stride == 32 and features.shape[2:] == (3, 5)
    h = net.net.forward_head(features)
    score = (h * torch.nn.functional.normalize(net(x).pooled, dim=1)).sum()
    (gradient,) = torch.autograd.grad(score, features)
    expected = (gradient.sum((2, 3), keepdim=True) * features.detach()).sum(1).relu()
    torch.testing.assert_close(own_grad_cam(net, x)[:, 0], expected)
    torch.testing.assert_close(activation(net, x)[:, 0], features.detach().norm(dim=1))
    assert build_backbone(spec, 32).stride == 8  # the stem for small images


def test_a_net_with_a_norm_after_pooling_has_a_saliency_too() -> None:
    torch.manual_seed(0)
    args = {"dims": [4, 8, 8, 16], "depths": [1, 1, 1, 1]}
    net, x = build_backbone(BackboneSpec(arch="convnext_tiny", args=args), 64).eval(), torch.zeros(1, 3, 256, 256)
    x[:, :, 160:192, 96:128] = torch.randn(3, 32, 32) * 3  # all that there is to see, in row 5 and column 3
    cam = own_grad_cam(net, x)[0, 0]
    assert cam.shape == (8, 8) and bool((cam >= 0).all())
    empty = cam[0, 7]
    assert float((cam - empty).abs().argmax()) == 5 * 8 + 3
