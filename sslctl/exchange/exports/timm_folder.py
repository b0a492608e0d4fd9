"""An encoder as a folder that timm loads."""

from __future__ import annotations

import json
from typing import Any

import timm
import torch
from safetensors.torch import save

from ...backbones.architecture import ANY_NET, pooling, small_stem_shape, vit_positions
from ...errors import SpecError
from ...files import write_atomically
from ...runs.encoder import LoadedEncoder
from ...views.evaluation import SMALL
from .card import encode_code, join_code
from .formats import ExportJob, ExportResult, check_sizes, resizing_note, small_stem_note


def write_timm(job: ExportJob) -> ExportResult:
    """Write config.json in the layout of timm's hub, and model.safetensors.

    Raises SpecError for a network that timm cannot build.
    """
    encoder = job.encoder
    backbone = encoder.backbone
    spec, size = encoder.spec.backbone, encoder.meta.image.size
    if spec.width is not None or spec.padding == "same":
        feature = f"width {spec.width}" if spec.width is not None else "TensorFlow's padding"
        raise SpecError(f"timm.create_model cannot build a ResNet with {feature}", ANY_NET)
    native = backbone.is_vit and backbone.position != "timm"
    state = backbone.timm_state()
    if native:
        state["pos_embed"] = vit_positions(backbone, size)[0]
    state = {name: value.contiguous() for name, value in state.items()}
    write_atomically(job.path / "model.safetensors", save(state, {"format": "pt"}))
    write_atomically(job.path / "config.json", (json.dumps(config(encoder), indent=2) + "\n").encode())
    notes = []
    if backbone.stem == "small":
        notes.append(small_stem_note("timm.create_model"))
    if native:
        notes.append(resizing_note("timm", size))
    code = join_code(_load(encoder, job.name), encode_code("net(x)", f"(B, {backbone.dim})"))
    return ExportResult(code, check_sizes(encoder, native), "timm", notes=notes)


def config(encoder: LoadedEncoder) -> dict[str, Any]:
    """Return timm's description of the model: how to build it, and how its images are prepared."""
    return {
        "architecture": encoder.spec.backbone.arch,
        "num_classes": 0,
        "num_features": encoder.backbone.dim,
        "model_args": model_args(encoder),
        "pretrained_cfg": {
            "tag": "sslctl",
            "custom_load": False,
            "fixed_input_size": False,
            **_images(encoder),
            "num_classes": 0,
        },
    }


def model_args(encoder: LoadedEncoder) -> dict[str, Any]:
    """Return the arguments of timm's constructor that are not its defaults; other readers refuse unknown ones."""
    args = dict(encoder.spec.backbone.args)
    if encoder.backbone.is_vit:
        native = encoder.backbone.position == "timm"
        args |= {"img_size": encoder.backbone.image_size if native else encoder.meta.image.size}
        args |= {"dynamic_img_size": True}
        with torch.device("meta"):
            plain = timm.create_model(encoder.spec.backbone.arch, pretrained=False, num_classes=0, **args)
        pool = pooling(encoder.backbone)
        if pool["global_pool"] != plain.global_pool:
            args |= pool
    return args


def _images(encoder: LoadedEncoder) -> dict[str, Any]:
    image = encoder.meta.image
    size = image.size
    return {
        "input_size": [3, size, size],
        "interpolation": "bicubic",
        "crop_pct": 1.0 if size < SMALL else 0.875,
        "crop_mode": "center",
        "mean": list(image.mean),
        "std": list(image.std),
    }


def _load(encoder: LoadedEncoder, name: str) -> str:
    """Return Python that loads the export into ``net`` and defines ``prepare``."""
    if encoder.backbone.stem == "imagenet":
        return (
            "import timm\nimport torch\nfrom PIL import Image\n\n"
            f"net = timm.create_model({f'local-dir:{name}'!r}, pretrained=True).eval()\n"
            "prepare = timm.data.create_transform(**timm.data.resolve_model_data_config(net))\n"
        )
    width, padding = small_stem_shape(encoder.backbone)
    args = "".join(f", {key}={value!r}" for key, value in model_args(encoder).items())
    images = "".join(f", {key}={value!r}" for key, value in _images(encoder).items())
    return (
        "import timm\nimport torch\nfrom PIL import Image\nfrom safetensors.torch import load_file\n"
        "from torch import nn\n\n"
        f"net = timm.create_model({encoder.spec.backbone.arch!r}, num_classes=0{args})\n"
        f"net.conv1 = nn.Conv2d(3, {width}, 3, padding={padding}, bias=False)  # the stem for small images\n"
        "net.maxpool = nn.Identity()\n"
        f"net.load_state_dict(load_file({f'{name}/model.safetensors'!r}))\n"
        "net.eval()\n"
        f"prepare = timm.data.create_transform({images[2:]})\n"
    )
