"""The card of an export: what the encoder is, where it comes from, how good it is, how to load it."""

from __future__ import annotations

import json
from pathlib import PurePath
from typing import Any

import yaml

from ..checkpoint import LoadedEncoder
from .formats import Order, Written

UNKNOWN = "unknown"  # of the Hub's words for a licence
# Of a recipe what decides the result; where things lie on a disk is nobody's business.
RECIPE = {"views": None, "backbone": None, "method": None, "optim": None, "run": ("epochs", "steps", "batch_size")}
SCORES = {
    "probe_knn": "20-nearest-neighbours top-1 (temperature 0.07)",
    "probe_linear": "linear probe top-1 (L-BFGS, L2 0.01)",
}


def card(order: Order, written: Written, checked: str, licence: str = UNKNOWN) -> str:
    """Markdown with the front matter that the Hugging Face Hub reads.

    Its one block of Python loads the encoder and stands as ``written`` has it; ``checked`` says how its numbers were
    compared.
    """
    encoder = order.encoder
    found = scores(encoder)
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
        lines += [
            "Scores on labelled images while it trained, the encoder frozen:",
            "",
            "| protocol | top-1 |",
            "|---|---|",
        ]
        lines += [f"| {SCORES[key]} | {100 * value:.1f} % |" for key, value in found.items()]
        lines += ["", f"Labelled images: {encoder.spec.run.probe_data or 'those of the run'}.", ""]
    if "imported" not in encoder.meta:
        lines += ["Recipe:", "", "```yaml", yaml.safe_dump(_recipe(encoder), sort_keys=False).rstrip(), "```", ""]
    return "\n".join(lines)


def scores(encoder: LoadedEncoder) -> dict[str, float]:
    """The newest probe scores of the run up to the checkpoint's step; empty where its files tell none."""
    if encoder.path.parent.name != "checkpoints":
        return {}
    found: dict[str, float] = {}
    try:
        lines = (encoder.path.parent.parent / "metrics.jsonl").read_text("utf-8").splitlines()
    except OSError:
        return {}
    for text in lines:
        try:
            line = json.loads(text)
            if line["step"] <= encoder.meta["step"]:
                found |= {key: float(line[key]) for key in SCORES if key in line}
        except (ValueError, KeyError, TypeError):
            continue
    return found


def _front(encoder: LoadedEncoder, written: Written, licence: str, found: dict[str, float]) -> dict[str, Any]:
    method = encoder.spec.method.name
    front: dict[str, Any] = {
        "license": licence,
        "library_name": written.library,
        "pipeline_tag": "image-feature-extraction",
        "tags": ["self-supervised-learning", "sslctl", method],
    }
    if found:
        name = f"{encoder.spec.backbone.arch}, {method}"
        data = PurePath(encoder.spec.run.probe_data or encoder.spec.data.path).name
        result = {
            "task": {"type": "image-classification"},
            "dataset": {"name": data, "type": data},
            "metrics": [
                {"type": "accuracy", "name": SCORES[key], "value": round(value, 4)} for key, value in found.items()
            ],
        }
        front["model-index"] = [{"name": name, "results": [result]}]
    return front


def _told(encoder: LoadedEncoder) -> str:
    width = f"It gives {encoder.backbone.dim} numbers an image."
    if "imported" in encoder.meta:
        return f"An image encoder made elsewhere ({encoder.meta['imported'].get('layout', UNKNOWN)}). {width}"
    return f"An image encoder learnt without labels: {encoder.spec.method.name}, {encoder.meta['step']} steps. {width}"


def _facts(encoder: LoadedEncoder, licence: str) -> dict[str, str]:
    spec, meta = encoder.spec, encoder.meta
    image, data = meta["image"], meta["data"]
    facts = {
        "architecture": f"timm `{spec.backbone.arch}`, {encoder.backbone.stem} stem",
        "method": spec.method.name,
        "images": f"RGB in [0, 1], {image['size']} px, less {list(image['mean'])}, divided by {list(image['std'])}",
    }
    if "imported" in meta:
        facts["imported from"] = ", ".join(f"{key} {value}" for key, value in meta["imported"].items() if value)
    else:
        name = PurePath(spec.data.path).name
        facts["data"] = f"{name}, {data['images']} images, sha256 {data['fingerprint']}"
        facts["steps"] = f"{meta['step']} of batch size {spec.run.batch_size}"
    facts["checkpoint"] = f"sha256 of tensors {meta['sha256']}"
    facts["licence"] = f"{licence} (to be chosen by whoever publishes it)" if licence == UNKNOWN else licence
    return {key: value.replace("|", "\\|").replace("\n", " ") for key, value in facts.items()}


def _recipe(encoder: LoadedEncoder) -> dict[str, Any]:
    spec = encoder.spec.dump()
    return {
        section: {key: value for key, value in spec[section].items() if value is not None and (not keys or key in keys)}
        for section, keys in RECIPE.items()
    }
