"""timm models by name, freshly initialised: stems, patches, and what is not a plain encoder."""

from __future__ import annotations

import re
from typing import Any

import timm
import torch
from timm.layers import Conv2dSame, DropPath, PatchEmbed
from timm.layers.pool2d_same import MaxPool2dSame
from timm.models import ResNet, VisionTransformer, get_pretrained_cfg, is_model_in_modules
from timm.models.eva import Eva
from torch import nn

from ..errors import SpecError, closest
from ..spec.schema import BackboneSpec
from .backbone import Backbone, Stem, not_a_multiple
from .layout import not_an_encoder

SMALL = 64  # px; below, a ResNet's stem would leave too little to look at
ROTARY = ["eva"]  # timm's module of the ViTs with rotary positions: EVA, DINOv3, PE
VIT_MODULES = ["vision_transformer", "deit", *ROTARY]
OURS = {"num_classes", "pretrained", "in_chans", "img_size", "dynamic_img_size", "drop_path_rate", "features_only"}


def build_backbone(spec: BackboneSpec, image_size: int) -> Backbone:
    """Return the encoder that ``spec`` names, initialised as timm does it, from torch's global generator.

    ``image_size`` is that of the largest global view: what ``stem: auto`` goes by, and the native grid of a ViT where
    ``spec.native_size`` says no other.
    Further arguments of timm pass through ``spec.args``, for example ``zero_init_last: false`` (timm's ResNets begin
    with zero in the last norm of each block), ``channels: [16, 32, 64, 128]`` or ``patch_size: 4``.
    Raises SpecError for an unknown name, for a model that is not a plain encoder, and for sizes that do not fit.
    """
    names = timm.list_models()
    if spec.arch not in names:
        raise SpecError(
            f"backbone.arch '{spec.arch}': no model of timm{closest(spec.arch, names)}", "see timm.list_models()"
        )
    if own := sorted(OURS & spec.args.keys()):
        raise SpecError(f"backbone.args.{own[0]}: set by sslctl itself", "leave it out")
    if is_model_in_modules(spec.arch, VIT_MODULES):
        return _build_vit(spec, spec.native_size or image_size)
    return _build_cnn(spec, image_size)


def is_vit_arch(arch: str) -> bool:
    """Return whether timm's model ``arch`` is a ViT, as far as its name says."""
    return arch in timm.list_models() and is_model_in_modules(arch, VIT_MODULES)


def is_rotary_arch(arch: str) -> bool:
    """Return whether timm's model ``arch`` is of the ViTs with rotary positions (EVA, DINOv3, PE)."""
    return arch in timm.list_models() and is_model_in_modules(arch, ROTARY)


def hollow_backbone(spec: BackboneSpec, image_size: int) -> Backbone:
    """Build as ``build_backbone`` without drawing weights, to be filled by ``load_state_dict(…, assign=True)``.

    A net with buffers that no file has (blurring filters, rotary positions) is built whole all the same.
    """
    with torch.device("meta"):
        hollow = build_backbone(spec, image_size)
    saved = hollow.state_dict()
    if all(name in saved for name, _ in hollow.named_buffers()):
        return hollow
    with torch.random.fork_rng(devices=[]):
        return build_backbone(spec, image_size)


def without_drop_path(net: nn.Module) -> nn.Module:
    """Switch off what draws random numbers in training, stochastic depth above all, and return ``net`` itself."""
    for module in net.modules():
        if isinstance(module, DropPath):
            module.drop_prob = 0.0
        if hasattr(module, "aug_active"):
            module.aug_active = False  # type: ignore[assignment]  # rotary positions, shifted and scaled at random
    return net


