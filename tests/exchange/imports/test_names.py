"""Names of other libraries become timm's, with nothing lost and nothing changed but what has to be joined."""

from __future__ import annotations

import pytest
import timm
import torch
import torchvision
from torch import nn
from torchvision.models.resnet import BasicBlock
from transformers import Dinov2Config, Dinov2Model, ResNetConfig, ResNetModel, ViTConfig, ViTModel

from sslctl.errors import CheckpointError
from sslctl.exchange.imports.names import BY_NAME, NOT_ENCODER, facebook_vit, join_qkv, naming_of, to_timm

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
SMALL |= {"image_size": 32, "patch_size": 8}
VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 4, "num_classes": 0}


def of_timm(name: str, **args: object) -> dict[str, torch.Tensor]:
    return timm.create_model(name, **args).state_dict()


@pytest.mark.parametrize(
    ("title", "theirs", "ours"),
    [
        (
            "torchvision's ViT",
            lambda: torchvision.models.VisionTransformer(32, 8, 2, 4, 32, 128),
            lambda: of_timm("vit_tiny_patch16_224", **VIT),
        ),
        (
            "Hugging Face's ViT",
            lambda: ViTModel(ViTConfig(**SMALL), add_pooling_layer=False),
            lambda: of_timm("vit_tiny_patch16_224", **VIT),
        ),
        (
            "Hugging Face's ViT",
            lambda: Dinov2Model(Dinov2Config(**SMALL | {"mlp_ratio": 4})),
            lambda: of_timm("vit_tiny_patch16_224", init_values=1e-5, **VIT),
        ),
        (
            "Hugging Face's ResNet",
            lambda: ResNetModel(ResNetConfig(layer_type="basic", hidden_sizes=[64, 128, 256, 512], depths=[2] * 4)),
            lambda: of_timm("resnet18", num_classes=0),
        ),
        (
            "children of a ResNet in a row",
            lambda: nn.Sequential(*list(torchvision.models.ResNet(BasicBlock, [2] * 4).children())[:-1]),
            lambda: of_timm("resnet18", num_classes=0),
        ),
    ],
    ids=["torchvision", "hf-vit", "hf-dinov2", "hf-resnet", "children"],
)
def test_every_name_of_a_real_network_becomes_timms_with_its_shape(title: str, theirs: object, ours: object) -> None:
    state = theirs().state_dict()  # type: ignore[operator]
    naming = naming_of(list(state))
    assert naming is not None and naming.title == title
    renamed, expected = to_timm(state, naming), ours()  # type: ignore[operator]
    assert {k: tuple(v.shape) for k, v in renamed.items()} == {k: tuple(v.shape) for k, v in expected.items()}


def test_query_key_and_value_are_joined_in_that_order() -> None:
    parts = {f"blocks.0.attn.{word}.weight": torch.full((2, 2), float(i)) for i, word in enumerate("qkv")}
    joined = join_qkv(parts)
    assert list(joined) == ["blocks.0.attn.qkv.weight"]
    assert joined["blocks.0.attn.qkv.weight"][:, 0].tolist() == [0, 0, 1, 1, 2, 2]
    del parts["blocks.0.attn.k.weight"]
    with pytest.raises(CheckpointError, match=r"missing: blocks\.0\.attn\.k\.weight"):
        join_qkv(parts)


def test_blocks_in_chunks_keep_their_global_number() -> None:
    names = ["blocks.0.0.norm1.weight", "blocks.0.1.norm1.weight", "blocks.1.2.norm1.weight", "blocks.1.3.norm1.weight"]
    renamed = facebook_vit({name: torch.tensor(float(i)) for i, name in enumerate(names)})
    assert {name: float(value) for name, value in renamed.items()} == {f"blocks.{i}.norm1.weight": i for i in range(4)}
    with pytest.raises(CheckpointError, match="2, 1 blocks"):
        facebook_vit({name: torch.zeros(()) for name in names[:3]})


def test_registers_leave_the_position_of_cls_to_it() -> None:
    state = {
        "register_tokens": torch.full((1, 2, 4), 9.0),
        "cls_token": torch.ones(1, 1, 4),
        "pos_embed": torch.arange(12.0).view(1, 3, 4),
    }
    out = facebook_vit(dict(state))
    assert out.keys() == {"reg_token", "cls_token", "pos_embed"}
    assert out["cls_token"].flatten().tolist() == [1, 2, 3, 4] and out["pos_embed"].flatten().tolist() == [
        *range(4, 12)
    ]
    with pytest.raises(CheckpointError, match="register_tokens without"):
        facebook_vit({"register_tokens": state["register_tokens"]})


@pytest.mark.parametrize(
    "name", ["fc.weight", "head.0.weight", "decoder_blocks.1.norm1.weight", "queue_ptr", "mask_token"]
)
def test_heads_queues_and_decoders_are_no_encoder(name: str) -> None:
    assert NOT_ENCODER.match(name)
    naming = naming_of(["conv1.weight", "layer1.0.conv1.weight"])
    assert naming is not None and to_timm({name: torch.ones(1)}, naming) == {}
    assert list(to_timm({name: torch.ones(1)}, BY_NAME)) == [name], "of a model that is named, every tensor is taken"


@pytest.mark.parametrize("name", ["fc_norm.weight", "head_norm.weight", "layer1.0.conv1.weight", "linearity"])
def test_names_that_only_look_alike_are_kept(name: str) -> None:
    assert not NOT_ENCODER.match(name)


def test_names_of_no_known_library_are_none() -> None:
    assert naming_of(["stages.0.weight", "stem.weight"]) is None
