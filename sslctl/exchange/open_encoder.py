"""Open an encoder: of a run or checkpoint, of another tool's file or folder, or a model of timm by name."""

from __future__ import annotations

import json
from pathlib import Path

from ..runs.checkpoint import MAX_HEADER
from ..runs.encoder import LoadedEncoder, load_encoder
from .imports.folder import import_folder, is_folder
from .imports.recognise import Taken, Wishes, import_file
from .imports.timm_models import open_by_name


def open_encoder(words: str | Path) -> LoadedEncoder:
    """Open the encoder that ``words`` names; every task opens its encoder here.

    A run directory or checkpoint of ours; another tool's file (see ``imports``) or folder; ``timm:NAME`` for timm's
    pretrained weights, ``random:NAME`` for the same architecture with random ones. Raises CheckpointError for what
    holds no complete encoder, SpecError for an unknown name, MachineError where weights cannot be fetched.
    """
    text = str(words)
    path = Path(text).expanduser()
    kind, _, name = text.partition(":")
    if kind in ("timm", "random") and name and not path.exists():
        return open_by_name(name, pretrained=kind == "timm")
    return import_any(path)[0] if is_foreign(path) else load_encoder(path)


def import_any(path: Path, wishes: Wishes | None = None) -> tuple[LoadedEncoder, Taken]:
    """The encoder in another tool's file or folder, and what was taken. Raises as ``open_encoder``."""
    return import_folder(path, wishes) if is_folder(path) else import_file(path, wishes)


def is_foreign(path: Path) -> bool:
    """Whether ``path`` is another tool's file or folder, and not a checkpoint or run of ours."""
    return not is_ours(path) if path.is_file() else is_folder(path)


def is_ours(path: Path) -> bool:
    """Whether the file is one that sslctl wrote; a damaged one counts as ours where it is called .safetensors."""
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = file.read(min(size, MAX_HEADER))
        return "sslctl" in (json.loads(header).get("__metadata__") or {})
    except (OSError, ValueError, AttributeError, TypeError, RecursionError):
        return path.suffix == ".safetensors"
