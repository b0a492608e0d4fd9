"""timm's models by name, with its pretrained weights or random ones."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data import resolve_data_config

from ...backbones import build_backbone
from ...errors import MachineError, SpecError
from ...runs.checkpoint import refuse_mismatch
from ...runs.encoder import LoadedEncoder
from ...runs.meta import ImageSpec, Imported
from ...spec.schema import BackboneSpec
from .recognise import as_loaded

PLAIN = {"input_size": (3, 224, 224)}  # for a model whose images timm does not describe


def open_by_name(name: str, pretrained: bool) -> LoadedEncoder:
    """Open timm's model ``name``, such as ``resnet50`` or ``vit_small_patch14_dinov2.lvd142m``.

    The weights come from timm's cache or the hub; without ``pretrained`` they are random (seed 0), and a note says so.
    Raises SpecError for an unknown or unsupported name or one without weights, MachineError if they cannot be fetched.
    """
    arch, _, tag = name.partition(".")
    cfg = resolve_data_config(pretrained_cfg=_config(arch, name))
    size = cfg["input_size"][-1]
    spec = BackboneSpec(arch=arch, stem="imagenet")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone = build_backbone(spec, size)
    notes = []
    if pretrained:
        expected = backbone.timm_state()
        state = _pretrained(name, expected)
        refuse_mismatch(f"timm:{name}", expected, state)
        backbone.load_timm_state(state)
    else:
        notes.append(f"random:{name} has RANDOM weights (seed 0), without any training")
    image = ImageSpec(size=size, mean=tuple(cfg["mean"]), std=tuple(cfg["std"]))
    source = Imported(layout="timm" if pretrained else "random", name=name, tag=tag or None)
    return as_loaded(backbone, spec, image, source, Path(f"{'timm' if pretrained else 'random'}:{name}"), notes)


def _config(arch: str, name: str) -> dict[str, Any]:
    if arch not in timm.list_models():
        return PLAIN  # build_backbone raises with similar names
    tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{arch}.*")]
    tag = name.partition(".")[2]
    if tag and tag not in tags:
        raise SpecError(f"timm:{name}: {arch} has no weights '{tag}'", f"timm has {', '.join(tags) or 'none'}")
    cfg = timm.get_pretrained_cfg(name)
    return PLAIN if cfg is None else dict(cfg.to_dict())


def _pretrained(name: str, expected: Collection[str]) -> dict[str, torch.Tensor]:
    """Return the pretrained weights of timm's ``name`` whose names are in ``expected``."""
    hint = f"try again with a network, timm caches them; random:{name} for random weights"
    if not timm.is_model_pretrained(name):
        raise SpecError(f"timm:{name}: timm has no weights for it", hint.partition("; ")[2])
    try:
        theirs = timm.create_model(name, pretrained=True, num_classes=0).state_dict()
    except Exception as e:  # the hub, the network and timm raise errors of many kinds
        reason = next(iter(str(e).strip().splitlines()), type(e).__name__)
        raise MachineError(f"timm:{name}: its weights cannot be fetched: {reason}", hint) from e
    return {key: value for key, value in theirs.items() if key in expected}
