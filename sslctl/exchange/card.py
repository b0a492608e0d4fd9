"""The README of an export: what the encoder is, where it comes from, how to load it."""

from __future__ import annotations

from pathlib import PurePath

from ..checkpoint import LoadedEncoder


def card(encoder: LoadedEncoder, code: str, notes: list[str]) -> str:
    """Markdown with the one piece of Python, ``code``, that loads the model into ``net``."""
    spec, meta = encoder.spec, encoder.meta
    image, data = meta["image"], meta["data"]
    lines = [
        f"# {spec.backbone.arch}, {spec.method.name}",
        "",
        f"An image encoder learnt without labels: {spec.method.name}, {meta['step']} steps. "
        f"It gives {encoder.backbone.dim} numbers an image.",
        "",
        "Load it, from the directory that holds this folder:",
        "",
        "```python",
        code.rstrip(),
        "```",
        "",
        f"Images: RGB in [0, 1], about {image['size']} px, less the mean {list(image['mean'])}, "
        f"divided by the standard deviation {list(image['std'])}.",
        "",
        *[line for note in notes for line in (f"Note: {note}.", "")],
        "| | |",
        "|---|---|",
        f"| architecture | timm `{spec.backbone.arch}`, {encoder.backbone.stem} stem |",
        f"| method | {spec.method.name} |",
        f"| data | {PurePath(spec.data.path).name}, {data['images']} images, sha256 {data['fingerprint']} |",
        f"| steps | {meta['step']} of batch size {spec.run.batch_size} |",
        f"| checkpoint | sha256 of tensors {meta['sha256']} |",
        "| licence | (to be chosen by whoever publishes it) |",
        "",
    ]
    return "\n".join(lines)
