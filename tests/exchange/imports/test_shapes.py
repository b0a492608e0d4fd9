"""Architectures are read from shapes alone: the network built from the spec has the shapes that were read."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import Tensor

from sslctl.backbones import hollow_backbone
from sslctl.errors import CheckpointError
from sslctl.exchange.imports.shapes import resnet_spec, usual_heads, vit_spec

State = dict[str, Tensor]


def hollow(name: str, **args: object) -> State:
    """Shapes without numbers."""
    with torch.device("meta"):
        return dict(timm.create_model(name, num_classes=0, **args).state_dict())


def shapes(state: State) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in state.items()}


RESNETS = (
    "resnet18 resnet34 resnet26 resnet50 resnet101 resnet152 wide_resnet50_2 resnext50_32x4d resnext101_32x8d".split()
)


@pytest.mark.parametrize("arch", RESNETS)
def test_a_resnet_is_recognised_by_its_shapes(arch: str) -> None:
    state = hollow(arch)
    spec, size = resnet_spec(state, None)
    assert (spec.arch, spec.stem, spec.args, size) == (arch, "imagenet", {}, 224)
    assert shapes(hollow_backbone(spec, size).net.state_dict()) == shapes(state)


def test_narrow_and_wide_resnets_and_small_stems() -> None:
    narrow = hollow("resnet18", channels=[64, 32, 48, 80])
    spec, _ = resnet_spec(narrow, None)
    assert spec.args == {"channels": [64, 32, 48, 80]}
    assert shapes(hollow_backbone(spec, 224).net.state_dict()) == shapes(narrow)
    small = hollow("resnet18")
    small["conv1.weight"] = torch.empty(64, 3, 3, 3, device="meta")
    spec, size = resnet_spec(small, "solo")
    assert (spec.stem, spec.padding, size) == ("small", "solo", 32)
    assert resnet_spec(hollow("resnet18"), "solo")[0].padding is None, "a large stem has no such padding"


@pytest.mark.parametrize("lost", ["layer3.5", "layer1.2", "layer4.2"])
def test_a_resnet_without_one_of_its_blocks_is_refused(lost: str) -> None:
    state = {name: value for name, value in hollow("resnet50").items() if not name.startswith(f"{lost}.")}
    with pytest.raises(CheckpointError, match="some of its blocks may be missing"):
        resnet_spec(state, None)


@pytest.mark.parametrize(
    ("arch", "args", "size"),
    [
        ("vit_tiny_patch16_224", {}, 224),
        ("vit_small_patch8_224", {}, 224),
        ("vit_base_patch32_224", {}, 224),
        ("vit_small_patch14_dinov2", {}, 518),
        ("vit_small_patch14_reg4_dinov2", {}, 518),
        ("vit_small_patch16_224", {"img_size": 96}, 96),
        ("vit_tiny_patch16_224", {"qkv_bias": False, "reg_tokens": 3}, 224),
    ],
)
def test_a_vit_is_recognised_by_its_shapes(arch: str, args: dict[str, object], size: int) -> None:
    state = hollow(arch, **args)
    spec, native = vit_spec(state, None, "timm", None)
    assert (spec.arch, native) == (arch, size)
    assert spec.args == {key: value for key, value in args.items() if key != "img_size"}
    assert shapes(hollow_backbone(spec, native).net.state_dict()) == shapes(state)


def test_without_cls_the_patches_are_averaged() -> None:
    state = hollow("vit_tiny_patch16_224", class_token=False, global_pool="avg")
    spec, _ = vit_spec(state, None, "dino", None)
    assert spec.args["global_pool"] == "avg" and spec.args["fc_norm"] is True and spec.position == "timm"


def test_positions_of_dino_are_kept_where_they_can_be() -> None:
    assert vit_spec(hollow("vit_tiny_patch16_224"), None, "dino", None)[0].position == "dino"


@pytest.mark.parametrize(("dim", "heads"), [(192, 3), (384, 6), (768, 12), (1024, 16), (1408, 16), (100, None)])
def test_heads_of_known_widths(dim: int, heads: int | None) -> None:
    assert usual_heads(dim) == heads


def test_depths_that_a_cut_file_leaves_are_refused() -> None:
    state = {k: v for k, v in hollow("vit_tiny_patch16_224").items() if not k.startswith("blocks.11.")}
    with pytest.raises(CheckpointError, match="11 blocks of width 192") as refused:
        vit_spec(state, None, "timm", None)
    assert "--depth 11" in refused.value.hint
    assert vit_spec(state, None, "timm", 11)[0].args == {"depth": 11}
    assert vit_spec(state, None, "timm", None, whole=True)[0].args == {"depth": 11}
    with pytest.raises(CheckpointError, match="--depth 12: the file has 11 blocks"):
        vit_spec(state, None, "timm", 12)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("patch_embed.proj.weight", (192, 3, 16, 8), "not square patches"),
        ("patch_embed.proj.weight", (192, 16), "instead of 4 axes"),
        ("pos_embed", (1, 200, 192), "not a square of patches"),
    ],
)
def test_shapes_of_no_vit_are_refused(name: str, shape: tuple[int, ...], message: str) -> None:
    state = hollow("vit_tiny_patch16_224") | {name: torch.empty(shape, device="meta")}
    with pytest.raises(CheckpointError, match=message):
        vit_spec(state, None, "timm", None)


def test_a_width_that_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(CheckpointError, match="192 is not a multiple of 5"):
        vit_spec(hollow("vit_tiny_patch16_224"), 5, "timm", None)
