"""An encoder as the state dict of torchvision's ResNet or VisionTransformer, and the line that builds it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch
import torchvision
from safetensors.torch import save
from torch import Tensor, nn

from ...backbones import Backbone
from ...backbones.architecture import ANY_NET, ViTShape, resnet_shape, small_stem_shape, vit_positions, vit_shape
from ...errors import SpecError
from ...files import write_atomically
from .formats import Order, Written, two_sizes
from .pth import write_pth
from .snippets import encode, joined, prepare

_BLOCK = {
    "norm1": "ln_1",
    "attn.qkv.": "self_attention.in_proj_",
    "attn.proj": "self_attention.out_proj",
    "norm2": "ln_2",
    "mlp.fc1": "mlp.0",
    "mlp.fc2": "mlp.3",
}


def write(order: Order) -> Written:
    """A .safetensors or .pth file under torchvision's names, without a classifier.

    Raises SpecError for a net that torchvision's classes cannot be.
    """
    encoder = order.encoder
    backbone, image = encoder.backbone, encoder.meta.image
    vit = backbone.is_vit
    state = vit_state(backbone, image.size) if vit else resnet_state(backbone)
    build = _vit_code(vit_shape(backbone, image.size)) if vit else resnet_code(backbone, encoder.spec.backbone.arch)
    head = "import numpy as np\nimport torch\nfrom PIL import Image, ImageOps\n"
    if order.path.suffix == ".pth":
        write_pth(order.path, state)
        load = f"torch.load({order.name!r}, weights_only=True)"
    else:
        write_atomically(order.path, save(state, {"format": "pt"}))
        head += "from safetensors.torch import load_file\n"
        load = f"load_file({order.name!r})"
    head += "from torch import nn\nfrom torchvision import models\n\n"
    code = joined(
        f"{head}{build}net.load_state_dict({load})\nnet.eval()\n",
        prepare(image),
        encode("net(x)", f"(B, {backbone.dim})"),
    )
    notes = []
    if backbone.stem == "small":
        notes.append(
            "torchvision's builders have no stem for small images (3x3, stride 1, no max-pool): the code in the card"
            " puts one in, and without it the weights do not load"
        )
    if vit:
        notes.append(f"torchvision's ViT takes images of {image.size} px only")
    return Written(code, two_sizes(encoder, native=vit), "torchvision", notes=notes)


def resnet_state(backbone: Backbone) -> dict[str, Tensor]:
    """timm's names are torchvision's."""
    return {name: value.contiguous() for name, value in backbone.timm_state().items()}


def resnet_code(backbone: Backbone, arch: str) -> str:
    """Python that builds ``net``: by torchvision's own name where it has one. SpecError where the tensors differ."""
    shape = resnet_shape(backbone, "torchvision")
    module = torchvision.models.resnet
    block = "Bottleneck" if shape.bottleneck else "BasicBlock"
    options = {"groups": shape.groups, "width_per_group": shape.inner // shape.groups} if shape.bottleneck else {}
    if hasattr(torchvision.models, arch) and _differs(backbone, getattr(torchvision.models, arch)) is None:
        call = f"models.{arch}(weights=None)"
    elif found := _differs(backbone, lambda: module.ResNet(getattr(module, block), shape.depths, **options)):
        raise SpecError(f"torchvision has no ResNet of these sizes: {found}", ANY_NET)
    else:
        more = "".join(f", {key}={value}" for key, value in options.items())
        call = f"models.resnet.ResNet(models.resnet.{block}, {shape.depths}{more})"
    return f"net = {call}\nnet.fc = nn.Identity()\n" + (small_stem_code(backbone) if shape.small else "")


def small_stem_code(backbone: Backbone) -> str:
    """Python that gives ``net`` the stem for small images."""
    channels, padding = small_stem_shape(backbone)
    return (
        f"net.conv1 = nn.Conv2d(3, {channels}, 3, padding={padding}, bias=False)"
        "  # the stem for small images\n"
        "net.maxpool = nn.Identity()\n"
    )


def vit_state(backbone: Backbone, size: int) -> dict[str, Tensor]:
    """Under the names of torchvision's VisionTransformer. SpecError for a ViT that has more than that one."""
    shape = vit_shape(backbone, size)
    if shape.special:
        raise SpecError(f"torchvision's ViT has none of these: {', '.join(sorted(shape.special))}", ANY_NET)
    found = {}
    for name, value in backbone.timm_state().items():
        if name == "pos_embed":
            found["encoder.pos_embedding"] = vit_positions(backbone, size)[0]
        elif name.startswith("blocks."):
            for ours, theirs in _BLOCK.items():
                name = name.replace(ours, theirs)
            found[re.sub(r"^blocks\.", "encoder.layers.encoder_layer_", name)] = value
        else:
            whole = {"cls_token": "class_token", "norm": "encoder.ln", "patch_embed.proj": "conv_proj"}
            stem, _, last = name.rpartition(".")
            found[whole[name] if name in whole else f"{whole[stem]}.{last}"] = value
    return {name: value.detach().contiguous() for name, value in found.items()}


def _vit_code(shape: ViTShape) -> str:
    return (
        "net = models.VisionTransformer(\n"
        f"    image_size={shape.size}, patch_size={shape.patch}, num_layers={shape.depth}, num_heads={shape.heads},\n"
        f"    hidden_dim={shape.dim}, mlp_dim={shape.hidden},\n"
        ")\n"
        "net.heads = nn.Identity()\n"
    )


def _differs(backbone: Backbone, build: Callable[[], nn.Module]) -> str | None:
    """The first tensor that the net ``build`` makes has otherwise than ours; None where all are the same."""
    with torch.device("meta"):
        net: Any = build()
        net.fc = nn.Identity()
        if backbone.stem == "small":
            net.conv1 = nn.Conv2d(3, net.conv1.out_channels, 3, bias=False)
    theirs = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    ours = {name: tuple(value.shape) for name, value in backbone.timm_state().items()}
    for name in [*ours, *theirs]:
        if ours.get(name) != theirs.get(name):
            return f"{name} is {ours.get(name, 'absent')} here, {theirs.get(name, 'absent')} there"
    return None
