"""The one door for encoders: a run, a checkpoint, other people's files and folders, a model of timm by name."""

from __future__ import annotations

from pathlib import Path

from ..checkpoint import LoadedEncoder, load_encoder
from .import_timm import open_by_name


def open_encoder(words: str | Path) -> LoadedEncoder:
    """The encoder that ``words`` names, whatever it is; every command opens its encoder here.

    A run directory or checkpoint of ours; ``timm:NAME`` for timm's pretrained weights, ``random:NAME`` for the same
    architecture with random ones. Raises CheckpointError for what holds no complete encoder, SpecError for an unknown
    name, MachineError where weights cannot be fetched.
    """
    text = str(words)
    if Path(text).exists():
        return load_encoder(Path(text))
    kind, _, name = text.partition(":")
    if kind in ("timm", "random") and name:
        return open_by_name(name, pretrained=kind == "timm")
    return load_encoder(Path(text))
