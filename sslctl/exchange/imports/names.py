"""Weight names of other libraries mapped to timm's, and the weights that are not part of an encoder."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import CheckpointError

State = dict[str, Tensor]
Rules = tuple[tuple[str, str], ...]

# Weights under an encoder's prefix that are not part of it: classifiers, projectors, what masked methods need.
NOT_ENCODER = re.compile(
    r"(fc|head|heads|classifier|linear|pooler|projection_head|projector|predictor|prototypes|decoder\w*|last_layer)\."
    r"|(mask_token|masked_embed|embeddings\.mask_token|decoder_pos_embed|queue\w*)$"
)
TORCHVISION_VIT: Rules = (
    (r"^class_token$", "cls_token"),
    (r"^conv_proj\.", "patch_embed.proj."),
    (r"^encoder\.pos_embedding$", "pos_embed"),
    (r"^encoder\.ln\.", "norm."),
    (r"^encoder\.layers\.encoder_layer_(\d+)\.", r"blocks.\1."),
    (r"\.ln_(\d)\.", r".norm\1."),
    (r"\.self_attention\.in_proj_", ".attn.qkv."),
    (r"\.self_attention\.out_proj\.", ".attn.proj."),
    (r"\.mlp\.(?:0|linear_1)\.", ".mlp.fc1."),
    (r"\.mlp\.(?:3|linear_2)\.", ".mlp.fc2."),
)
HF_VIT: Rules = (
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.register_tokens$", "register_tokens"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^layernorm\.", "norm."),
    (r"^(?:encoder\.layer|layers)\.(\d+)\.", r"blocks.\1."),
    (r"\.attention\.(?:attention\.(query|key|value)|(q|k|v)_proj)\.", r".attn.\1\2."),
    (r"\.attention\.(?:output\.dense|o_proj)\.", ".attn.proj."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
    (r"\.layer_scale(\d)\.lambda1$", r".ls\1.gamma"),
    (r"\.mlp\.weights_in\.", ".mlp.w12."),
    (r"\.mlp\.weights_out\.", ".mlp.w3."),
)
HF_DINOV3: Rules = (
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.register_tokens$", "reg_token"),
    (r"^embeddings\.patch_embeddings\.", "patch_embed.proj."),
    (r"^(?:model\.)?layer\.(\d+)\.", r"blocks.\1."),
    (r"\.attention\.([qkv])_proj\.", r".attn.\1."),
    (r"\.attention\.o_proj\.", ".attn.proj."),
    (r"\.layer_scale(\d)\.lambda1$", r".gamma_\1"),
    (r"\.mlp\.gate_proj\.", ".mlp.fc1_g."),
    (r"\.mlp\.up_proj\.", ".mlp.fc1."),
    (r"\.mlp\.down_proj\.", ".mlp.fc2."),
)
META_DINOV3: Rules = (
    (r"^storage_tokens$", "reg_token"),
    (r"\.ls(\d)\.gamma$", r".gamma_\1"),
    (r"\.mlp\.w1\.", ".mlp.fc1_g."),
    (r"\.mlp\.w2\.", ".mlp.fc1_x."),
    (r"\.mlp\.w3\.", ".mlp.fc2."),
    (r"^local_cls_norm\..*$", ""),  # of local crops in training
)
HF_RESNET: Rules = (
    (r"^embedder\.embedder\.convolution\.", "conv1."),
    (r"^embedder\.embedder\.normalization\.", "bn1."),
    (r"^encoder\.stages\.(\d)\.layers\.(\d+)\.", r"layer\1+1.\2."),
    (r"\.shortcut\.convolution\.", ".downsample.0."),
    (r"\.shortcut\.normalization\.", ".downsample.1."),
    (r"\.layer\.(\d)\.convolution\.", r".conv\1+1."),
    (r"\.layer\.(\d)\.normalization\.", r".bn\1+1."),
)
CHILDREN: Rules = ((r"^0\.", "conv1."), (r"^1\.", "bn1."), (r"^([4-7])\.", r"layer\1-3."))


@dataclass(frozen=True)
class Naming:
    """A library's naming, recognised if each of ``marks`` matches the beginning of a name."""

    title: str
    marks: tuple[str, ...]
    rules: Rules = ()
    finish: Callable[[State], State] = lambda state: state


def join_qkv(state: State) -> State:
    """Join separate query, key and value into one matrix, then apply ``facebook_vit``."""
    out = dict(state)
    for name in [name for name in state if re.search(r"\.attn\.(query|q)\.", name)]:
        stem, _, kind = name.rpartition(".")
        words = ("query", "key", "value") if stem.endswith("query") else ("q", "k", "v")
        block = stem.rpartition(".")[0]
        out[f"{block}.qkv.{kind}"] = _pop_joined(out, [f"{block}.{word}.{kind}" for word in words])
    return facebook_vit(out)


def _pop_joined(state: State, names: list[str]) -> Tensor:
    if missing := [name for name in names if name not in state]:
        raise CheckpointError(f"a block's query, key or value is missing: {missing[0]}")
    return torch.cat([state.pop(name) for name in names])


