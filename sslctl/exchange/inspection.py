"""What a file or folder is, without using it: a run, a checkpoint, other tools' weights, a set of images."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..data import open_source
from ..errors import CheckpointError, SslctlError
from ..runs.checkpoint import find, read
from ..runs.directory import Run
from .exports.target import sha256
from .imports.container import read_foreign
from .open_encoder import import_any, is_foreign

Found = dict[str, Any]
REPORT = "parity.json"  # of an export: its files and their sha256
NOTHING = "give a run, a checkpoint, a file of weights, or a folder of images"


def inspect(path: Path) -> Found:
    """What ``path`` is: always ``kind``, ``path`` and ``bytes``, else as much as it says of itself.

    ``kind`` is run, checkpoint, features, weights (an encoder of another tool), tensors (without an encoder that is
    known: ``reason`` says why), export (of ours, in a format that is not read) or images. Nothing in it is run. Raises
    CheckpointError where it is none of these, or damaged.
    """
    if not path.exists():
        raise CheckpointError(f"{path}: no such file or directory", NOTHING)
    if path.is_dir():
        files = [file for file in path.rglob("*") if file.is_file()]
        about = {"path": str(path), "bytes": sum(file.stat().st_size for file in files), "files": len(files)}
    else:
        about = {"path": str(path), "bytes": path.stat().st_size}
    exported = _exported(path)
    try:
        found = _inside(path)
    except CheckpointError:
        if not exported:
            raise
        found = {"kind": "export"}
    return found | about | exported


def _exported(path: Path) -> Found:
    """What the report of an export says, where one lists ``path``: ``export``, and which files are not as it says."""
    inside = path.is_dir()
    for report in (path / REPORT,) if inside else (path.with_name(REPORT), path.with_suffix(f".{REPORT}")):
        try:
            said = json.loads(report.read_text("utf-8"))
            listed = {str(name): str(value) for name, value in said["files"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue
        if inside or path.name in listed:
            changed = [name for name, value in listed.items() if sha256(report.parent / Path(name).name) != value]
            return {"export": said, "changed": changed}
    return {}


def _inside(path: Path) -> Found:
    if is_foreign(path):
        return _weights(path)
    if path.is_file():
        return _ours(path)
    if (path / "checkpoints").is_dir():
        return _run(path)
    if any(path.glob("*.safetensors")):
        return {"file": find(path).name, **_ours(find(path))}
    try:
        source = open_source(str(path), labelled=False)
    except SslctlError as e:
        raise CheckpointError(f"{path}: neither a run nor weights nor images: {e.message}", NOTHING) from e
    return {"kind": "images", "images": len(source), "classes": len(source.classes)}


def _run(path: Path) -> Found:
    """A run: its newest checkpoint that reads well, the health and scores of its last step, and its files."""
    run = Run(path)
    skipped: list[str] = []
    held = sorted(run.checkpoints.glob("*.safetensors"))
    last = run.last_line()
    scores = {key: value for key, value in last.items() if key.startswith("probe_")}
    found: Found = {"kind": "run", "checkpoints": [file.name for file in held], "unreadable": skipped}
    try:
        found |= _ours(find(path)) | {"kind": "run", "file": find(path).name}
    except CheckpointError as e:
        skipped.append(e.message)
    told = {key: last.get(key) for key in ("step", "epoch", "loss", "lr", "images_per_second")}
    return found | {"health": last.get("health"), "last_line": told, "scores": scores}


def _ours(path: Path) -> Found:
    """A checkpoint of ours, its sha256 verified, or a file of features."""
    try:
        with safe_open(path, "pt") as file:
            said = json.loads((file.metadata() or {}).get("sslctl", "{}"))
    except (SafetensorError, OSError, ValueError) as e:
        raise CheckpointError(f"{path}: no safetensors file, or a damaged one: {e}", NOTHING) from e
    if "key" in said and "spec" not in said:
        return {"kind": "features", "key": said["key"], "skipped": len(said.get("skipped", []))}
    meta, tensors = read(path)
    spec, content = meta.spec, meta.model_dump(mode="json", by_alias=True, exclude_none=True)
    keys = ("step", "image", "data", "schema", "versions", "sha256", "imported", "finetuned", "classes")
    return {
        "kind": "checkpoint",
        "method": spec["method"]["name"],
        "backbone": {key: value for key, value in spec["backbone"].items() if value not in (None, {})},
        **{key: content[key] for key in keys if key in content},
        "spec": spec,
        **_tensors(tensors),
    }


def _weights(path: Path) -> Found:
    """Another tool's weights: what they are recognised as; or, where no encoder is in them, why not."""
    listed = {} if path.is_dir() else _tensors(read_foreign(path).tensors)
    try:
        encoder, taken = import_any(path)
    except CheckpointError as e:
        if not listed:
            raise
        return {"kind": "tensors", "reason": e.message, "hint": e.hint, **listed}
    spec = encoder.spec.backbone.model_dump(mode="json")
    return {
        "kind": "weights",
        **(encoder.meta.imported.model_dump(mode="json") if encoder.meta.imported else {}),
        "backbone": {key: value for key, value in spec.items() if value not in (None, {})},
        "image": encoder.meta.image.model_dump(mode="json"),
        "sha256": encoder.meta.sha256,
        "notes": encoder.notes,
        **(listed or _tensors(taken.held)),
    }


def _tensors(tensors: Mapping[str, Tensor]) -> Found:
    """All tensors by name, and how many there are in each group of names."""
    groups = Counter(".".join(name.split(".")[:2]) if name.count(".") > 1 else name.split(".")[0] for name in tensors)
    return {
        "numbers": sum(t.numel() for t in tensors.values()),
        "groups": dict(groups),
        "tensors": {name: [list(t.shape), str(t.dtype).removeprefix("torch.")] for name, t in tensors.items()},
    }