def _build_vit(spec: BackboneSpec, image_size: int) -> Backbone:
    if spec.stem == "small":
        raise SpecError(f"backbone.stem small: {spec.arch} has patches, no stem", "--set backbone.args.patch_size=4")
    in_name = re.search(r"_patch(\d+)", spec.arch)
    patch = spec.args.get("patch_size", int(in_name[1]) if in_name else None)
    if isinstance(patch, int) and patch > 0:
        if image_size % patch:
            raise not_a_multiple(f"{spec.arch} at {image_size} px", image_size, patch)
        if (n := image_size // patch) < 3:
            raise SpecError(
                f"{spec.arch} cuts views of {image_size} px into only {n}x{n} patches of {patch} px",
                f"use larger views or smaller patches: --set backbone.args.patch_size={max(2, image_size // 8)}",
            )
    rotary = is_model_in_modules(spec.arch, ROTARY)
    on_meta = torch.get_default_device().type == "meta" and not rotary
    hollow = {"weight_init": "skip"} if on_meta else {}  # nothing to draw into
    net = _create(spec, img_size=image_size, dynamic_img_size=True, **hollow)
    if type(net) not in (VisionTransformer, Eva) or type(net.patch_embed) is not PatchEmbed:
        raise not_an_encoder(spec.arch, "it is not a plain ViT")
    if net.pos_embed is None and getattr(net, "rope", None) is None:
        raise not_an_encoder(spec.arch, "it has no positions")
    normed = not rotary or not isinstance(net.norm, nn.Identity)  # EVA's that average have their norm after that
    net.reset_classifier(0, "token" if net.cls_token is not None and normed else "avg")
    if spec.norm_eps is not None:
        for module in net.modules():
            if isinstance(module, nn.LayerNorm):
                module.eps = spec.norm_eps
    position = "timm" if net.pos_embed is None else spec.position  # rotary ones alone need no resizing
    if position == "dino" and (net.num_prefix_tokens != 1 or net.no_embed_class or rotary):
        raise SpecError(
            f"backbone.position dino: {spec.arch} has other tokens than DINO's", "--set backbone.position=timm"
        )
    backbone = Backbone(net, image_size, position=position)
    backbone.grad_checkpointing = spec.grad_checkpointing
    return backbone


def _build_cnn(spec: BackboneSpec, image_size: int) -> Backbone:
    cfg = get_pretrained_cfg(spec.arch)
    if cfg is not None and cfg.fixed_input_size:
        raise not_an_encoder(spec.arch, "it takes images of one size only")
    if spec.position != "timm":
        raise SpecError(f"backbone.position {spec.position}: {spec.arch} has no positions", "leave it at timm")
    if spec.grad_checkpointing:  # its batch norms would count every batch twice
        raise SpecError(f"backbone.grad_checkpointing: {spec.arch} is not a ViT", "optim.accumulate saves memory too")
    plain = cfg is None or is_model_in_modules(spec.arch, ["resnet"])
    for word in ("width", "padding", "native_size", "norm_eps"):
        value = getattr(spec, word)
        if value is not None and (not plain or word in ("native_size", "norm_eps")):
            raise SpecError(f"backbone.{word} {value}: not for {spec.arch}", "leave it out")
    net = _create(spec, **({} if spec.width is None else _channels(spec)))
    stem: Stem = "imagenet"
    if spec.width is not None:
        widen_stem(net, 64 * spec.width)
    if spec.stem == "small" or (spec.stem == "auto" and image_size < SMALL and type(net) is ResNet):
        if type(net) is not ResNet:
            raise SpecError(f"backbone.stem small: {spec.arch} is not a ResNet", "for example --arch resnet18")
        small_stem(net, 2 if spec.padding == "solo" else 1)
        stem = "small"
    if spec.padding == "same":
        pad_as_tensorflow(net)
    return Backbone(net, image_size, stem)


def small_stem(net: Any, padding: int = 1) -> None:
    """Give a timm ResNet the stem for small images, in place: one 3x3 convolution of stride 1, no max-pool (CIFAR)."""
    net.conv1 = nn.Conv2d(3, len(net.bn1.weight), 3, stride=1, padding=padding, bias=False)
    nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")
    net.maxpool = nn.Identity()


def widen_stem(net: Any, width: int) -> None:
    """Give a timm ResNet a stem of ``width`` channels, in place, as where papers write R50-w2: timm's has always 64."""
    first = net.layer1[0]
    convolutions = [first.conv1] if first.downsample is None else [first.conv1, first.downsample[0]]
    for conv in convolutions:
        conv.weight = nn.Parameter(conv.weight.new_empty(conv.out_channels, width, *conv.kernel_size))
        conv.in_channels = width
    net.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
    net.bn1 = nn.BatchNorm2d(width)
    for conv in (net.conv1, *convolutions):
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")


def pad_as_tensorflow(net: nn.Module) -> None:
    """Pad strided convolutions and pools of ``net``, in place, as TensorFlow's SAME does: more on the right than left.

    BYOL's and SimCLR's ResNets were trained so; with torch's padding the same weights give other features.
    """
    for name, module in list(net.named_modules()):
        parent, _, own = name.rpartition(".")
        if isinstance(module, nn.Conv2d) and module.kernel_size[0] > 1 and module.stride[0] > 1:
            same: nn.Module = Conv2dSame(
                module.in_channels, module.out_channels, module.kernel_size, module.stride, bias=False
            )
            same.weight = module.weight
        elif isinstance(module, nn.MaxPool2d):
            same = MaxPool2dSame(module.kernel_size, module.stride)
        else:
            continue
        setattr(net.get_submodule(parent), own, same)


def _channels(spec: BackboneSpec) -> dict[str, Any]:
    if "channels" in spec.args:
        raise SpecError("backbone.width and backbone.args.channels say the same", "leave one of them out")
    return {"channels": tuple(64 * spec.width * 2**stage for stage in range(4)) if spec.width else ()}


def _create(spec: BackboneSpec, **more: Any) -> Any:
    if spec.drop_path:
        more["drop_path_rate"] = spec.drop_path
    try:
        return timm.create_model(spec.arch, pretrained=False, num_classes=0, **spec.args, **more)
    except Exception as e:  # timm checks its arguments by failing somewhere inside
        args = ", ".join(f"{k}={v!r}" for k, v in (spec.args | more).items())
        raise SpecError(f"backbone: timm cannot build {spec.arch} ({args}): {e}", "see backbone.args") from e
