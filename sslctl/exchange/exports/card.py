"""The card of an export: what the encoder is, where it comes from, how good it is, and the Python that loads it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

import yaml

from ...runs.encoder import LoadedEncoder
from ...runs.meta import ImageSpec
from .formats import ExportJob, ExportResult
from .scores import Score

UNKNOWN = "unknown"  # the Hub's word for a licence that nobody stated
# The sections of a spec that decide the result; paths on this machine stay out.
RECIPE = {"views": None, "backbone": None, "method": None, "optim": None, "run": ("epochs", "steps", "batch_size")}


def card(job: ExportJob, result: ExportResult, check: str, licence: str = UNKNOWN, scores: Sequence[Score] = ()) -> str:
    """Return the card: Markdown with the front matter that the Hugging Face Hub reads.

    Its one block of Python is ``result.code``; ``check`` says how the features were compared.
    """
    encoder = job.encoder
    remarks = [result.remark, *(f"Note: {note}." for note in (*encoder.notes, *result.notes))]
    lines = [
        "---",
        yaml.safe_dump(_front(encoder, result, licence, scores), sort_keys=False, allow_unicode=True).rstrip(),
        "---",
        "",
        f"# {encoder.spec.backbone.arch}, {encoder.spec.method.name}",
        "",
        _summary(encoder),
        "",
        "Load it, from the directory that holds it:",
        "",
        "```python",
        result.code.rstrip(),
        "```",
        "",
        *[line for text in remarks if text for line in (text, "")],
        f"Checked against sslctl: {check}.",
        "",
        "| | |",
        "|---|---|",
        *[f"| {key} | {value} |" for key, value in _facts(encoder, licence).items()],
        "",
    ]
    if scores:
        lines += ["Scores, the encoder frozen where the protocol does not say otherwise:", ""]
        lines += ["| protocol | images | top-1 |", "|---|---|---|"]
        lines += [f"| {_cell(row.protocol)} | {_cell(row.data)} | {row} |" for row in scores]
        lines += [""]
    if encoder.meta.imported is None:
        lines += ["Recipe:", "", "```yaml", yaml.safe_dump(_recipe(encoder), sort_keys=False).rstrip(), "```", ""]
    return "\n".join(lines)


def _front(encoder: LoadedEncoder, result: ExportResult, licence: str, scores: Sequence[Score]) -> dict[str, Any]:
    method = encoder.spec.method.name
    front: dict[str, Any] = {
        "license": licence,
        "library_name": result.library,
        "pipeline_tag": "image-feature-extraction",
        "tags": ["self-supervised-learning", "sslctl", method],
    }
    if scores:
        results = [
            {
                "task": {"type": "image-classification"},
                "dataset": {"name": row.data, "type": row.data},
                "metrics": [{"type": "accuracy", "name": row.protocol, "value": round(row.top1, 4)}],
            }
            for row in scores
        ]
        front["model-index"] = [{"name": f"{encoder.spec.backbone.arch}, {method}", "results": results}]
    return front


def _summary(encoder: LoadedEncoder) -> str:
    width = f"Its features have {encoder.backbone.dim} numbers."
    if (imported := encoder.meta.imported) is not None:
        return f"An image encoder from another tool ({imported.layout}). {width}"
    return f"An image encoder trained without labels: {encoder.spec.method.name}, {encoder.meta.step} steps. {width}"


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
    """Escape ``text`` from outside for a table cell."""
    return text.replace("|", "\\|").replace("\n", " ")


def _recipe(encoder: LoadedEncoder) -> dict[str, Any]:
    spec = encoder.spec.dump()
    return {
        section: {key: value for key, value in spec[section].items() if value is not None and (not keys or key in keys)}
        for section, keys in RECIPE.items()
    }


def prepare_code(image: ImageSpec, kind: str = "torch", raw: bool = False) -> str:
    """Return Python for ``prepare``, from a PIL image to the network's input: the evaluation transform, by Pillow.

    ``image`` is the encoder's size, mean and std; ``kind`` is torch or numpy; ``raw`` leaves uint8 (S, S, 3).
    """
    size, short = image.size, image.transform().short
    lines = [
        "def prepare(image):  # a PIL image",
        '    image = ImageOps.exif_transpose(image).convert("RGB")',
        "    w, h = image.size",
        f"    w, h = int({short} * w / min(w, h)), int({short} * h / min(w, h))",
        f"    left, top = round((w - {size}) / 2), round((h - {size}) / 2)",
        "    image = image.resize((w, h), Image.Resampling.BICUBIC)",
        f"    image = image.crop((left, top, left + {size}, top + {size}))",
    ]
    if raw:
        lines += [f"    x = np.array(image)  # uint8 ({size}, {size}, 3)"]
    else:
        mean, std = ([round(float(v), 6) for v in getattr(image, key)] for key in ("mean", "std"))
        lines += [
            f"    x = (np.asarray(image, np.float32) / 255 - np.float32({mean})) / np.float32({std})",
            f"    x = np.ascontiguousarray(x.transpose(2, 0, 1))  # (3, {size}, {size})",
        ]
    lines += ["    return torch.from_numpy(x)" if kind == "torch" else "    return x"]
    return "\n".join(lines) + "\n"


def encode_code(result: str, shape: str) -> str:
    """Return Python for ``encode`` by a torch module: the expression ``result`` of the batch x, of shape ``shape``."""
    return f"def encode(x):\n    with torch.inference_mode():\n        return {result}  # {shape}\n"


USAGE = '# features = encode(prepare(Image.open("photo.jpg"))[None])\n'


def join_code(*parts: str) -> str:
    """Join parts of a program, two blank lines between them, and add a line that uses it."""
    return "\n\n".join(part.rstrip("\n") + "\n" for part in parts) + "\n\n" + USAGE
