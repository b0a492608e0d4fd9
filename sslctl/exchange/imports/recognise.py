"""A file of another tool as an encoder of ours: recognised, renamed, built from its shapes, and nothing left open."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ...backbones import Backbone, hollow_backbone
from ...errors import CheckpointError, SpecError, SslctlError, closest
from ...runs.checkpoint import refuse_mismatch
from ...runs.encoder import LoadedEncoder
from ...runs.meta import ImageSpec, Imported
from ...spec.schema import BackboneSpec
from .container import Foreign, read_foreign
from .facts import as_loaded
from .layouts import HERE, LAYOUTS, REFUSED, Layout, Which, begins, recognise
from .names import BY_NAME, NO_ENCODER, Naming, naming_of, to_timm
from .shapes import resnet_spec, usual_heads, vit_spec

Branch = Literal["auto", "online", "momentum"]
State = Mapping[str, Tensor]
WORDS: dict[Which, str] = {"online": "student (online)", "momentum": "teacher (momentum)"}
FIRST = re.compile(r"(.*?)(layer1\.0\.conv1\.weight|blocks\.0\.(0\.)?norm1\.weight)$")


@dataclass(frozen=True)
class Wishes:
    """What may be said beside a file: its layout, which branch, timm's name and arguments, a ViT's depth and heads."""

    layout: str | None = None
    branch: Branch = "auto"
    arch: str | None = None
    depth: int | None = None
    heads: int | None = None
    args: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Taken:
    """What was taken from a file: ``held``, in the file's own names after ``prefix``; and ``left``, by group."""

    layout: Layout
    naming: Naming
    prefix: str
    branch: Which | None  # None where the file holds one encoder alone
    twice: bool  # whether another branch has the same layers: then none is missing
    held: State
    left: dict[str, list[str]]

    def said(self) -> dict[str, Any]:
        return {
            "layout": self.layout.name,
            "title": self.layout.title,
            "method": self.layout.method,
            "branch": self.branch and WORDS[self.branch],
            "names": self.naming.title,
            "prefix": self.prefix,
            "left_over": {group: len(names) for group, names in self.left.items()},
        }


def import_file(path: Path, wishes: Wishes | None = None) -> tuple[LoadedEncoder, Taken]:
    """The encoder in the file at ``path`` with every one of its weights, and what was taken from the file.

    Raises CheckpointError, naming the trouble, for a file that cannot be read without running code, that has no known
    layout or could be two things, or that holds less or more than a complete encoder; SpecError for wishes that cannot
    be met.
    """
    wishes = wishes or Wishes()
    found = read_foreign(path)
    layout, nest = find_layout(found, wishes.layout, wishes.arch)
    return encoder_in(found, layout, nest, wishes)


def find_layout(found: Foreign, wished: str | None, arch: str | None = None) -> tuple[Layout, str]:
    """The layout of a file and the nest in which it lies; ``wished`` is a name that a person gave.

    Weights that ``arch`` says to be some model of timm's are in its names where no other layout is recognised.
    """
    if wished is not None:
        names = [layout.name for layout in LAYOUTS]
        layout = next((one for one in LAYOUTS if one.name == wished), None)
        if layout is None:
            raise SpecError(f"--layout '{wished}': unknown{closest(wished, names)}", f"one of {', '.join(names)}")
        fits = [n for n in layout.nests if any(begins(found.tensors, n + p) for p in layout.online + layout.momentum)]
        return layout, max(fits, key=len, default="")
    known = recognise(found.tensors, found.top)
    if known is None and arch is not None:
        return Layout("timm_named", f"timm's {arch}", HERE), ""
    return known if known is not None else (_unknown(found), "")


def encoder_in(found: Foreign, layout: Layout, nest: str, wishes: Wishes) -> tuple[LoadedEncoder, Taken]:
    """See ``import_file``: the encoder in what was read of a file, for a layout that is known."""
    taken = _take(found, layout, nest, wishes)
    path = found.path
    try:
        state = to_timm(dict(taken.held), taken.naming)
        backbone, spec, size = _build(state, layout, wishes, taken.twice)
    except SslctlError as e:
        raise CheckpointError(f"{path}: read as {layout.title}: {e.message}", e.hint) from e
    own = backbone.timm_state()
    for name in taken.held:
        if (head := NO_ENCODER.match(name)) and name not in own:
            taken.left.setdefault(taken.prefix + head[0].rstrip("."), []).append(taken.prefix + name)
            state.pop(name, None)
    for name in own.keys() - state.keys():
        if name.endswith("num_batches_tracked"):  # old files lack it, and evaluation needs none
            state[name] = torch.zeros((), dtype=torch.int64)
    refuse_mismatch(path, own, state, f"read as {layout.title}: {spec.arch}, its names after '{taken.prefix}'")
    backbone.load_timm_state({name: _owned(path, name, value) for name, value in state.items()}, assign=True)
    image = ImageSpec(size=size, mean=layout.mean, std=layout.std)
    source = Imported(file=path.name, **taken.said(), wrappers=found.wrappers)
    notes = [layout.note] if layout.note and wishes.layout is None else []
    if backbone.is_vit and not (wishes.arch or wishes.heads or layout.heads or usual_heads(backbone.dim)):
        notes.append(f"heads of attention show in no shape: {backbone.heads} are assumed (or import it with --heads)")
    return as_loaded(backbone, spec, image, source, path, notes), taken


