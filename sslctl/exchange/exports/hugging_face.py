"""An encoder as a Hugging Face folder: ViTModel, Dinov2Model, Dinov2WithRegistersModel or ResNetModel, as fits."""

from __future__ import annotations

import json
import re
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from ...backbones import Backbone
from ...backbones.architecture import ANY_NET, ViTShape, resnet_shape, small_stem_shape, vit_positions, vit_shape
from ...errors import SpecError
from ...files import write_atomically
from ...runs.meta import ImageSpec
from .card import encode_code, join_code
from .formats import ExportJob, ExportResult, check_sizes, resizing_note, small_stem_note
from .timm_folder import write_timm

Config = dict[str, Any]

# timm's name in a block -> that of ViTModel, and of Dinov2Model. qkv is cut in three beforehand.
_ATTENTION = {
    "attn.q.": "attention.attention.query.",
    "attn.k.": "attention.attention.key.",
    "attn.v.": "attention.attention.value.",
    "attn.proj.": "attention.output.dense.",
}
_VIT = _ATTENTION | {
    "norm1.": "layernorm_before.",
    "norm2.": "layernorm_after.",
    "mlp.fc1.": "intermediate.dense.",
    "mlp.fc2.": "output.dense.",
}
_DINOV2 = _ATTENTION | {"ls1.gamma": "layer_scale1.lambda1", "ls2.gamma": "layer_scale2.lambda1"}
_SWIGLU = {"mlp.fc1.": "mlp.weights_in.", "mlp.fc2.": "mlp.weights_out."}


def write_hugging_face(job: ExportJob) -> ExportResult:
    """Write config.json, preprocessor_config.json and model.safetensors, in the names of the Hub's own files.

    A network for which transformers has no class is written as timm's folder, which AutoModel reads through timm.
    """
    backbone, image = job.encoder.backbone, job.encoder.meta.image
    try:
        config, state = vit_export(backbone, image.size) if backbone.is_vit else resnet_export(backbone)
    except SpecError as e:
        return _through_timm(job, e.message)
    config |= {"dtype": "float32", "torch_dtype": "float32"}
    for name, content in (("config.json", config), ("preprocessor_config.json", processor_config(image))):
        write_atomically(job.path / name, (json.dumps(content, indent=2) + "\n").encode())
    write_atomically(job.path / "model.safetensors", save(state, {"format": "pt"}))
    small = backbone.stem == "small"
    option = ", add_pooling_layer=False" if config["model_type"] == "vit" else ""
    load = _small_stem(backbone, job.name) if small else _load(job.name, option)
    token = "last_hidden_state[:, 0]" if backbone.is_vit else "pooler_output.flatten(1)"
    code = join_code(load, _prepare(job.name), encode_code(f"net(pixel_values=x).{token}", f"(B, {backbone.dim})"))
    notes = []
    if small:
        notes.append(small_stem_note("AutoModel"))
    if backbone.is_vit:
        notes.append(resizing_note("transformers", image.size))
    return ExportResult(code, check_sizes(job.encoder, native=backbone.is_vit), "transformers", notes=notes)


def vit_export(backbone: Backbone, size: int) -> tuple[Config, dict[str, Tensor]]:
    """Return config.json and the tensors of a ViT for images of ``size`` px.

    Raises SpecError if transformers has no class for it.
    """
    shape = vit_shape(backbone, size)
    dinov2 = "layer scale" in shape.special
    supported = {"no bias in qkv"} | ({"layer scale", "registers", "SwiGLU"} if dinov2 else set())
    if unsupported := shape.special - supported:
        raise SpecError(f"transformers has no ViT with {' and '.join(sorted(unsupported))}")
    config = _vit_config(shape, dinov2)
    table, registers = vit_positions(backbone, size)
    state = {"embeddings.position_embeddings": table}
    if dinov2:
        state["embeddings.mask_token"] = torch.zeros(1, shape.dim)
    if registers is not None:
        state["embeddings.register_tokens"] = registers
    names = (_DINOV2 | (_SWIGLU if "SwiGLU" in shape.special else {})) if dinov2 else _VIT
    direct = {"cls_token": "embeddings.cls_token"}
    ends = {"norm.": "layernorm.", "patch_embed.proj.": "embeddings.patch_embeddings.projection."}
    for name, value in _split_qkv(backbone.timm_state()).items():
        if name.startswith("blocks."):
            for ours, theirs in names.items():
                name = name.replace(f".{ours}", f".{theirs}")
            state[name.replace("blocks.", "encoder.layer.", 1)] = value
        elif name not in ("pos_embed", "reg_token"):
            for ours, theirs in ends.items():
                name = re.sub(f"^{re.escape(ours)}", theirs, name)
            state[direct.get(name, name)] = value
    return config, {name: value.detach().contiguous() for name, value in state.items()}


