"""Import of model folders: timm's (config.json with an architecture) and Hugging Face's (with a model type)."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...errors import CheckpointError
from ...runs.encoder import LoadedEncoder
from .container import ForeignFile, read_foreign
from .layouts import HERE, Layout
from .recognise import Extracted, ImportOptions, build_encoder, find_layout

CONFIG = "config.json"
WEIGHTS = ("model.safetensors", "pytorch_model.safetensors", "model*.safetensors", "pytorch_model*.bin")
HF_TYPES = ("vit", "dinov2", "dinov2_with_registers", "dinov3_vit", "resnet")
# Settings that the import does not read, with the only value it supports.
HF_REQUIRED = {
    "hidden_act": "gelu", "downsample_in_first_stage": False, "downsample_in_bottleneck": False, "rope_theta": 100.0,
    "key_bias": False, "proj_bias": True, "mlp_bias": True,
}  # fmt: skip


def is_folder(path: Path) -> bool:
    """Return whether ``path`` is a folder of timm or Hugging Face, or the weight file in one."""
    home = path if path.is_dir() else path.parent
    if not (path.is_dir() or path.name.startswith(("model", "pytorch_model"))) or not (home / CONFIG).is_file():
        return False
    return bool({"architecture", "model_type"} & _json(home / CONFIG).keys())


def import_folder(path: Path, options: ImportOptions | None = None) -> tuple[LoadedEncoder, Extracted]:
    """Import the encoder in the folder ``path`` or in that of the weight file ``path``.

    The configuration states the architecture (timm) or the number of heads (Hugging Face), and the preprocessing.
    Raises CheckpointError if it cannot be read or describes another kind of model.
    """
    options = options or ImportOptions()
    home = path if path.is_dir() else path.parent
    config = _json(home / CONFIG)
    file = _read_weights(home)
    if "architecture" in config:
        return _import_timm(file, config, options)
    if config.get("model_type") not in HF_TYPES:
        kind = config.get("model_type") or config.get("architectures") or "unknown"
        raise CheckpointError(f"{home}: a model of type {kind}; supported are {', '.join(HF_TYPES)}")
    layout, nest = find_layout(file, "hf")
    return build_encoder(file, _hf_layout(home, config, layout), nest, options)


def _import_timm(file: ForeignFile, config: dict[str, Any], options: ImportOptions) -> tuple[LoadedEncoder, Extracted]:
    cfg, args = config.get("pretrained_cfg") or {}, dict(config.get("model_args") or {})
    for key in ("img_size", "dynamic_img_size", "num_classes", "in_chans", "pretrained"):
        args.pop(key, None)
    layout = Layout("timm_folder", "timm's folder", HERE)
    layout = replace(layout, **_image_fields(cfg.get("mean"), cfg.get("std"), (cfg.get("input_size") or [0])[-1]))
    arch = str(config["architecture"])
    return build_encoder(file, layout, "", replace(options, arch=options.arch or arch, args=args))


def _hf_layout(home: Path, config: dict[str, Any], layout: Layout) -> Layout:
    gated = {"hidden_act": "silu"} if config.get("use_gated_mlp") else {}
    for key, value in (HF_REQUIRED | gated).items():
        if config.get(key, value) != value and not (key == "hidden_act" and config["model_type"] == "resnet"):
            raise CheckpointError(f"{home / CONFIG}: {key} is {config[key]!r}; only {value!r} is supported")
    processor = _json(home / "preprocessor_config.json") if (home / "preprocessor_config.json").is_file() else {}
    size = processor.get("crop_size") or processor.get("size") or {}
    side = size if isinstance(size, int) else size.get("height") or size.get("shortest_edge") or 0
    image = _image_fields(processor.get("image_mean"), processor.get("image_std"), side)
    if not processor:
        image["note"] = "the folder has no preprocessor_config.json: ImageNet's mean and standard deviation are assumed"
    eps = config.get("layer_norm_eps")
    return replace(layout, heads=config.get("num_attention_heads"), norm_eps=None if eps == 1e-6 else eps, **image)


def _image_fields(mean: Any, std: Any, size: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {"size": int(size)} if size else {}
    for name, value in (("mean", mean), ("std", std)):
        if isinstance(value, list | tuple) and len(value) == 3:
            fields[name] = tuple(float(number) for number in value)
    return fields


def _read_weights(home: Path) -> ForeignFile:
    for pattern in WEIGHTS:
        parts = [read_foreign(path) for path in sorted(home.glob(pattern))]
        if parts:
            file = parts[0]
            for part in parts[1:]:
                file.tensors |= part.tensors
            return file
    raise CheckpointError(f"{home}: has a {CONFIG} but no weights", f"one of {', '.join(WEIGHTS)}")


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as e:
        raise CheckpointError(f"{path}: {e}") from e
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: not a JSON object")
    return content
