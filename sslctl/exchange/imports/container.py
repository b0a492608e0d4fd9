"""Other people's files opened without running any of their code: tensors by dotted name, and plain values."""

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
GIVE = "give a file of weights: a state dict, a checkpoint of a known tool, safetensors"

# What a refused pickle asks for, and what to do about it.
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
class Foreign:
    """A file of somebody else's: ``tensors`` by dotted name, ``values`` (text, numbers) likewise.

    ``wrappers`` are prefixes of wrapping modules that every name of a part bore and that were taken off.
    """

    path: Path
    kind: str  # safetensors, zip or pickle
    tensors: dict[str, Tensor] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    wrappers: list[str] = field(default_factory=list)
    top: list[str] = field(default_factory=list)  # keys of the outermost dictionary


def read_foreign(path: Path) -> Foreign:
    """The content of ``path``; tensors of new torch files and of safetensors stay on disk until they are used.

    Pickles go through torch's weights-only reader, which builds tensors and plain containers and nothing else;
    argparse.Namespace (DINO's, iBOT's and MAE's arguments) is the one class allowed beside: it can only hold values.
    Raises CheckpointError where the file is damaged or needs more than that.
    """
    try:
        with path.open("rb") as file:
            start = file.read(16)
    except OSError as e:
        raise CheckpointError(f"{path}: {e.strerror}", GIVE) from e
    if not start:
        raise CheckpointError(f"{path}: is empty", GIVE)
    zipped = start[:4] == b"PK\x03\x04"
    if path.suffix == ".safetensors" or (start[8:9] == b"{" and not zipped):
        return _read_safetensors(path)
    found = Foreign(path, "zip" if zipped else "pickle")
    held = _load(path, zipped)
    if not isinstance(held, dict):
        raise CheckpointError(f"{path}: holds a {type(held).__name__}, no dictionary of tensors", GIVE)
    found.top = [str(key) for key in held]
    _flatten(held, "", found, 0)
    if not found.tensors:
        raise CheckpointError(f"{path}: holds no tensors, only {', '.join(found.top[:10]) or 'nothing'}", GIVE)
    return found


def _load(path: Path, zipped: bool) -> Any:
    try:
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings(action="ignore"):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except Exception as e:  # torch's reader fails in many ways over bytes that are not what it expects
        raise _refused(path, str(e), zipped) from e


def _refused(path: Path, reason: str, zipped: bool) -> CheckpointError:
    wanted = re.search(r"(?:GLOBAL|class|global:?) [`']?((?:\w+\.)+\w+)", reason)
    if "eights" in reason and wanted:
        name = wanted[1]
        hint = next((text for word, text in REMEDIES.items() if word in name), "")
        return CheckpointError(
            f"{path}: a pickle that needs {name}; only tensors and plain values are read, no code is run",
            hint or "where that is installed, save the state dict alone",
        )
    if zipped:
        reason = reason.partition(". ")[0].splitlines()[0] if reason.strip() else "unreadable"
        return CheckpointError(f"{path}: a torch file that is damaged or cut off: {reason[:200]}", GIVE)
    return CheckpointError(f"{path}: neither safetensors nor what torch.save writes, or damaged", GIVE)


def _read_safetensors(path: Path) -> Foreign:
    found = Foreign(path, "safetensors")
    try:
        with safe_open(path, "pt") as file:
            found.values = {"metadata": dict(file.metadata() or {})}
            held = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError) as e:
        raise CheckpointError(f"{path}: no safetensors file, or a damaged one: {e}", GIVE) from e
    found.top = list(held)
    _flatten(held, "", found, 0)
    return found


def _flatten(held: dict[Any, Any], prefix: str, found: Foreign, depth: int) -> None:
    """Enter ``held`` into ``found`` under ``prefix``, without the wrappers that all its names bear."""
    names = [str(key) for key in held]
    taken = ""
    for wrapper in _wrappers(names):
        taken += wrapper
        found.wrappers.append(prefix + taken)
    for name, value in zip(names, held.values(), strict=True):
        full = prefix + name.removeprefix(taken)
        if isinstance(value, Tensor):
            found.tensors[full] = value
        elif isinstance(value, dict) and depth < MAX_DEPTH:
            _flatten(value, f"{full}.", found, depth + 1)
        elif isinstance(value, argparse.Namespace):
            found.values |= {f"{full}.{k}": v for k, v in vars(value).items() if isinstance(v, str | int | float)}
        elif isinstance(value, str | int | float):
            found.values[full] = value


def _wrappers(names: list[str]) -> Iterator[str]:
    while names:
        wrapper = next((w for w in WRAPPERS if all(name.startswith(w) for name in names)), None)
        if wrapper is None:
            return
        yield wrapper
        names = [name.removeprefix(wrapper) for name in names]
