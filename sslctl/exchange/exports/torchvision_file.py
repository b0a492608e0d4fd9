"""An encoder as the state dict of torchvision's ResNet or VisionTransformer, and the Python that builds it."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torchvision
from safetensors.torch import save
from torch import Tensor, nn

from ...backbones import Backbone
from ...backbones.architecture import ANY_NET, ViTShape, resnet_shape, small_stem_shape, vit_positions, vit_shape
from ...errors import SpecError
from ...files import write_atomically
from .card import encode_code, join_code, prepare_code
from .formats import ExportJob, ExportResult, check_sizes, small_stem_note

_BLOCK = {
    "norm1": "ln_1",
    "attn.qkv.": "self_attention.in_proj_",
    "attn.proj": "self_attention.out_proj",
    "norm2": "ln_2",
    "mlp.fc1": "mlp.0",
    "mlp.fc2": "mlp.3",
}


def write_torchvision(job: ExportJob) -> ExportResult:
    """Write a .safetensors or .pth file in torchvision's names, without a classifier.

    Raises SpecError for a network that torchvision's classes cannot build.
    """
    encoder = job.encoder
    backbone, image = encoder.backbone, encoder.meta.image
    vit = backbone.is_vit
    state = vit_state(backbone, image.size) if vit else resnet_state(backbone)
    build = _vit_code(vit_shape(backbone, image.size)) if vit else resnet_code(backbone, encoder.spec.backbone.arch)
    head = "import numpy as np\nimport torch\nfrom PIL import Image, ImageOps\n"
    if job.path.suffix == ".pth":
        write_pth(job.path, state)
        load = f"torch.load({job.name!r}, weights_only=True)"
    else:
        write_atomically(job.path, save(state, {"format": "pt"}))
        head += "from safetensors.torch import load_file\n"
        load = f"load_file({job.name!r})"
    head += "from torch import nn\nfrom torchvision import models\n\n"
    code = join_code(
        f"{head}{build}net.load_state_dict({load})\nnet.eval()\n",
        prepare_code(image),
        encode_code("net(x)", f"(B, {backbone.dim})"),
    )
    notes = []
    if backbone.stem == "small":
        notes.append(small_stem_note("torchvision"))
    if vit:
        notes.append(f"torchvision's ViT takes images of {image.size} px only")
    return ExportResult(code, check_sizes(encoder, native=vit), "torchvision", notes=notes)


def resnet_state(backbone: Backbone) -> dict[str, Tensor]:
    """Return the weights of a ResNet; timm's names are torchvision's."""
    return {name: value.contiguous() for name, value in backbone.timm_state().items()}


def resnet_code(backbone: Backbone, arch: str) -> str:
    """Return Python that builds ``net``, by torchvision's name if it has one.

    Raises SpecError if torchvision's class has other tensors.
    """
    shape = resnet_shape(backbone, "torchvision")
    module = torchvision.models.resnet
    block = "Bottleneck" if shape.bottleneck else "BasicBlock"
    options = {"groups": shape.groups, "width_per_group": shape.inner // shape.groups} if shape.bottleneck else {}
    if hasattr(torchvision.models, arch) and _first_difference(backbone, getattr(torchvision.models, arch)) is None:
        call = f"models.{arch}(weights=None)"
    elif difference := _first_difference(
        backbone, lambda: module.ResNet(getattr(module, block), shape.depths, **options)
    ):
        raise SpecError(f"torchvision has no ResNet of these sizes: {difference}", ANY_NET)
    else:
        arguments = "".join(f", {key}={value}" for key, value in options.items())
        call = f"models.resnet.ResNet(models.resnet.{block}, {shape.depths}{arguments})"
    return f"net = {call}\nnet.fc = nn.Identity()\n" + (small_stem_code(backbone) if shape.small else "")


def write_pth(path: Path, state: Mapping[str, Tensor], **extra: Any) -> None:
    """Write a pickle of plain tensors, which ``torch.load(path, weights_only=True)`` reads; nothing else writes one.

    With ``extra`` plain values the file is {"model": state, **extra}. Raises MachineError if the disk refuses.
    """
    plain = {name: value.detach().cpu().clone() for name, value in state.items()}  # no view's whole storage
    buffer = io.BytesIO()
    torch.save({"model": plain, **extra} if extra else plain, buffer)
    write_atomically(path, buffer.getvalue())


def small_stem_code(backbone: Backbone) -> str:
    """Return Python that gives ``net`` the stem for small images."""
    channels, padding = small_stem_shape(backbone)
    return (
        f"net.conv1 = nn.Conv2d(3, {channels}, 3, padding={padding}, bias=False)"
        "  # the stem for small images\n"
        "net.maxpool = nn.Identity()\n"
    )


def vit_state(backbone: Backbone, size: int) -> dict[str, Tensor]:
    """Return the weights in the names of torchvision's VisionTransformer.

    Raises SpecError for a ViT with parts that class does not have.
    """
    shape = vit_shape(backbone, size)
    if shape.special:
        raise SpecError(f"torchvision's ViT has no {', '.join(sorted(shape.special))}", ANY_NET)
    state = {}
    for name, value in backbone.timm_state().items():
        if name == "pos_embed":
            state["encoder.pos_embedding"] = vit_positions(backbone, size)[0]
        elif name.startswith("blocks."):
            for ours, theirs in _BLOCK.items():
                name = name.replace(ours, theirs)
            state[re.sub(r"^blocks\.", "encoder.layers.encoder_layer_", name)] = value
        else:
            direct = {"cls_token": "class_token", "norm": "encoder.ln", "patch_embed.proj": "conv_proj"}
            stem, _, last = name.rpartition(".")
            state[direct[name] if name in direct else f"{direct[stem]}.{last}"] = value
    return {name: value.detach().contiguous() for name, value in state.items()}


def _vit_code(shape: ViTShape) -> str:
    return (
        "net = models.VisionTransformer(\n"
        f"    image_size={shape.size}, patch_size={shape.patch}, num_layers={shape.depth}, num_heads={shape.heads},\n"
        f"    hidden_dim={shape.dim}, mlp_dim={shape.hidden},\n"
        ")\n"
        "net.heads = nn.Identity()\n"
    )


def _first_difference(backbone: Backbone, build: Callable[[], nn.Module]) -> str | None:
    """Name the first tensor whose shape in the network of ``build`` is not ours; None if there is none."""
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