def facebook_vit(state: State) -> State:
    """Map the ViTs of DINO, DINOv2 and MAE: blocks in chunks, register tokens and SwiGLU in Facebook's form.

    Blocks keep their global number inside a chunk (dinov2, vision_transformer.py, BlockChunk). DINOv2 adds positions
    before it inserts the registers, so [CLS] has one and registers have none; in timm's form (``no_embed_class``) the
    position of [CLS] is added to it beforehand.
    """
    chunks: dict[str, set[str]] = {}
    out: State = {}
    for name, value in state.items():
        if match := re.match(r"blocks\.(\d+)\.(\d+)\.", name):
            chunks.setdefault(match[1], set()).add(match[2])
            name = f"blocks.{name[len(match[0]) - len(match[2]) - 1 :]}"
        out[re.sub(r"\.mlp\.w(12|3)\.", lambda m: f".mlp.fc{1 if m[1] == '12' else 2}.", name)] = value
    if len({len(blocks) for blocks in chunks.values()}) > 1:
        sizes = ", ".join(str(len(blocks)) for blocks in chunks.values())
        raise CheckpointError(f"its chunks hold {sizes} blocks: a block is missing")
    if "register_tokens" in out:
        registers = out.pop("register_tokens")
        table, cls = out.get("pos_embed"), out.get("cls_token")
        if table is None or cls is None or table.ndim != 3 or cls.shape != table[:, :1].shape:
            raise CheckpointError("register_tokens without a cls_token and a pos_embed of the same width")
        out |= {"reg_token": registers, "cls_token": cls + table[:, :1], "pos_embed": table[:, 1:]}
    return out


def hf_dinov3(state: State) -> State:
    """Map a DINOv3 of Hugging Face: join query, key and value, and name both parts of a gated MLP."""
    out = {}
    for name, value in state.items():
        gated = name.replace(".mlp.fc1.", ".mlp.fc1_g.") in state
        out[name.replace(".mlp.fc1.", ".mlp.fc1_x.") if gated else name] = value
    for name in [name for name in out if name.endswith(".attn.q.weight")]:
        attn = name.removesuffix("q.weight")
        out[f"{attn}qkv.weight"] = _pop_joined(out, [f"{attn}{part}.weight" for part in "qkv"])
        for part in "qv":
            if f"{attn}{part}.bias" in out:
                out[f"{attn}{part}_bias"] = out.pop(f"{attn}{part}.bias")
    return out


def meta_dinov3(state: State) -> State:
    """Map a DINOv3 of facebookresearch: keys without bias, as timm's (``LinearKMaskedBias``, layers/attention.py).

    If keys have a bias that is neither masked nor zero, ``attn.qkv.bias`` stays as it is.
    """
    state = {name: value for name, value in state.items() if name}
    masked = {name.removesuffix("_mask") for name in state if name.endswith(".attn.qkv.bias_mask")}
    biases = [name for name in state if name.endswith(".attn.qkv.bias")]
    whole = any(bool(state[name].chunk(3)[1].any()) for name in biases if name not in masked)
    out = {name: value for name, value in state.items() if not name.endswith("_mask")}
    for name in () if whole else biases:
        q, _, v = out.pop(name).chunk(3)
        attn = name.removesuffix("qkv.bias")
        out |= {f"{attn}q_bias": q, f"{attn}v_bias": v}
    return out


NAMINGS = (
    Naming("timm's or torchvision's ResNet", (r"conv1\.weight", r"layer1\.0\.")),
    Naming("Facebook's DINOv3", (r"storage_tokens$", r"blocks\.0\."), META_DINOV3, meta_dinov3),
    Naming("timm's or Facebook's ViT", (r"patch_embed\.proj\.weight", r"blocks\.0\."), finish=facebook_vit),
    Naming("torchvision's ViT", (r"conv_proj\.", r"encoder\.layers\.encoder_layer_0\."), TORCHVISION_VIT),
    Naming("Hugging Face's DINOv3", (r"embeddings\.register_tokens$", r"(model\.)?layer\.0\."), HF_DINOV3, hf_dinov3),
    Naming("Hugging Face's ViT", (r"embeddings\.patch_embeddings\.",), HF_VIT, join_qkv),
    Naming("Hugging Face's ResNet", (r"embedder\.embedder\.", r"encoder\.stages\.0\."), HF_RESNET),
    Naming("children of a ResNet in a row", (r"0\.weight", r"4\.0\.conv1\."), CHILDREN),
)


BY_NAME = Naming("timm", ())  # for a model that the user names: any weight names


def naming_of(names: list[str]) -> Naming | None:
    """Return the naming that ``names`` follow, None if it is not known."""
    return next(
        (naming for naming in NAMINGS if all(any(re.match(mark, name) for name in names) for mark in naming.marks)),
        None,
    )


def to_timm(state: State, naming: Naming) -> State:
    """Return the encoder in ``state`` in timm's names, without weights that are not part of it."""
    renamed = {}
    for name, value in state.items():
        if naming is not BY_NAME and NOT_ENCODER.match(name):
            continue
        for pattern, new in naming.rules:
            name = re.sub(pattern, new, name)
        if naming.rules:  # block numbers that count from elsewhere
            name = re.sub(r"(\d)([+-])(\d)", lambda m: str(int(m[1]) + int(m[2] + m[3])), name)
        renamed[name] = value
    return naming.finish(renamed)
