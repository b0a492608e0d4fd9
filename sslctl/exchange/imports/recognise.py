"""Import of another tool's file: its layout recognised, its names mapped, its network built from the shapes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ...backbones import Backbone, hollow_backbone, is_rotary_arch
from ...errors import CheckpointError, SpecError, SslctlError, closest
from ...runs.checkpoint import digest, refuse_mismatch
from ...runs.encoder import LoadedEncoder
from ...runs.meta import DataFacts, ImageSpec, Imported, Meta
from ...spec.parsing import check_spec
from ...spec.schema import BackboneSpec
from .container import ForeignFile, read_foreign
from .layouts import HERE, LAYOUTS, REFUSED, Layout, Which, begins, recognise
from .names import BY_NAME, NOT_ENCODER, Naming, naming_of, to_timm
from .shapes import PERIODS, are_rounded, resnet_spec, rotary_native_size, rotary_vit_spec, usual_heads, vit_spec

Branch = Literal["auto", "online", "momentum"]
State = Mapping[str, Tensor]
BRANCHES: dict[Which, str] = {"online": "student (online)", "momentum": "teacher (momentum)"}
PREFIX = "encoder."  # of the tensors in a checkpoint
UNKNOWN = "unknown"
FIRST = re.compile(r"(.*?)(layer1\.0\.conv1\.weight|blocks\.0\.(0\.)?norm1\.weight)$")


@dataclass(frozen=True)
class ImportOptions:
    """Options of an import: layout, branch, timm's name and arguments, a ViT's depth and heads."""

    layout: str | None = None
    branch: Branch = "auto"
    arch: str | None = None
    depth: int | None = None
    heads: int | None = None
    args: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Extracted:
    """The encoder's ``tensors`` in the file's own names after ``prefix``, and the ``left_over`` names by group."""

    layout: Layout
    naming: Naming
    prefix: str
    branch: Which | None  # None if the file holds a single encoder
    complete: bool  # whether another branch has the same layers, so that none is missing
    tensors: State
    left_over: dict[str, list[str]]

    def summary(self) -> dict[str, Any]:
        """Return the fields of ``Imported`` that the file decides."""
        return {
            "layout": self.layout.name,
            "title": self.layout.title,
            "method": self.layout.method,
            "branch": self.branch and BRANCHES[self.branch],
            "names": self.naming.title,
            "prefix": self.prefix,
            "left_over": {group: len(names) for group, names in self.left_over.items()},
        }


def import_file(path: Path, options: ImportOptions | None = None) -> tuple[LoadedEncoder, Extracted]:
    """Import the encoder in the file ``path``, every weight of it, and return what was extracted with it.

    Raises CheckpointError for a file that cannot be read without running code, that has no known or an ambiguous
    layout, or that holds less or more than a complete encoder; SpecError for options that do not fit.
    """
    options = options or ImportOptions()
    file = read_foreign(path)
    layout, nest = find_layout(file, options.layout, options.arch)
    return build_encoder(file, layout, nest, options)


def find_layout(file: ForeignFile, requested: str | None, arch: str | None = None) -> tuple[Layout, str]:
    """Return the layout of a file, by its ``requested`` name if there is one, and the prefix it is nested under.

    Weights of timm's ``arch`` are assumed to be in timm's names if no layout is recognised.
    """
    if requested is not None:
        names = [layout.name for layout in LAYOUTS]
        layout = next((entry for entry in LAYOUTS if entry.name == requested), None)
        if layout is None:
            raise SpecError(f"--layout '{requested}': unknown{closest(requested, names)}", f"one of {', '.join(names)}")
        fits = [n for n in layout.nests if any(begins(file.tensors, n + p) for p in layout.online + layout.momentum)]
        return layout, max(fits, key=len, default="")
    recognised = recognise(file.tensors, file.top)
    if recognised is None and arch is not None:
        return Layout("timm_named", f"timm's {arch}", HERE), ""
    return recognised if recognised is not None else (_fallback_layout(file), "")


def build_encoder(
    file: ForeignFile, layout: Layout, nest: str, options: ImportOptions
) -> tuple[LoadedEncoder, Extracted]:
    """Build the encoder in ``file`` of a known layout. Raises as ``import_file``."""
    extracted = _extract(file, layout, nest, options)
    path = file.path
    try:
        state = to_timm(dict(extracted.tensors), extracted.naming)
        backbone, spec, size = _build(state, layout, options, extracted.complete)
    except SslctlError as e:
        raise CheckpointError(f"{path}: read as {layout.title}: {e.message}", e.hint) from e
    expected = backbone.timm_state()
    periods = state.pop(PERIODS, None)
    for name in extracted.tensors:
        if (head := NOT_ENCODER.match(name)) and name not in expected:
            extracted.left_over.setdefault(extracted.prefix + head[0].rstrip("."), []).append(extracted.prefix + name)
            state.pop(name, None)
    for name in expected.keys() - state.keys():
        if name.endswith("num_batches_tracked"):  # old files lack it, and evaluation needs none
            state[name] = torch.zeros((), dtype=torch.int64)
    refuse_mismatch(path, expected, state, f"read as {layout.title}: {spec.arch}, its names after '{extracted.prefix}'")
    backbone.load_timm_state({name: _copy(path, name, value) for name, value in state.items()}, assign=True)
    image = ImageSpec(size=size, mean=layout.mean, std=layout.std)
    source = Imported(file=path.name, **extracted.summary(), wrappers=file.wrappers)
    notes = [layout.note] if layout.note and options.layout is None else []
    if periods is not None and are_rounded(periods):
        notes.append(
            "the file rounds the periods of its positions to bfloat16; sslctl, like timm and transformers, does not"
        )
    if (
        backbone.is_vit
        and periods is None
        and not (options.arch or options.heads or layout.heads or usual_heads(backbone.dim))
    ):
        notes.append(f"no shape shows the number of attention heads: {backbone.heads} are assumed; see --heads")
    return as_loaded(backbone, spec, image, source, path, notes), extracted


def as_loaded(
    backbone: Backbone, spec: BackboneSpec, image: ImageSpec, source: Imported, path: Path, notes: list[str]
) -> LoadedEncoder:
    """Return a LoadedEncoder for weights of another tool: its data is unknown and its step 0."""
    method = source.method or UNKNOWN
    full = check_spec({"data": {"path": UNKNOWN}, "backbone": spec.model_dump(mode="json"), "method": {"name": method}})
    meta = Meta(
        method=method,
        spec=full.dump(),
        encoder=PREFIX,
        image=image,
        data=DataFacts(name=UNKNOWN),
        imported=source,
        sha256=digest({PREFIX + name: value for name, value in backbone.state_dict().items()}),
    ).but()
    return LoadedEncoder(backbone.eval().requires_grad_(False), full, meta, path, notes)


def _extract(file: ForeignFile, layout: Layout, nest: str, options: ImportOptions) -> Extracted:
    which: Which = layout.branch if options.branch == "auto" else options.branch
    prefixes = {"online": layout.online, "momentum": layout.momentum}
    if not prefixes[which]:
        raise SpecError(f"--branch {options.branch}: {layout.title} files contain a single encoder", "leave it out")
    for prefix in (nest + word for word in prefixes[which]):
        tensors = _after(file.tensors, prefix)
        naming = naming_of(list(tensors)) or (BY_NAME if options.arch and tensors else None)
        if naming is not None:
            break
    else:
        where = " or ".join(f"'{nest + word}'" for word in prefixes[which])
        raise CheckpointError(f"{file.path}: read as {layout.title}, but no known encoder is under {where}")
    left_over: dict[str, list[str]] = {}
    for name in file.tensors:
        if not name.startswith(prefix):
            left_over.setdefault(".".join(name.split(".")[:2]) if "." in name else name, []).append(name)
    complete = False
    for where in (nest + word for word in prefixes["online" if which == "momentum" else "momentum"]):
        layers = [name for name in _after(file.tensors, where) if re.match(r"(blocks|layer\d|layers)\.", name)]
        if missing := [name for name in layers if name not in tensors]:
            raise CheckpointError(f"{file.path}: missing: {prefix}{missing[0]}, which exists under '{where}'")
        complete = complete or bool(layers)
    return Extracted(layout, naming, prefix, which if layout.momentum else None, complete, tensors, left_over)


def _build(state: State, layout: Layout, options: ImportOptions, whole: bool) -> tuple[Backbone, BackboneSpec, int]:
    """Return an encoder without weights for ``state`` (all its blocks if ``whole``), its spec and image size in px."""
    native, heads = 224, options.heads or layout.heads
    vit, position = "patch_embed.proj.weight" in state, {}
    if options.arch is not None and vit and is_rotary_arch(options.arch):
        native = rotary_native_size(state)
    elif vit:
        rotary = "blocks.0.gamma_1" in state and "pos_embed" not in state
        if rotary:
            spec, native = rotary_vit_spec(state, heads, options.depth, whole)
        else:
            spec, native = vit_spec(state, heads, layout.position, options.depth, whole)
            position = {"position": spec.position}
        spec = spec.model_copy(update={"norm_eps": layout.norm_eps})
    elif options.arch is None:
        spec, native = resnet_spec(state, layout.padding)
    if options.arch is not None:
        small = "conv1.weight" in state and state["conv1.weight"].shape[-1] == 3
        stem = "small" if small else "imagenet"
        spec = BackboneSpec.model_validate({"arch": options.arch, "stem": stem, "args": dict(options.args), **position})
        native = 32 if small else native
    size = min(layout.size or native, native) if vit else layout.size or native
    if size != native and vit:
        spec = spec.model_copy(update={"native_size": native})
    return hollow_backbone(spec, size), spec, size


def _fallback_layout(file: ForeignFile) -> Layout:
    """Return a layout for a file of an unknown tool with a single encoder. Raises CheckpointError for any other."""
    names, path = file.tensors, file.path
    prefixes = list(dict.fromkeys(match[1] for name in names if (match := FIRST.match(name))))
    if not prefixes:
        reason = next(
            (why for word, why in REFUSED.items() if any(begins(names, n + word) for n in ("", "model."))), ""
        )
        some = ", ".join(list(names)[:10])
        raise CheckpointError(f"{path}: no known encoder: {reason or f'its names begin {some}'}")
    if len(prefixes) > 1:
        raise CheckpointError(f"{path}: no known layout, with encoders under {', '.join(map(repr, prefixes))}")
    prefix = prefixes[0]
    if f"{prefix}fc.weight" in names and not any(name.endswith("num_batches_tracked") for name in names):
        if _named_by_hash(path):  # as torchvision's downloads are
            return Layout("torchvision", "torchvision ResNet", HERE)
        raise CheckpointError(
            f"{path}: a ResNet saved by torchvision before 2019, or BYOL's converted from JAX, which pads differently;"
            " the file does not show which",
            "sslctl import FILE --layout torchvision, or --layout byol_converted",
        )
    return Layout("other", "an unknown tool", (prefix,), note=f"an unknown tool's layout: an encoder under '{prefix}'")


def _named_by_hash(path: Path) -> bool:
    stated = re.search(r"-([0-9a-f]{8,})\.pth$", path.name)
    with path.open("rb") as file:
        return stated is not None and hashlib.file_digest(file, "sha256").hexdigest().startswith(stated[1])


def _after(tensors: State, prefix: str) -> State:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _copy(path: Path, name: str, value: Tensor) -> Tensor:
    """Copy a weight to float32, independent of the file."""
    if name.endswith("num_batches_tracked"):
        return value.clone()
    if not value.is_floating_point():
        raise CheckpointError(f"{path}: {name} holds {value.dtype}, not floating-point numbers")
    if not bool(torch.isfinite(value).all()):
        raise CheckpointError(f"{path}: {name} holds values that are not finite")
    return value.to(torch.float32, copy=True).contiguous()
