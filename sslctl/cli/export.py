"""``sslctl export``: the encoder as a file or folder that other tools load."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from . import output
from .opening import open_model
from .options import Force, Json, Model


def export(
    model: Model,
    out: Annotated[Path, typer.Option(help="File or folder to write.", show_default=False)],
    format: Annotated[str, typer.Option(help="timm, hf, torchvision, detectron2, onnx or pt2.")] = "timm",
    features: Annotated[str, typer.Option(help="Output of onnx and pt2: pooled, cls, patches or all.")] = "pooled",
    preprocess: Annotated[
        bool, typer.Option("--preprocess", help="onnx, pt2: take uint8 (B, H, W, 3) and normalise in the graph.")
    ] = False,
    licence: Annotated[str, typer.Option("--license", help="For the card, as apache-2.0.")] = "unknown",
    scores: Annotated[
        list[Path] | None,
        typer.Option(help="For the card: what knn, linear-eval or finetune --json printed.", show_default=False),
    ] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Write the encoder in another tool's format, with a card.

    That tool, in a fresh process, must give the same features of 16 real images; else nothing is left behind.

    Examples:

      sslctl export runs/swav-resnet18-demo-1a2b3c --format timm --out encoder/

      sslctl export runs/dino-vit-photos-1a2b3c --format onnx --features all --out encoder.onnx
    """
    from ..exchange.exports.formats import find_format

    form = find_format(format)
    form.require()

    from ..exchange.exports.write import export as write

    encoder = open_model(model)
    output.note(f"exporting {encoder.spec.backbone.arch}, comparing it with {form.who} in a fresh process")
    done = write(
        encoder,
        out,
        form,
        features=features,
        preprocess=preprocess,
        licence=licence,
        scored=scores or (),
        force=force,
    )
    for line in done.notes:
        output.warn(line)
    output.note(f"{done.images}: {done.parity}; allowed is {done.tolerance:g}")
    output.note(f"load it, from {done.path.parent}, with:\n{done.code.rstrip()}")
    result = {
        "out": str(out),
        "format": format,
        "parity": {**asdict(done.parity), "tolerance": done.tolerance, "grey_levels": done.grey},
        "images": done.images,
        "report": str(done.report),
        "load": done.code,
        "notes": done.notes,
    }
    output.emit(result, as_json, str(out))
