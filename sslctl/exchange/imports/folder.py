"""Folders of other libraries: timm's (config.json with an architecture) and Hugging Face's (with a model type)."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...errors import CheckpointError
from ...runs.encoder import LoadedEncoder
from .container import Foreign, read_foreign
from .layouts import HERE, Layout
from .recognise import Taken, Wishes, encoder_in, find_layout

CONFIG = "config.json"
WEIGHTS = ("model.safetensors", "pytorch_model.safetensors", "model*.safetensors", "pytorch_model*.bin")
HF_TYPES = ("vit", "dinov2", "dinov2_with_registers", "dinov3_vit", "resnet")
# What a configuration may say that is not read here, with what it has to be.
HF_MUST = {
    "hidden_act": "gelu", "downsample_in_first_stage": False, "downsample_in_bottleneck": False, "rope_theta": 100.0,
    "key_bias": False, "proj_bias": True, "mlp_bias": True,
}  # fmt: skip


def is_folder(path: Path) -> bool:
    """Whether ``path`` is a folder of timm's or Hugging Face's, or the file of weights in one."""
    home = path if path.is_dir() else path.parent
    if not (path.is_dir() or path.name.startswith(("model", "pytorch_model"))) or not (home / CONFIG).is_file():
        return False
    return bool({"architecture", "model_type"} & _json(home / CONFIG).keys())


def import_folder(path: Path, wishes: Wishes | None = None) -> tuple[LoadedEncoder, Taken]:
    """The encoder in the folder ``path``, or in that of the file of weights ``path``, and what was taken.

    The configuration says the architecture (timm) or the number of heads (Hugging Face), and how images were prepared.
    Raises CheckpointError where it is unreadable or of another kind of model.
    """
    wishes = wishes or Wishes()
    home = path if path.is_dir() else path.parent
    config = _json(home / CONFIG)
    found = _weights(home)
    if "architecture" in config:
        return _timm(found, config, wishes)
    if config.get("model_type") not in HF_TYPES:
        kind = config.get("model_type") or config.get("architectures") or "nothing known"
        raise CheckpointError(f"{home}: a model of type {kind}; of Hugging Face's, {', '.join(HF_TYPES)} are read")
    layout, nest = find_layout(found, "hf")
    return encoder_in(found, _hf(home, config, layout), nest, wishes)


def _timm(found: Foreign, config: dict[str, Any], wishes: Wishes) -> tuple[LoadedEncoder, Taken]:
    cfg, args = config.get("pretrained_cfg") or {}, dict(config.get("model_args") or {})
    for own in ("img_size", "dynamic_img_size", "num_classes", "in_chans", "pretrained"):
        args.pop(own, None)
    layout = Layout("timm_folder", "timm's folder", HERE)
    layout = replace(layout, **_image(cfg.get("mean"), cfg.get("std"), (cfg.get("input_size") or [0])[-1]))
    arch = str(config["architecture"])
    return encoder_in(found, layout, "", replace(wishes, arch=wishes.arch or arch, args=args))


def _hf(home: Path, config: dict[str, Any], layout: Layout) -> Layout:
    gated = {"hidden_act": "silu"} if config.get("use_gated_mlp") else {}
    for key, wanted in (HF_MUST | gated).items():
        if config.get(key, wanted) != wanted and not (key == "hidden_act" and config["model_type"] == "resnet"):
            raise CheckpointError(f"{home / CONFIG}: {key} is {config[key]!r}; only {wanted!r} is read")
    told = _json(home / "preprocessor_config.json") if (home / "preprocessor_config.json").is_file() else {}
    size = told.get("crop_size") or told.get("size") or {}
    side = size if isinstance(size, int) else size.get("height") or size.get("shortest_edge") or 0
    image = _image(told.get("image_mean"), told.get("image_std"), side)
    if not told:
        image["note"] = "the folder has no preprocessor_config.json: ImageNet's mean and deviation are assumed"
    eps = config.get("layer_norm_eps")
    return replace(layout, heads=config.get("num_attention_heads"), norm_eps=None if eps == 1e-6 else eps, **image)


def _image(mean: Any, std: Any, size: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"size": int(size)} if size else {}
    for name, value in (("mean", mean), ("std", std)):
        if isinstance(value, list | tuple) and len(value) == 3:
            found[name] = tuple(float(number) for number in value)
    return found


def _weights(home: Path) -> Foreign:
    for pattern in WEIGHTS:
        parts = [read_foreign(path) for path in sorted(home.glob(pattern))]
        if parts:
            whole = parts[0]
            for part in parts[1:]:
                whole.tensors |= part.tensors
            return whole
    raise CheckpointError(f"{home}: a {CONFIG} but no weights", f"one of {', '.join(WEIGHTS)}")


def _json(path: Path) -> dict[str, Any]:
    try:
        held = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as e:
        raise CheckpointError(f"{path}: {e}") from e
    if not isinstance(held, dict):
        raise CheckpointError(f"{path}: no JSON object")
    return held
