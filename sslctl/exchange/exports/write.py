"""An encoder in another library's format: written, compared with ours in a fresh process, and only then there."""

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
from .formats import Format, Order, Written
from .graph import check_outputs, outputs
from .parity import Parity, at_size, compare, demand, normalised, real_images, run_fresh
from .scores import of_files, of_run
from .target import Target, sha256

GREY = 3.0  # grey levels by which another library's resizing may differ from ours
PHOTOS = 4  # images on which that is seen

# What the fresh process runs after the card's own code: ``prepare`` and ``encode`` are there then. Batches of several
# sizes, so that a graph which fixed one is seen.
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
    """What was written, how it is loaded, and how far its numbers are from ours."""

    path: Path
    report: Path
    code: str
    parity: Parity
    tolerance: float
    images: str  # on which they were compared
    grey: float  # levels by which its images differ from ours before the net
    notes: list[str]


def export(
    encoder: LoadedEncoder,
    out: Path,
    form: Format,
    *,
    features: str = "pooled",
    preprocess: bool = False,
    licence: str = UNKNOWN,
    scored: Sequence[Path] = (),
    force: bool = False,
) -> Export:
    """Write ``encoder`` to ``out`` as ``form``, with a card and a report of its parity beside it.

    All of it appears whole or not at all, after the card's code, run in a new process, has given the same features on
    real images. ``scored`` are results of the scoring commands, for the card. ``force`` replaces an earlier export, and
    nothing else. Raises MachineError where a library is missing
    or the disk refuses, SpecError where ``out`` is taken or the format cannot hold the encoder, CheckpointError where
    the numbers differ.
    """
    form.require()
    if not form.graph and (features != "pooled" or preprocess):
        flag = "--preprocess" if preprocess else f"--features {features}"
        raise SpecError(f"{flag}: {form.who} loads a net, which gives what it gives", "--format onnx or pt2")
    names = check_outputs(encoder.backbone, features)
    known = [*of_run(encoder), *of_files(encoder, scored)]
    target = Target(out, form.suffixes)
    target.refuse_taken(force)
    with target.workplace() as place:
        order = Order(encoder, place / target.name, target.name, features, preprocess)
        written = form.writer()(order)
        images, where = real_images(encoder)
        inputs, ours = _inputs(order, written, names, images)
        code = f"{written.code}\nKIND, NAME = {written.kind!r}, {names[0]!r}\n{_CHECK}"
        who = written.checked_by or form.who
        theirs = run_fresh(code, inputs, place, "the export", who)
        parity = compare(ours, theirs, form.tolerance)
        demand(parity, form.tolerance, "the export", who)
        grey = _grey(order, inputs, theirs, who)
        sizes = " and ".join(f"{h}x{w}" for h, w in written.sizes)
        seen = f"{len(images)} images of {where} at {sizes} px"
        checked = f"{who} in a process of its own, {seen}: {parity}; allowed is {form.tolerance:g}"
        home = place / target.out.name if target.folder else place
        write_atomically(home / target.card, card(order, written, checked, licence, known).encode())
        report = _report(order, parity, form, who, seen, grey)
        report["files"] = {path.name: sha256(path) for path in sorted(home.iterdir())}
        write_atomically(home / target.report, (json.dumps(report, indent=2) + "\n").encode())
        target.take(place)
    path = target.home / target.report
    return Export(target.out, path, written.code, parity, form.tolerance, seen, grey, written.notes)


def _inputs(
    order: Order, written: Written, names: tuple[str, ...], images: list[Any]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What the other side gets, and what we make of it: images at every size, and some as they are."""
    backbone, image = order.encoder.backbone.eval(), order.encoder.meta.image
    inputs: dict[str, Tensor] = {}
    ours: dict[str, Tensor] = {}
    for h, w in written.sizes:
        pixels = at_size(images, max(h, w))[:, :, :h, :w]
        x = normalised(pixels.contiguous(), image)
        inputs[f"{h}x{w}"] = pixels.permute(0, 2, 3, 1).contiguous() if order.preprocess else x
        with torch.inference_mode():
            found = outputs(backbone, x, names)
        ours |= {f"{h}x{w}.{name}": value for name, value in found.items()}
    for i, photo in enumerate(images[:PHOTOS]):
        inputs[f"image.{i}"] = torch.from_numpy(photo.copy())
    return inputs, ours


def _grey(order: Order, inputs: dict[str, Tensor], theirs: dict[str, Tensor], who: str) -> float:
    """Largest difference, in grey levels, between the images that ``prepare`` makes and those of our evaluation.

    Raises CheckpointError where it is more than GREY: the net would see other images than it was judged on.
    """
    image = order.encoder.meta.image
    transform, worst = image.transform(), 0.0
    mean, std = (torch.tensor(getattr(image, key))[:, None, None] for key in ("mean", "std"))
    for i in range(PHOTOS):
        ours = (transform(inputs[f"image.{i}"].numpy()) * std + mean) * 255
        made = theirs[f"image.{i}"]
        made = made.permute(2, 0, 1).float() if order.preprocess else (made * std + mean) * 255
        worst = max(worst, float((ours - made).abs().max()) if ours.shape == made.shape else float("inf"))
    if not worst <= GREY:
        raise CheckpointError(
            f"the export was discarded: {who} prepares other images than evaluation, by {worst:.1f} grey levels",
            "please report this",
        )
    return worst


def _report(order: Order, parity: Parity, form: Format, who: str, seen: str, grey: float) -> dict[str, Any]:
    encoder = order.encoder
    versions = {"sslctl": __version__}
    for name in ("torch", "timm", "torchvision", *form.needs):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "format": form.title,
        "compared with": who,
        "images": seen,
        "outputs": order.features,
        "parity": {**asdict(parity), "tolerance": form.tolerance},
        "grey levels": round(grey, 3),
        "checkpoint": {"file": os.path.basename(encoder.path), "sha256": encoder.meta.sha256},
        "versions": versions,
    }