def resnet_export(backbone: Backbone) -> tuple[Config, dict[str, Tensor]]:
    """Return config.json and the tensors of ResNetModel. Raises SpecError for a ResNet that it cannot build."""
    shape = resnet_shape(backbone, "transformers")
    inner = shape.widths[0] // 4 if shape.bottleneck else shape.inner
    if shape.groups != 1 or shape.inner != inner:
        raise SpecError("transformers has no ResNeXt and no wide ResNet")
    config = {
        "architectures": ["ResNetModel"],
        "model_type": "resnet",
        "num_channels": 3,
        "embedding_size": shape.stem,
        "hidden_sizes": shape.widths,
        "depths": shape.depths,
        "layer_type": "bottleneck" if shape.bottleneck else "basic",
        "hidden_act": "relu",
        "downsample_in_first_stage": False,
        "downsample_in_bottleneck": False,
    }
    state = {}
    for name, value in backbone.timm_state().items():
        name = re.sub(r"^layer(\d)\.(\d+)", lambda m: f"encoder.stages.{int(m[1]) - 1}.layers.{m[2]}", name)
        name = re.sub(r"^(conv1|bn1)", r"embedder.embedder.\1", name)
        name = name.replace("downsample.0", "shortcut.convolution").replace("downsample.1", "shortcut.normalization")
        name = re.sub(r"embedder\.conv1", "embedder.convolution", name)
        name = re.sub(r"embedder\.bn1", "embedder.normalization", name)
        name = re.sub(r"\.conv(\d)\.", lambda m: f".layer.{int(m[1]) - 1}.convolution.", name)
        name = re.sub(r"\.bn(\d)\.", lambda m: f".layer.{int(m[1]) - 1}.normalization.", name)
        state[name] = value.contiguous()
    return config, state


def processor_config(image: ImageSpec) -> Config:
    """Return preprocessor_config.json of the evaluation transform: resize the short side, crop, normalise."""
    size = image.size
    return {
        "image_processor_type": "BitImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": image.transform().short},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": size, "width": size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(image.mean),
        "image_std": list(image.std),
    }


def _vit_config(shape: ViTShape, dinov2: bool) -> Config:
    config: Config = {
        "hidden_size": shape.dim,
        "num_hidden_layers": shape.depth,
        "num_attention_heads": shape.heads,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "layer_norm_eps": shape.norm_eps,
        "image_size": shape.size,
        "patch_size": shape.patch,
        "num_channels": 3,
        "qkv_bias": shape.qkv_bias,
    }
    if not dinov2:
        return config | {"architectures": ["ViTModel"], "model_type": "vit", "intermediate_size": shape.hidden}
    swiglu = "SwiGLU" in shape.special
    ratio = shape.hidden / shape.dim * (1.5 if swiglu else 1)  # of Dinov2SwiGLUFFN, which takes two thirds
    config |= {"mlp_ratio": int(ratio) if ratio == int(ratio) else ratio, "use_swiglu_ffn": swiglu}
    if not shape.registers:
        return config | {"architectures": ["Dinov2Model"], "model_type": "dinov2"}
    return config | {
        "architectures": ["Dinov2WithRegistersModel"],
        "model_type": "dinov2_with_registers",
        "num_register_tokens": shape.registers,
    }


def _split_qkv(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Split ``attn.qkv`` into ``attn.q``, ``attn.k`` and ``attn.v``."""
    parts: dict[str, Tensor] = {}
    for name, value in state.items():
        if ".attn.qkv." in name:
            parts |= {name.replace("qkv", part): x for part, x in zip("qkv", value.chunk(3), strict=True)}
        else:
            parts[name] = value
    return parts


def _load(name: str, option: str) -> str:
    return (
        "import torch\nfrom PIL import Image\nfrom transformers import AutoImageProcessor, AutoModel\n\n"
        f"net = AutoModel.from_pretrained({f'./{name}'!r}{option}).eval()\n"
    )


def _small_stem(backbone: Backbone, name: str) -> str:
    channels, padding = small_stem_shape(backbone)
    return (
        "import torch\nfrom PIL import Image\nfrom safetensors.torch import load_file\nfrom torch import nn\n"
        "from transformers import AutoConfig, AutoImageProcessor, AutoModel\n\n"
        f"net = AutoModel.from_config(AutoConfig.from_pretrained({f'./{name}'!r}))\n"
        "stem = net.embedder\n"
        f"stem.embedder.convolution = nn.Conv2d(3, {channels}, 3, padding={padding}, bias=False)"
        "  # for small images\n"
        "stem.pooler = nn.Identity()\n"
        f"net.load_state_dict(load_file({f'{name}/model.safetensors'!r}))\nnet.eval()\n"
    )


def _prepare(name: str) -> str:
    return (
        f"processor = AutoImageProcessor.from_pretrained({f'./{name}'!r})\n\n\n"
        "def prepare(image):  # a PIL image\n"
        '    return processor(image.convert("RGB"), return_tensors="pt")["pixel_values"][0]\n'
    )


def _through_timm(job: ExportJob, reason: str) -> ExportResult:
    """Write timm's folder, which transformers reads as TimmWrapperModel if timm is installed."""
    if job.encoder.backbone.stem == "small":
        raise SpecError(f"{reason}, and timm cannot build the stem for small images", ANY_NET)
    result = write_timm(job)
    code = join_code(
        _load(job.name, ""),
        _prepare(job.name),
        encode_code("net(pixel_values=x).pooler_output", f"(B, {job.encoder.backbone.dim})"),
    )
    notes = [f"{reason}: AutoModel reads this folder through timm, which must be installed", *result.notes]
    return ExportResult(code, result.sizes, "transformers", notes=notes)
