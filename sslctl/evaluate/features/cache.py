"""Features stored beside the run: computed once, used by every evaluation of the same encoder on the same images."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Unpack

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ...data.source import Source
from ...errors import MachineError
from ...files import replacing
from ...runs.checkpoint import digest
from ...runtime import distributed
from ...views.evaluation import EvalTransform
from .extract import FeatureSet, extract, with_labels
from .stream import PassOptions

SCHEMA = 1  # raise it when the same key would give other features
FOLDER = "features"
LIMIT = 4 << 30
"""Bytes of all feature files beside a run; a single one may be larger."""


@dataclass(frozen=True)
class Cache:
    """Feature files in ``folder``, each named by what its numbers depend on.

    A file's time is that of its last use. Where more than ``limit`` bytes lie there after a save, those that were not
    used for the longest time go, until what is left fits or is the new file alone.
    """

    folder: Path
    limit: int = LIMIT

    def load(self, key: str, source: Source) -> FeatureSet | None:
        """Return the features under ``key`` with the labels of ``source``; None where there are none, or damaged ones.

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
        with contextlib.suppress(OSError):
            os.utime(path)  # used now
        return with_labels(source, tensors["x"], tensors["index"], skipped)

    def save(self, key: str, features: FeatureSet) -> None:
        """Store ``features`` under ``key``. Raises MachineError where the disk refuses."""
        tensors: dict[str, Tensor] = {"x": features.x.contiguous(), "index": features.index}
        meta: dict[str, Any] = {"key": key, "skipped": features.unreadable, "sha256": digest(tensors)}
        with replacing(self._path(key), features.x.nbytes) as partial:
            try:
                save_file(tensors, partial, {"format": "pt", "sslctl": json.dumps(meta)})
            except SafetensorError as e:  # the disk's error in its words
                raise MachineError(f"cannot write {self._path(key)}: {e}", "see the disk, or --no-cache") from e
        self._make_room(self._path(key))

    def _make_room(self, newest: Path) -> None:
        name = "[0-9a-f]" * 32 + ".safetensors"  # no file that is not ours goes; what a killed write left does
        files: list[tuple[int, int, Path]] = []
        for path in [*self.folder.glob(name), *self.folder.glob(f".{name}.part-*")]:
            with contextlib.suppress(OSError):  # another process tidies up too
                files.append((path.stat().st_mtime_ns, path.stat().st_size, path))
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if total > self.limit and path != newest:
                with contextlib.suppress(OSError):
                    path.unlink()
                total -= size

    def _path(self, key: str) -> Path:
        return self.folder / f"{key[:32]}.safetensors"


def cache_beside(checkpoint: Path) -> Cache:
    """Return the cache of a checkpoint file: in the run that it is part of, or else beside it."""
    inside = checkpoint.parent.name == "checkpoints"
    return Cache((checkpoint.parent.parent if inside else checkpoint.parent) / FOLDER)


class Cached(NamedTuple):
    """Features, whether they come from the cache, and why they could not be stored there."""

    features: FeatureSet
    from_cache: bool
    not_stored: str = ""


def cached_features(
    cache: Cache | None,
    identity: Any,
    net: nn.Module,
    source: Source,
    transform: EvalTransform,
    *,
    kind: str = "pooled",
    starting: Callable[[], None] = lambda: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    **options: Unpack[PassOptions],
) -> Cached:
    """Return the features of ``source`` from ``net``, which is ``identity`` (JSON): those stored, or those of a pass.

    A pass stores them in the cache, where there is one; ``starting`` is called before it. On several processes the
    cache is used where all of them see the file, and only the first one writes.
    """
    device, dtype = options.get("device") or torch.device("cpu"), options.get("dtype", torch.float32)
    key = "" if cache is None else cache_key(identity, source, transform, device, dtype, kind)
    stored = None if cache is None else cache.load(key, source)
    if all(distributed.collect(stored is not None)) and stored is not None:
        return Cached(stored, True)
    starting()
    features = extract(net, source, transform, progress=progress, **options)
    not_stored = ""
    if cache is not None and distributed.rank() == 0:
        try:
            cache.save(key, features)
        except MachineError as e:
            not_stored = e.message
    return Cached(features, False, not_stored)


def cache_key(
    encoder: Any,
    source: Source,
    transform: EvalTransform,
    device: torch.device,
    dtype: torch.dtype,
    kind: str = "pooled",
) -> str:
    """Return the sha256 over all that features depend on: encoder (JSON), images, transform, arithmetic.

    Beside the fingerprint of the set (names and sizes of files) the times of files count, so that a picture that was
    edited in place is read again.
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
