"""Weight files of other tools, read without running their code: tensors by dotted name, and plain values."""

from __future__ import annotations

import argparse
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ...errors import CheckpointError

WRAPPERS = ("module.", "_orig_mod.", "_fsdp_wrapped_module.")  # DistributedDataParallel, torch.compile, FSDP
MAX_DEPTH = 8
HINT = "give a file of weights: a state dict, a checkpoint of a known tool, safetensors"

# Names that a refused pickle needs, and what to do about each.
REMEDIES = {
    "lightly_train": "lightly-train keeps whole modules in it; take its exported_models/exported_last.pt,"
    " or `lightly-train export format=torch_state_dict part=model`",
    "lib.NCEAverage": "InstDisc keeps its memory bank as a module; save the entry 'state_dict' alone",
    "omegaconf": "save the entry 'state_dict' alone, where the tool that made the file is installed",
    "AttributeDict": "save the entry 'state_dict' alone, where the tool that made the file is installed",
    "jax": "the official BYOL files hold JAX arrays; take a conversion to torchvision names",
    "dill": "the official BYOL files hold JAX arrays; take a conversion to torchvision names",
}


@dataclass
class ForeignFile:
    """A weight file of another tool: ``tensors`` and plain ``values`` by dotted name.

    ``wrappers`` are prefixes of wrapping modules, removed where all names of a dictionary had them.
    """

    path: Path
    kind: str  # safetensors, zip or pickle
    tensors: dict[str, Tensor] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    wrappers: list[str] = field(default_factory=list)
    top: list[str] = field(default_factory=list)  # keys of the outermost dictionary


def read_foreign(path: Path) -> ForeignFile:
    """Read ``path``; tensors of new torch files and of safetensors stay on disk until they are used.

    Pickles go through torch's weights-only reader, which builds tensors and plain containers. The only other class
    allowed is argparse.Namespace (the arguments of DINO, iBOT and MAE), which can only hold values.
    Raises CheckpointError if the file is damaged or needs more than that.
    """
    try:
        with path.open("rb") as stream:
            start = stream.read(16)
    except OSError as e:
        raise CheckpointError(f"{path}: {e.strerror}", HINT) from e
    if not start:
        raise CheckpointError(f"{path}: is empty", HINT)
    zipped = start[:4] == b"PK\x03\x04"
    if path.suffix == ".safetensors" or (start[8:9] == b"{" and not zipped):
        return _read_safetensors(path)
    file = ForeignFile(path, "zip" if zipped else "pickle")
    content = _load(path, zipped)
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, not a dictionary of tensors", HINT)
    file.top = [str(key) for key in content]
    _flatten(content, "", file, 0)
    if not file.tensors:
        raise CheckpointError(f"{path}: contains no tensors, only {', '.join(file.top[:10]) or 'nothing'}", HINT)
    return file


def _load(path: Path, zipped: bool) -> Any:
    try:
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings(action="ignore"):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except Exception as e:  # torch's reader raises many kinds of error for unexpected bytes
        raise _refused(path, str(e), zipped) from e


def _refused(path: Path, reason: str, zipped: bool) -> CheckpointError:
    match = re.search(r"(?:GLOBAL|class|global:?) [`']?((?:\w+\.)+\w+)", reason)
    if "eights" in reason and match:
        name = match[1]
        hint = next((text for word, text in REMEDIES.items() if word in name), "")
        return CheckpointError(
            f"{path}: a pickle that needs {name}; only tensors and plain values are read, no code is run",
            hint or "where that is installed, save the state dict alone",
        )
    if zipped:
        reason = reason.partition(". ")[0].splitlines()[0] if reason.strip() else "unreadable"
        return CheckpointError(f"{path}: a torch file that is damaged or cut off: {reason[:200]}", HINT)
    return CheckpointError(f"{path}: neither safetensors nor what torch.save writes, or damaged", HINT)


def _read_safetensors(path: Path) -> ForeignFile:
    result = ForeignFile(path, "safetensors")
    try:
        with safe_open(path, "pt") as file:
            result.values = {"metadata": dict(file.metadata() or {})}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError) as e:
        raise CheckpointError(f"{path}: not a safetensors file, or damaged: {e}", HINT) from e
    result.top = list(tensors)
    _flatten(tensors, "", result, 0)
    return result


def _flatten(content: dict[Any, Any], prefix: str, file: ForeignFile, depth: int) -> None:
    """Add ``content`` to ``file`` under ``prefix``, without the wrappers that all its names have."""
    names = [str(key) for key in content]
    removed = ""
    for wrapper in _wrappers(names):
        removed += wrapper
        file.wrappers.append(prefix + removed)
    for name, value in zip(names, content.values(), strict=True):
        full = prefix + name.removeprefix(removed)
        if isinstance(value, Tensor):
            file.tensors[full] = value
        elif isinstance(value, dict) and depth < MAX_DEPTH:
            _flatten(value, f"{full}.", file, depth + 1)
        elif isinstance(value, argparse.Namespace):
            file.values |= {f"{full}.{k}": v for k, v in vars(value).items() if isinstance(v, str | int | float)}
        elif isinstance(value, str | int | float):
            file.values[full] = value


def _wrappers(names: list[str]) -> Iterator[str]:
    while names:
        wrapper = next((w for w in WRAPPERS if all(name.startswith(w) for name in names)), None)
        if wrapper is None:
            return
        yield wrapper
        names = [name.removeprefix(wrapper) for name in names]
