"""One safetensors file holds a whole run: every tensor by name, the rest as JSON in its header; atomic and strict."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import Tensor

from ..errors import CheckpointError, DivergedError
from ..files import write_atomically
from ..methods.base import Method
from .meta import HINT, Meta, parse_meta

MAX_HEADER = 16 << 20
METHOD = "method."
OPTIMIZER = "optimizer."
DIVERGED_HINT = "the last good checkpoint stands; go on from it with a lower --lr or another --precision"


def snapshot(method: Method[Any], optimizer: torch.optim.Optimizer, meta: Meta) -> tuple[dict[str, Tensor], Meta]:
    """Copy the run's state, which training then does not change: tensors, and ``meta`` completed.

    Raises DivergedError where a value is not finite.
    """
    tensors = {METHOD + name: _copied(value) for name, value in method.state_dict().items()}
    for name, state in _optimizer_state(optimizer):
        tensors |= {f"{OPTIMIZER}{name}.{key}": _copied(value) for key, value in state.items()}
    for name, value in tensors.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise DivergedError(
                f"step {meta.step} is not saved: {name} holds values that are not finite", DIVERGED_HINT
            )
    return tensors, meta.but(encoder=_encoder_prefix(method))


def write(path: Path, tensors: dict[str, Tensor], meta: Meta) -> None:
    """Write ``tensors`` and ``meta`` with their sha256 to ``path``, whole or not at all.

    Raises MachineError where the disk refuses.
    """
    header = {"format": "pt", "sslctl": meta.but(sha256=digest(tensors)).to_json()}
    write_atomically(path, serialize(tensors, header))


def restore(path: Path, method: Method[Any], optimizer: torch.optim.Optimizer) -> Meta:
    """Load the state in ``path`` into ``method`` and ``optimizer``; return the file's meta.

    Every tensor of the method and the optimizer comes from the file, and every tensor of the file is used; otherwise
    CheckpointError names what is missing or left over.
    """
    meta, tensors = read(path)
    if meta.imported is not None:
        hint = "score it (sslctl knn), or train it with labels (sslctl finetune)"
        raise CheckpointError(f"{path}: an imported encoder: no run that could go on", hint)
    own = method.state_dict()
    stored = {k.removeprefix(METHOD): v for k, v in tensors.items() if k.startswith(METHOD)}
    refuse_mismatch(path, own, stored)
    method.load_state_dict(stored)
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
    """Return what the header of a checkpoint says. Raises CheckpointError where it is not one of ours."""
    with opened(path) as file:
        return meta_of(path, file)


def read(path: Path) -> tuple[Meta, dict[str, Tensor]]:
    """Return meta and all tensors, their sha256 verified."""
    with opened(path) as file:
        meta = meta_of(path, file)
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping
    if digest(tensors) != meta.sha256:
        raise CheckpointError(f"{path}: the tensors do not have the sha256 that the file states; it is damaged")
    return meta, tensors


def find(path: Path) -> Path:
    """Return ``path`` itself if it is a file, the newest valid checkpoint if it is a run directory."""
    if path.is_file():
        return path
    if not path.is_dir():
        raise CheckpointError(f"{path}: no such file or directory", "give a run directory or a .safetensors checkpoint")
    found = newest(path / "checkpoints") if (path / "checkpoints").is_dir() else newest(path)
    if found is None:
        raise CheckpointError(f"{path}: holds no checkpoint", "give a run directory that `sslctl pretrain` printed")
    return found


def newest(directory: Path, skipped: list[str] | None = None, verify: bool = False) -> Path | None:
    """Return the checkpoint of the highest step that reads well, by scanning; None where there is no file.

    ``skipped`` takes a line for every file passed over; ``verify`` checks the sha256 too. Raises CheckpointError,
    listing the reasons, where files are there and none is good.
    """
    bad: list[str] = []
    good: list[tuple[int, str, Path]] = []
    for path in sorted(directory.glob("*.safetensors")):
        try:
            good.append((read_meta(path).step, path.name, path))
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
        raise CheckpointError("no checkpoint can be used:\n" + "\n".join(bad), "start over with --fresh")
    return None


def digest(tensors: dict[str, Tensor]) -> str:
    """Return the sha256 over names, types, shapes and bytes, in the order of names."""
    h = hashlib.sha256()
    for name in sorted(tensors):
        t = tensors[name]
        h.update(f"{name}|{t.dtype}|{tuple(t.shape)}|".encode())
        h.update(t.contiguous().flatten().view(torch.uint8).numpy().data if t.numel() else b"")
    return h.hexdigest()


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Any]:
    try:
        with path.open("rb") as head:
            header = int.from_bytes(head.read(8), "little")
        if path.stat().st_size < 8 or header > min(MAX_HEADER, path.stat().st_size):
            raise CheckpointError(f"{path}: not a safetensors file, or cut off", HINT)
        with safe_open(path, "pt") as file:
            yield file
    except (SafetensorError, OSError) as e:
        raise CheckpointError(f"{path}: {e}", HINT) from e


def meta_of(path: Path, file: Any) -> Meta:
    return parse_meta(path, (file.metadata() or {}).get("sslctl"))


def _copied(value: Tensor) -> Tensor:
    return torch.empty(value.shape, dtype=value.dtype).copy_(value.detach())


def _like(value: Tensor, p: Tensor) -> Tensor:
    """Return ``value`` on the parameter's device, in its layout where shapes agree: fused kernels rely on it."""
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
    path: Path | str,
    own: Mapping[str, Tensor],
    stored: Mapping[str, Tensor],
    hint: str = "it was made with another spec",
) -> None:
    """Raise CheckpointError, naming missing, extra and misshapen tensors, unless both sets agree."""
    lines = [f"missing: {k}" for k in own if k not in stored]
    lines += [f"left over: {k}" for k in stored if k not in own]
    both = [(k, tuple(stored[k].shape), tuple(own[k].shape)) for k in own if k in stored]
    lines += [f"{k}: {there} in the file, {here} here" for k, there, here in both if there != here]
    if lines:
        more = f"\n… and {len(lines) - 5} more" if len(lines) > 5 else ""
        raise CheckpointError(f"{path} does not fit:\n" + "\n".join(lines[:5]) + more, hint)
