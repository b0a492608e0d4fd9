"""The card of an export: what the encoder is, where it comes from, how good it is, how to load it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

import yaml

from ...runs.encoder import LoadedEncoder
from .formats import Order, Written
from .scores import Row

UNKNOWN = "unknown"  # of the Hub's words for a licence
# Of a recipe what decides the result; where things lie on a disk is nobody's business.
RECIPE = {"views": None, "backbone": None, "method": None, "optim": None, "run": ("epochs", "steps", "batch_size")}


def card(order: Order, written: Written, checked: str, licence: str = UNKNOWN, found: Sequence[Row] = ()) -> str:
    """Markdown with the front matter that the Hugging Face Hub reads.

    Its one block of Python loads the encoder and stands as ``written`` has it; ``checked`` says how its numbers were
    compared.
    """
    encoder = order.encoder
    told = [written.more, *(f"Note: {note}." for note in (*encoder.notes, *written.notes))]
    lines = [
        "---",
        yaml.safe_dump(_front(encoder, written, licence, found), sort_keys=False, allow_unicode=True).rstrip(),
        "---",
        "",
        f"# {encoder.spec.backbone.arch}, {encoder.spec.method.name}",
        "",
        _told(encoder),
        "",
        "Load it, from the directory that holds it:",
        "",
        "```python",
        written.code.rstrip(),
        "```",
        "",
        *[line for text in told if text for line in (text, "")],
        f"Checked against sslctl: {checked}.",
        "",
        "| | |",
        "|---|---|",
        *[f"| {key} | {value} |" for key, value in _facts(encoder, licence).items()],
        "",
    ]
    if found:
        lines += ["Scores, the encoder frozen where the protocol does not say otherwise:", ""]
        lines += ["| protocol | images | top-1 |", "|---|---|---|"]
        lines += [f"| {_cell(row.protocol)} | {_cell(row.data)} | {row} |" for row in found]
        lines += [""]
    if encoder.meta.imported is None:
        lines += ["Recipe:", "", "```yaml", yaml.safe_dump(_recipe(encoder), sort_keys=False).rstrip(), "```", ""]
    return "\n".join(lines)


def _front(encoder: LoadedEncoder, written: Written, licence: str, found: Sequence[Row]) -> dict[str, Any]:
    method = encoder.spec.method.name
    front: dict[str, Any] = {
        "license": licence,
        "library_name": written.library,
        "pipeline_tag": "image-feature-extraction",
        "tags": ["self-supervised-learning", "sslctl", method],
    }
    if found:
        results = [
            {
                "task": {"type": "image-classification"},
                "dataset": {"name": row.data, "type": row.data},
                "metrics": [{"type": "accuracy", "name": row.protocol, "value": round(row.top1, 4)}],
            }
            for row in found
        ]
        front["model-index"] = [{"name": f"{encoder.spec.backbone.arch}, {method}", "results": results}]
    return front


def _told(encoder: LoadedEncoder) -> str:
    width = f"It gives {encoder.backbone.dim} numbers an image."
    if (imported := encoder.meta.imported) is not None:
        return f"An image encoder made elsewhere ({imported.layout}). {width}"
    return f"An image encoder learnt without labels: {encoder.spec.method.name}, {encoder.meta.step} steps. {width}"


def _facts(encoder: LoadedEncoder, licence: str) -> dict[str, str]:
    spec, meta = encoder.spec, encoder.meta
    image, data = meta.image, meta.data
    facts = {
        "architecture": f"timm `{spec.backbone.arch}`, {encoder.backbone.stem} stem",
        "method": spec.method.name,
        "images": f"RGB in [0, 1], {image.size} px, less {list(image.mean)}, divided by {list(image.std)}",
    }
    if meta.imported is not None:
        origin = meta.imported.model_dump()
        facts["imported from"] = ", ".join(f"{key} {value}" for key, value in origin.items() if value)
    else:
        name = PurePath(spec.data.path).name
        facts["data"] = f"{name}, {data.images} images, sha256 {data.fingerprint}"
        facts["steps"] = f"{meta.step} of batch size {spec.run.batch_size}"
    facts["checkpoint"] = f"sha256 of tensors {meta.sha256}"
    facts["licence"] = f"{licence} (to be chosen by whoever publishes it)" if licence == UNKNOWN else licence
    return {key: _cell(value) for key, value in facts.items()}


def _cell(text: str) -> str:
    """``text`` from outside as it may stand in a table."""
    return text.replace("|", "\\|").replace("\n", " ")


def _recipe(encoder: LoadedEncoder) -> dict[str, Any]:
    spec = encoder.spec.dump()
    return {
        section: {key: value for key, value in spec[section].items() if value is not None and (not keys or key in keys)}
        for section, keys in RECIPE.items()
    }
