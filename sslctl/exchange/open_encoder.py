"""Open an encoder: a run or checkpoint, another tool's file or folder, or a timm model by name."""

from __future__ import annotations

import json
from pathlib import Path

from ..runs.checkpoint import MAX_HEADER
from ..runs.encoder import LoadedEncoder, load_encoder
from .imports.folder import import_folder, is_folder
from .imports.recognise import Extracted, ImportOptions, import_file
from .imports.timm_models import open_by_name


def open_encoder(source: str | Path) -> LoadedEncoder:
    """Open the encoder ``source``; every task opens its encoder here.

    It is a run directory or checkpoint, another tool's file (see ``imports``) or folder, ``timm:NAME`` for timm's
    pretrained weights or ``random:NAME`` for random ones. Raises CheckpointError for a file without a complete encoder,
    SpecError for an unknown name, MachineError if weights cannot be fetched.
    """
    text = str(source)
    path = Path(text).expanduser()
    kind, _, name = text.partition(":")
    if kind in ("timm", "random") and name and not path.exists():
        return open_by_name(name, pretrained=kind == "timm")
    return import_any(path)[0] if is_foreign(path) else load_encoder(path)


def import_any(path: Path, options: ImportOptions | None = None) -> tuple[LoadedEncoder, Extracted]:
    """Import the encoder in another tool's file or folder. Raises as ``import_file``."""
    return import_folder(path, options) if is_folder(path) else import_file(path, options)


def is_foreign(path: Path) -> bool:
    """Return whether ``path`` is another tool's file or folder rather than a checkpoint or run of sslctl."""
    return not is_ours(path) if path.is_file() else is_folder(path)


def is_ours(path: Path) -> bool:
    """Return whether sslctl wrote the file; a damaged one counts if it is called .safetensors."""
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = file.read(min(size, MAX_HEADER))
        return "sslctl" in (json.loads(header).get("__metadata__") or {})
    except (OSError, ValueError, AttributeError, TypeError, RecursionError):
        return path.suffix == ".safetensors"