def _take(found: Foreign, layout: Layout, nest: str, wishes: Wishes) -> Taken:
    which: Which = layout.takes if wishes.branch == "auto" else wishes.branch
    prefixes = {"online": layout.online, "momentum": layout.momentum}
    if not prefixes[which]:
        raise SpecError(f"--branch {wishes.branch}: {layout.title} files hold one encoder alone", "leave it out")
    for prefix in (nest + word for word in prefixes[which]):
        held = _after(found.tensors, prefix)
        naming = naming_of(list(held)) or (BY_NAME if wishes.arch and held else None)
        if naming is not None:
            break
    else:
        where = " or ".join(f"'{nest + word}'" for word in prefixes[which])
        raise CheckpointError(f"{found.path}: read as {layout.title}, but there is no known encoder under {where}")
    left: dict[str, list[str]] = {}
    for name in found.tensors:
        if not name.startswith(prefix):
            left.setdefault(".".join(name.split(".")[:2]) if "." in name else name, []).append(name)
    twice = False
    for where in (nest + word for word in prefixes["online" if which == "momentum" else "momentum"]):
        layers = [name for name in _after(found.tensors, where) if re.match(r"(blocks|layer\d|layers)\.", name)]
        if missing := [name for name in layers if name not in held]:
            raise CheckpointError(f"{found.path}: missing: {prefix}{missing[0]}, which is there under '{where}'")
        twice = twice or bool(layers)
    return Taken(layout, naming, prefix, which if layout.momentum else None, twice, held, left)


def _build(state: State, layout: Layout, wishes: Wishes, whole: bool) -> tuple[Backbone, BackboneSpec, int]:
    """An encoder without weights for ``state`` (all its blocks if ``whole``), its spec, its images' side in px."""
    named = wishes.arch is not None
    native = 224
    if "patch_embed.proj.weight" in state:
        spec, native = vit_spec(state, wishes.heads or layout.heads, layout.position, wishes.depth, whole)
        spec = spec.model_copy(update={"norm_eps": layout.norm_eps})
    elif not named:
        spec, native = resnet_spec(state, layout.padding)
    if named:
        small = "conv1.weight" in state and state["conv1.weight"].shape[-1] == 3
        position = {"position": spec.position} if "pos_embed" in state else {}
        stem = "small" if small else "imagenet"
        spec = BackboneSpec.model_validate({"arch": wishes.arch, "stem": stem, "args": dict(wishes.args), **position})
        native = 32 if small else native
    vit = "patch_embed.proj.weight" in state
    size = min(layout.size or native, native) if vit else layout.size or native
    if size != native and vit:
        spec = spec.model_copy(update={"native_size": native})
    return hollow_backbone(spec, size), spec, size


def _unknown(found: Foreign) -> Layout:
    """A layout for a file of no known tool that holds one encoder; CheckpointError for any other."""
    names, path = found.tensors, found.path
    prefixes = list(dict.fromkeys(match[1] for name in names if (match := FIRST.match(name))))
    if not prefixes:
        reason = next(
            (why for word, why in REFUSED.items() if any(begins(names, n + word) for n in ("", "model."))), ""
        )
        some = ", ".join(list(names)[:10])
        raise CheckpointError(f"{path}: no encoder that is known: {reason or f'its names begin {some}'}")
    if len(prefixes) > 1:
        raise CheckpointError(f"{path}: no layout that is known, with encoders under {', '.join(map(repr, prefixes))}")
    prefix = prefixes[0]
    if f"{prefix}fc.weight" in names and not any(name.endswith("num_batches_tracked") for name in names):
        if _bears_its_hash(path):  # torchvision's downloads are named after their bytes
            return Layout("torchvision", "torchvision ResNet", HERE)
        raise CheckpointError(
            f"{path}: a ResNet as torchvision saved it before 2019, or BYOL's converted from JAX, which pads otherwise;"
            " the file does not say which",
            "sslctl import FILE --layout torchvision, or --layout byol_converted",
        )
    return Layout("other", "no known tool's", (prefix,), note=f"no known tool's layout: an encoder under '{prefix}'")


def _bears_its_hash(path: Path) -> bool:
    stated = re.search(r"-([0-9a-f]{8,})\.pth$", path.name)
    with path.open("rb") as file:
        return stated is not None and hashlib.file_digest(file, "sha256").hexdigest().startswith(stated[1])


def _after(tensors: State, prefix: str) -> State:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _owned(path: Path, name: str, value: Tensor) -> Tensor:
    """A copy in float32 that the file is not needed for any more."""
    if name.endswith("num_batches_tracked"):
        return value.clone()
    if not value.is_floating_point():
        raise CheckpointError(f"{path}: {name} holds {value.dtype}, not floating-point numbers")
    if not bool(torch.isfinite(value).all()):
        raise CheckpointError(f"{path}: {name} holds values that are not finite")
    return value.to(torch.float32, copy=True).contiguous()
