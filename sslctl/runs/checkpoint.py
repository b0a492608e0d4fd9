"""One safetensors file holds a whole run: every tensor by name, the rest as JSON in its header; atomic and strict."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import Tensor

from .. import __version__
from ..backbones import Backbone, hollow_backbone
from ..errors import CheckpointError, DivergedError, SslctlError
from ..files import write_atomically
from ..methods.base import Method
from ..spec.schema import SCHEMA, Spec
from ..spec.parsing import check_spec

MAX_HEADER = 16 << 20
METHOD = "method."
OPTIMIZER = "optimizer."
DIVERGED_HINT = "the last good checkpoint stands; go on from it with a lower --lr or another --precision"
Meta = dict[str, Any]


def snapshot(method: Method[Any], optimizer: torch.optim.Optimizer, meta: Meta) -> tuple[dict[str, Tensor], Meta]:
    """A copy of the run's state, tensors and what to say beside them, which training on does not change.

    ``meta`` (with the step) is completed by schema, encoder prefix and versions. Raises DivergedError where a value is
    not finite.
    """
    tensors = {METHOD + name: _copied(value) for name, value in method.state_dict().items()}
    for name, state in _optimizer_state(optimizer):
        tensors |= {f"{OPTIMIZER}{name}.{key}": _copied(value) for key, value in state.items()}
    for name, value in tensors.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise DivergedError(
                f"step {meta['step']} is not saved: {name} holds values that are not finite", DIVERGED_HINT
            )
    versions = {"sslctl": __version__, "torch": torch.__version__}
    return tensors, meta | {"schema": SCHEMA, "encoder": _encoder_prefix(method), "versions": versions}


def write(path: Path, tensors: dict[str, Tensor], meta: Meta) -> None:
    """Put ``tensors`` and ``meta``, with the sha256 of the tensors, into the file ``path``: whole, or not at all.

    Raises MachineError where the disk refuses.
    """
    meta = meta | {"sha256": digest(tensors)}
    write_atomically(path, serialize(tensors, {"format": "pt", "sslctl": json.dumps(meta, allow_nan=False)}))


def restore(path: Path, method: Method[Any], optimizer: torch.optim.Optimizer) -> Meta:
    """Put the state in ``path`` into ``method`` and ``optimizer`` and return the file's meta.

    Every tensor of the method and the optimizer comes from the file, and every tensor of the file is used; otherwise
    CheckpointError names what is missing or left over.
    """
    meta, tensors = read(path)
    if "imported" in meta:
        hint = "score it (sslctl knn), or train it with labels (sslctl finetune)"
        raise CheckpointError(f"{path}: an imported encoder: no run that could go on", hint)
    own = method.state_dict()
    held = {k.removeprefix(METHOD): v for k, v in tensors.items() if k.startswith(METHOD)}
    refuse_mismatch(path, own, held)
    method.load_state_dict(held)
    rest = {k.removeprefix(OPTIMIZER): v for k, v in tensors.items() if k.startswith(OPTIMIZER)}
    for group in optimizer.param_groups:
        for name, p in zip(group["names"], group["params"], strict=True):
            state = {k.removeprefix(name + "."): rest.pop(k) for k in list(rest) if k.rpartition(".")[0] == name}
            if state:
                optimizer.state[p] = {k: _like(v, p) for k, v in state.items()}
    if rest:
        raise CheckpointError(f"{path}: optimizer state of unknown parameters: {', '.join(sorted(rest)[:5])}")
    return meta


def read_meta(path: Path) -> Meta:
    """The JSON in the header of a checkpoint; CheckpointError where ``path`` is none of ours."""
    with _opened(path) as file:
        return _meta_of(path, file)


def read(path: Path) -> tuple[Meta, dict[str, Tensor]]:
    """Meta and all tensors, their sha256 verified."""
    with _opened(path) as file:
        meta = _meta_of(path, file)
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping
    if digest(tensors) != meta.get("sha256"):
        raise CheckpointError(f"{path}: the tensors do not have the sha256 that the file states; it is damaged")
    return meta, tensors


@dataclass
class LoadedEncoder:
    """An encoder in eval mode, and what its file says about it: a checkpoint's, or what stands for one.

    ``meta`` has the keys of a checkpoint (``sha256`` is that of the encoder's tensors where it is no run of ours);
    ``meta["imported"]`` is there for other people's weights alone. ``notes`` is what whoever uses it must be told.
    """

    backbone: Backbone
    spec: Spec
    meta: Meta
    path: Path
    notes: list[str] = field(default_factory=list)


def load_encoder(path: Path) -> LoadedEncoder:
    """The encoder in a checkpoint file or run directory; only its tensors are read.

    Raises CheckpointError unless every weight of the backbone is there with its shape and none is left over.
    """
    path = find(path)
    with _opened(path) as file:
        meta = _meta_of(path, file)
        prefix = meta["encoder"]
        state = {k.removeprefix(prefix): file.get_tensor(k) for k in file.keys() if k.startswith(prefix)}  # noqa: SIM118
    spec = spec_of(path, meta)
    backbone = hollow_backbone(spec.backbone, meta["image"]["size"])
    refuse_mismatch(path, backbone.state_dict(), state)
    backbone.load_state_dict(state, assign=True)
    return LoadedEncoder(backbone.eval().requires_grad_(False), spec, meta, path)


def spec_of(path: Path, meta: Meta) -> Spec:
    try:
        return check_spec(meta["spec"])
    except SslctlError as e:
        raise CheckpointError(f"{path}: its spec cannot be read: {e.message}", "written by another version?") from e


def find(path: Path) -> Path:
    """``path`` itself where it is a file, the newest valid checkpoint where it is a run directory."""
    if path.is_file():
        return path
    if not path.is_dir():
        raise CheckpointError(f"{path}: no such file or directory", "give a run directory or a .safetensors checkpoint")
    found = newest(path / "checkpoints") if (path / "checkpoints").is_dir() else newest(path)
    if found is None:
        raise CheckpointError(f"{path}: holds no checkpoint", "give a run directory that `sslctl pretrain` printed")
    return found


def newest(directory: Path, skipped: list[str] | None = None, verify: bool = False) -> Path | None:
    """The checkpoint of the highest step that reads well, found by scanning; None where there is no file at all.

    ``skipped`` takes a line for every file passed over; ``verify`` checks the sha256 too. Raises CheckpointError,
    listing the reasons, where files are there and none is good.
    """
    bad: list[str] = []
    good: list[tuple[int, str, Path]] = []
    for path in sorted(directory.glob("*.safetensors")):
        try:
            good.append((int(read_meta(path)["step"]), path.name, path))
        except CheckpointError as e:
            bad.append(e.message)
    for _, _, path in sorted(good, reverse=True):
        try:
            if verify:
                read(path)
        except CheckpointError as e:
            bad.append(e.message)
            continue
        if skipped is not None:
            skipped += bad
        return path
    if bad:
        raise CheckpointError("no checkpoint can be used:\n" + "\n".join(bad), "start anew with --fresh")
    return None


def digest(tensors: dict[str, Tensor]) -> str:
    """sha256 over names, types, shapes and bytes, in the order of names."""
    h = hashlib.sha256()
    for name in sorted(tensors):
        t = tensors[name]
        h.update(f"{name}|{t.dtype}|{tuple(t.shape)}|".encode())
        h.update(t.contiguous().flatten().view(torch.uint8).numpy().data if t.numel() else b"")
    return h.hexdigest()


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    hint = "give a checkpoint that `sslctl pretrain` wrote"
    try:
        with path.open("rb") as file:
            header = int.from_bytes(file.read(8), "little")
        if path.stat().st_size < 8 or header > min(MAX_HEADER, path.stat().st_size):
            raise CheckpointError(f"{path}: not a safetensors file, or cut off", hint)
        with safe_open(path, "pt") as opened:
            yield opened
    except (SafetensorError, OSError) as e:
        raise CheckpointError(f"{path}: {e}", hint) from e


def _meta_of(path: Path, file: Any) -> Meta:
    hint = "give a checkpoint that `sslctl pretrain` wrote"
    try:
        meta = json.loads((file.metadata() or {})["sslctl"])
        complete = isinstance(meta, dict) and {"schema", "spec", "step", "encoder", "image", "sha256"} <= meta.keys()
    except (KeyError, ValueError, RecursionError):
        complete = False
    if not complete:
        raise CheckpointError(f"{path}: a safetensors file, but no checkpoint of sslctl", hint)
    if meta["schema"] > SCHEMA:
        raise CheckpointError(f"{path}: schema {meta['schema']}, newer than {SCHEMA}", "upgrade: pip install -U sslctl")
    return dict(meta)


def _copied(value: Tensor) -> Tensor:
    return torch.empty(value.shape, dtype=value.dtype).copy_(value.detach())


def _like(value: Tensor, p: Tensor) -> Tensor:
    """``value`` on the parameter's device and, where it has its shape, in its layout: fused kernels rely on it."""
    if value.shape == p.shape:
        return torch.empty_like(p, dtype=value.dtype).copy_(value)
    return value.clone() if value.ndim == 0 else value.to(p.device)


def _optimizer_state(optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, dict[str, Tensor]]]:
    for group in optimizer.param_groups:
        for name, p in zip(group["names"], group["params"], strict=True):
            yield name, {k: v for k, v in optimizer.state.get(p, {}).items() if v is not None}


def _encoder_prefix(method: Method[Any]) -> str:
    encoder = method.encoder()
    return f"{METHOD}{next(name for name, module in method.named_modules() if module is encoder)}."


def refuse_mismatch(
    path: Path | str, own: Mapping[str, Tensor], held: Mapping[str, Tensor], hint: str = "it was made with another spec"
) -> None:
    """CheckpointError, naming what is missing, left over or of another shape, unless ``held`` fits ``own``."""
    lines = [f"missing: {k}" for k in own if k not in held]
    lines += [f"left over: {k}" for k in held if k not in own]
    both = [(k, tuple(held[k].shape), tuple(own[k].shape)) for k in own if k in held]
    lines += [f"{k}: {there} in the file, {here} here" for k, there, here in both if there != here]
    if lines:
        more = f"\n… and {len(lines) - 5} more" if len(lines) > 5 else ""
        raise CheckpointError(f"{path} does not fit:\n" + "\n".join(lines[:5]) + more, hint)
