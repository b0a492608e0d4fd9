"""Export an encoder: write another library's format, compare features in a fresh process, then publish the files."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import CheckpointError, SpecError
from ...files import write_atomically
from ...runs.encoder import LoadedEncoder
from ...version import __version__
from .card import UNKNOWN, card
from .formats import ExportJob, ExportResult, Format
from .graph import output_names, outputs
from .parity import Parity, at_size, compare, normalise, real_images, require_parity, run_fresh
from .scores import probe_scores, read_scores
from .target import Target, sha256

GREY = 3.0  # grey levels by which another library's resizing may differ from ours
PHOTOS = 4  # images on which that is checked

# The fresh process runs this after the card's code, which defines ``prepare`` and ``encode``. Batches of several sizes
# reveal a graph that fixed one.
_CHECK = """
import sys
import numpy
from PIL import Image
from safetensors import numpy as files

def arrays(x):
    return numpy.ascontiguousarray(x.numpy() if hasattr(x, "numpy") else x)

found = {}
for key, x in files.load_file(sys.argv[1]).items():
    if key.startswith("image."):
        found[key] = arrays(prepare(Image.fromarray(x)))
        continue
    parts = []
    for part in (x[:1], x[1:3], x[3:]):
        y = encode(part if KIND == "numpy" else torch.from_numpy(part))
        parts.append(y if isinstance(y, dict) else {NAME: y})
    for name in parts[0]:
        found[key + "." + name] = numpy.concatenate([arrays(part[name]) for part in parts])
files.save_file(found, sys.argv[2])
"""


@dataclass(frozen=True)
class Export:
    """An export on disk: its files, the Python that loads it, and its parity."""

    path: Path
    report: Path
    code: str
    parity: Parity
    tolerance: float
    images: str  # that were compared
    grey: float  # grey levels by which the other library's preprocessing differs
    notes: list[str]


def export(
    encoder: LoadedEncoder,
    out: Path,
    form: Format,
    *,
    features: str = "pooled",
    preprocess: bool = False,
    licence: str = UNKNOWN,
    score_files: Sequence[Path] = (),
    force: bool = False,
) -> Export:
    """Write ``encoder`` to ``out`` as ``form``, with a card and a parity report next to it.

    Files appear only after the card's code, run in a new process, has returned the same features of real images.
    ``score_files`` hold results of the scoring commands, for the card. ``force`` replaces an earlier export and nothing
    else. Raises MachineError if a library is missing or the disk refuses, SpecError if ``out`` exists or the format
    cannot hold the encoder, CheckpointError if features differ.
    """
    form.require()
    if not form.graph and (features != "pooled" or preprocess):
        flag = "--preprocess" if preprocess else f"--features {features}"
        raise SpecError(f"{flag}: {form.library} loads a network whose output is fixed", "--format onnx or pt2")
    names = output_names(encoder.backbone, features)
    scores = [*probe_scores(encoder), *read_scores(encoder, score_files)]
    target = Target(out, form.suffixes)
    target.refuse_existing(force)
    with target.build_folder() as build:
        job = ExportJob(encoder, build / target.name, target.name, features, preprocess)
        result = form.writer()(job)
        images, dataset = real_images(encoder)
        inputs, ours = _inputs(job, result, names, images)
        code = f"{result.code}\nKIND, NAME = {result.kind!r}, {names[0]!r}\n{_CHECK}"
        library = result.checked_by or form.library
        theirs = run_fresh(code, inputs, build, "the export", library)
        parity = compare(ours, theirs, form.tolerance)
        require_parity(parity, form.tolerance, "the export", library)
        grey = _grey_levels(job, inputs, theirs, library)
        sizes = " and ".join(f"{h}x{w}" for h, w in result.sizes)
        compared = f"{len(images)} images of {dataset} at {sizes} px"
        check = f"{library} in a separate process, {compared}: {parity}; the tolerance is {form.tolerance:g}"
        home = build / target.out.name if target.folder else build
        write_atomically(home / target.card, card(job, result, check, licence, scores).encode())
        report = _report(job, parity, form, library, compared, grey)
        report["files"] = {path.name: sha256(path) for path in sorted(home.iterdir())}
        write_atomically(home / target.report, (json.dumps(report, indent=2) + "\n").encode())
        target.publish(build)
    path = target.home / target.report
    return Export(target.out, path, result.code, parity, form.tolerance, compared, grey, result.notes)


def _inputs(
    job: ExportJob, result: ExportResult, names: tuple[str, ...], images: list[Any]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the inputs of the other library, images at every size and some unprepared, and our features of them."""
    backbone, image = job.encoder.backbone.eval(), job.encoder.meta.image
    inputs: dict[str, Tensor] = {}
    ours: dict[str, Tensor] = {}
    for h, w in result.sizes:
        pixels = at_size(images, max(h, w))[:, :, :h, :w]
        x = normalise(pixels.contiguous(), image)
        inputs[f"{h}x{w}"] = pixels.permute(0, 2, 3, 1).contiguous() if job.preprocess else x
        with torch.inference_mode():
            features = outputs(backbone, x, names)
        ours |= {f"{h}x{w}.{name}": value for name, value in features.items()}
    for i, photo in enumerate(images[:PHOTOS]):
        inputs[f"image.{i}"] = torch.from_numpy(photo.copy())
    return inputs, ours


def _grey_levels(job: ExportJob, inputs: dict[str, Tensor], theirs: dict[str, Tensor], library: str) -> float:
    """Return the largest difference, in grey levels, between images of ``prepare`` and of our evaluation.

    Raises CheckpointError above GREY: the network would see other images than those it was evaluated on.
    """
    image = job.encoder.meta.image
    transform, worst = image.transform(), 0.0
    mean, std = (torch.tensor(getattr(image, key))[:, None, None] for key in ("mean", "std"))
    for i in range(PHOTOS):
        ours = (transform(inputs[f"image.{i}"].numpy()) * std + mean) * 255
        prepared = theirs[f"image.{i}"]
        prepared = prepared.permute(2, 0, 1).float() if job.preprocess else (prepared * std + mean) * 255
        worst = max(worst, float((ours - prepared).abs().max()) if ours.shape == prepared.shape else float("inf"))
    if not worst <= GREY:
        raise CheckpointError(
            f"the export was discarded: {library} prepares other images than evaluation, by {worst:.1f} grey levels",
            "please report this",
        )
    return worst


def _report(job: ExportJob, parity: Parity, form: Format, library: str, images: str, grey: float) -> dict[str, Any]:
    encoder = job.encoder
    versions = {"sslctl": __version__}
    for name in ("torch", "timm", "torchvision", *form.needs):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "format": form.title,
        "compared with": library,
        "images": images,
        "outputs": job.features,
        "parity": {**asdict(parity), "tolerance": form.tolerance},
        "grey levels": round(grey, 3),
        "checkpoint": {"file": os.path.basename(encoder.path), "sha256": encoder.meta.sha256},
        "versions": versions,
    }
