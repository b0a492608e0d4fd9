"""Inspection of a file or folder: a run, a checkpoint, another tool's weights, a set of images."""

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

Facts = dict[str, Any]
REPORT = "parity.json"  # of an export: lists its files and their sha256
HINT = "give a run, a checkpoint, a weight file, or a folder of images"


def inspect(path: Path) -> Facts:
    """Return facts about ``path``: always ``kind``, ``path`` and ``bytes``, and more by kind. No code in it is run.

    ``kind`` is run, checkpoint, features, weights (an encoder of another tool), tensors (no known encoder; ``reason``
    says why), export (by sslctl, in a format that it does not import) or images. Raises CheckpointError for anything
    else, and for a damaged file.
    """
    if not path.exists():
        raise CheckpointError(f"{path}: no such file or directory", HINT)
    if path.is_dir():
        files = [file for file in path.rglob("*") if file.is_file()]
        size: Facts = {"path": str(path), "bytes": sum(file.stat().st_size for file in files), "files": len(files)}
    else:
        size = {"path": str(path), "bytes": path.stat().st_size}
    export = _export_report(path)
    try:
        facts = _content(path)
    except CheckpointError:
        if not export:
            raise
        facts = {"kind": "export"}
    return facts | size | export


def _export_report(path: Path) -> Facts:
    """Return the ``export`` report that lists ``path`` and the files ``changed`` since; nothing if there is none."""
    is_folder = path.is_dir()
    for report in (path / REPORT,) if is_folder else (path.with_name(REPORT), path.with_suffix(f".{REPORT}")):
        try:
            content = json.loads(report.read_text("utf-8"))
            hashes = {str(name): str(value) for name, value in content["files"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue
        if is_folder or path.name in hashes:
            changed = [name for name, value in hashes.items() if sha256(report.parent / Path(name).name) != value]
            return {"export": content, "changed": changed}
    return {}


def _content(path: Path) -> Facts:
    if is_foreign(path):
        return _foreign_weights(path)
    if path.is_file():
        return _own_file(path)
    if (path / "checkpoints").is_dir():
        return _run(path)
    if any(path.glob("*.safetensors")):
        return {"file": find(path).name, **_own_file(find(path))}
    try:
        source = open_source(str(path), labelled=False)
    except SslctlError as e:
        raise CheckpointError(f"{path}: not a run, weights or images: {e.message}", HINT) from e
    return {"kind": "images", "images": len(source), "classes": len(source.classes)}


def _run(path: Path) -> Facts:
    """Return the newest readable checkpoint of a run, health and scores of its last step, and its files."""
    run = Run(path)
    skipped: list[str] = []
    checkpoints = sorted(run.checkpoints.glob("*.safetensors"))
    last = run.last_line()
    scores = {key: value for key, value in last.items() if key.startswith("probe_")}
    facts: Facts = {"kind": "run", "checkpoints": [file.name for file in checkpoints], "unreadable": skipped}
    try:
        facts |= _own_file(find(path)) | {"kind": "run", "file": find(path).name}
    except CheckpointError as e:
        skipped.append(e.message)
    newest = {key: last.get(key) for key in ("step", "epoch", "loss", "lr", "images_per_second")}
    return facts | {"health": last.get("health"), "last_line": newest, "scores": scores}


def _own_file(path: Path) -> Facts:
    """Return facts about a checkpoint of sslctl, its sha256 verified, or about a file of features."""
    try:
        with safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {}).get("sslctl", "{}"))
    except (SafetensorError, OSError, ValueError) as e:
        raise CheckpointError(f"{path}: not a safetensors file, or damaged: {e}", HINT) from e
    if "key" in header and "spec" not in header:
        return {"kind": "features", "key": header["key"], "skipped": len(header.get("skipped", []))}
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


def _foreign_weights(path: Path) -> Facts:
    """Return how another tool's weights are recognised, or why they are not."""
    listing = {} if path.is_dir() else _tensors(read_foreign(path).tensors)
    try:
        encoder, extracted = import_any(path)
    except CheckpointError as e:
        if not listing:
            raise
        return {"kind": "tensors", "reason": e.message, "hint": e.hint, **listing}
    spec = encoder.spec.backbone.model_dump(mode="json")
    return {
        "kind": "weights",
        **(encoder.meta.imported.model_dump(mode="json") if encoder.meta.imported else {}),
        "backbone": {key: value for key, value in spec.items() if value not in (None, {})},
        "image": encoder.meta.image.model_dump(mode="json"),
        "sha256": encoder.meta.sha256,
        "notes": encoder.notes,
        **(listing or _tensors(extracted.tensors)),
    }


def _tensors(tensors: Mapping[str, Tensor]) -> Facts:
    """Return shape and type of all tensors by name, and how many there are in each group of names."""
    groups = Counter(".".join(name.split(".")[:2]) if name.count(".") > 1 else name.split(".")[0] for name in tensors)
    return {
        "numbers": sum(t.numel() for t in tensors.values()),
        "groups": dict(groups),
        "tensors": {name: [list(t.shape), str(t.dtype).removeprefix("torch.")] for name, t in tensors.items()},
    }
