"""Features on disk beside the run: taken once, used by every evaluation of the same encoder on the same images."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..checkpoint import digest
from ..data.source import Source
from ..errors import MachineError
from ..files import replacing
from ..views.evaluation import EvalTransform
from .features import Features, with_labels

SCHEMA = 1  # raise it when the same key would give other features
FOLDER = "features"


@dataclass(frozen=True)
class Cache:
    """Feature files in ``folder``, each named by what its numbers depend on."""

    folder: Path

    def load(self, key: str, source: Source) -> Features | None:
        """The features under ``key`` with the labels of ``source``; None where there are none, or damaged ones.

        Labels are not stored: they may be renamed without any feature changing.
        """
        path = self._path(key)
        try:
            with safe_open(path, "pt") as file:
                meta = json.loads(file.metadata()["sslctl"])
                tensors = {name: file.get_tensor(name) for name in ("x", "index")}
            skipped = [(int(i), str(reason)) for i, reason in meta["skipped"]]
            if meta["key"] != key or meta["sha256"] != digest(tensors):
                return None
        except (OSError, SafetensorError, KeyError, ValueError, TypeError, RecursionError):
            return None
        if len(tensors["x"]) + len(skipped) != len(source):
            return None
        return with_labels(source, tensors["x"], tensors["index"], skipped)

    def save(self, key: str, features: Features) -> None:
        """Store ``features`` under ``key``. Raises MachineError where the disk refuses."""
        tensors: dict[str, Tensor] = {"x": features.x.contiguous(), "index": features.index}
        meta: dict[str, Any] = {"key": key, "skipped": features.unreadable, "sha256": digest(tensors)}
        with replacing(self._path(key), features.x.nbytes) as partial:
            try:
                save_file(tensors, partial, {"format": "pt", "sslctl": json.dumps(meta)})
            except SafetensorError as e:  # its words for what the disk said
                raise MachineError(f"cannot write {self._path(key)}: {e}", "see the disk, or --no-cache") from e

    def _path(self, key: str) -> Path:
        return self.folder / f"{key[:32]}.safetensors"


def cache_beside(checkpoint: Path) -> Cache:
    """The cache of a checkpoint file: in the run that it is part of, or else beside it."""
    inside = checkpoint.parent.name == "checkpoints"
    return Cache((checkpoint.parent.parent if inside else checkpoint.parent) / FOLDER)


def cache_key(
    encoder: Any,
    source: Source,
    transform: EvalTransform,
    device: torch.device,
    dtype: torch.dtype,
    kind: str = "pooled",
) -> str:
    """sha256 over all that features depend on: ``encoder`` (JSON), images, transform, arithmetic and ``kind``.

    Beside the fingerprint of the set (names and sizes of files) the times of files count, so that a picture that was
    edited in place is seen anew.
    """
    what = {
        "schema": SCHEMA,
        "encoder": encoder,
        "images": [source.fingerprint(), _times(source), len(source)],
        "transform": [transform.size, transform.short, transform.mean, transform.std],
        "arithmetic": [device.type, str(dtype)],
        "kind": kind,
    }
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


def _times(source: Source) -> str:
    files = getattr(source, "files", source)  # a set held in memory knows its files
    if not hasattr(files, "path"):
        return ""
    h = hashlib.sha256()
    for i in range(len(files)):
        with contextlib.suppress(OSError):
            h.update(b"%d %d\n" % (i, os.stat(files.path(i)).st_mtime_ns))
    return h.hexdigest()
