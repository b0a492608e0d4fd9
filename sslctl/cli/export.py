"""``sslctl export``: the encoder as a folder that other tools load."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import SpecError, closest
from . import output
from .opening import open_model
from .options import Force, Json, Model

FORMATS = ["timm"]


def export(
    model: Model,
    out: Annotated[Path, typer.Option(help="Folder to write.", show_default=False)],
    format: Annotated[str, typer.Option(help="timm: config.json, model.safetensors, README.md.")] = "timm",
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Write the encoder in another tool's format.

    A fresh process checks that it gives the same features there.

    Example:

      sslctl export runs/swav-resnet18-demo-1a2b3c --format timm --out encoder/
    """
    if format not in FORMATS:
        raise SpecError(
            f"--format '{format}': not one of {', '.join(FORMATS)}{closest(format, FORMATS)}", "--format timm"
        )

    from ..exchange.export_timm import export_timm

    encoder = open_model(model)
    output.note(f"exporting {encoder.spec.backbone.arch}, comparing it in a fresh process")
    done = export_timm(encoder, out, force=force)
    for line in done.notes:
        output.warn(line)
    output.note(f"largest difference of a feature {done.difference:.2g}, smallest cosine {done.cosine:.7f}")
    output.note(f"load it, from {done.path.parent}, with:\n{done.load.rstrip()}")
    result = {
        "out": str(out),
        "format": format,
        "difference": done.difference,
        "cosine": done.cosine,
        "load": done.load,
        "notes": done.notes,
    }
    output.emit(result, as_json, str(out))
