"""An encoder as a folder that timm loads, checked for equal features in a fresh process before anybody sees it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file, save
from torch import Tensor

from ..backbones import Backbone
from ..checkpoint import LoadedEncoder
from ..errors import CheckpointError, MachineError, SpecError
from ..files import write_atomically
from ..views.evaluation import SMALL
from .card import card

TOLERANCE = 1e-5  # of the largest feature
FILES = ("config.json", "model.safetensors", "README.md")

# What the fresh process runs after the README's own code: ``net`` is there then.
_CHECK = """
import sys, torch
from safetensors.torch import load_file, save_file
with torch.no_grad():
    save_file({k: net(x).contiguous() for k, x in load_file(sys.argv[1]).items()}, sys.argv[2])
"""


@dataclass
class Export:
    """What was written, and how far timm's features of test images are from ours."""

    path: Path
    load: str  # the Python code that loads it
    difference: float  # largest absolute
    cosine: float  # smallest
    notes: list[str] = field(default_factory=list)


def export_timm(encoder: LoadedEncoder, out: Path, *, force: bool = False) -> Export:
    """Write the folder ``out``: config.json in the layout of timm's hub, model.safetensors, and README.md.

    The folder appears whole or not at all, after the README's code, run in a new process, has given the same features.
    ``force`` replaces an earlier export, and nothing else. Raises SpecError where ``out`` is taken, CheckpointError
    where the features differ, MachineError where the disk refuses.
    """
    out = Path(os.path.abspath(out))
    _refuse_taken(out, force)
    notes = _notes(encoder.backbone)
    code = load_code(encoder, out.name)
    with _workplace(out) as place:
        folder = place / out.name
        state = {k: v.contiguous() for k, v in encoder.backbone.net.state_dict().items()}
        write_atomically(folder / "model.safetensors", save(state, {"format": "pt"}))
        write_atomically(folder / "config.json", json.dumps(config(encoder), indent=2).encode())
        write_atomically(folder / "README.md", card(encoder, code, notes).encode())
        difference, cosine = parity(encoder.backbone, code, place)
        _move(folder, out)
    return Export(out, code, difference, cosine, notes)


def config(encoder: LoadedEncoder) -> dict[str, Any]:
    """timm's description of the model: how to build it, and how its images were prepared."""
    backbone, image = encoder.backbone, encoder.meta["image"]
    size = image["size"]
    return {
        "architecture": encoder.spec.backbone.arch,
        "num_classes": 0,
        "num_features": backbone.dim,
        "model_args": model_args(encoder),
        "pretrained_cfg": {
            "tag": "sslctl",
            "custom_load": False,
            "input_size": [3, size, size],
            "fixed_input_size": False,
            "interpolation": "bicubic",
            "crop_pct": 1.0 if size < SMALL else 0.875,
            "crop_mode": "center",
            "mean": list(image["mean"]),
            "std": list(image["std"]),
            "num_classes": 0,
        },
    }


def model_args(encoder: LoadedEncoder) -> dict[str, Any]:
    """What timm's constructor must be told beside the architecture; no more, since other readers of the layout balk."""
    args = dict(encoder.spec.backbone.args)
    if encoder.backbone.kind == "vit":
        net = encoder.backbone.net
        args |= {"img_size": encoder.meta["image"]["size"], "dynamic_img_size": True}
        with torch.device("meta"):
            plain = timm.create_model(encoder.spec.backbone.arch, pretrained=False, num_classes=0, **args)
        if net.global_pool != plain.global_pool:
            args |= {"global_pool": net.global_pool, "fc_norm": not isinstance(net.fc_norm, torch.nn.Identity)}
    return args


def load_code(encoder: LoadedEncoder, folder: str) -> str:
    """Python that loads the export into ``net``, run from the directory that holds ``folder``."""
    if encoder.backbone.stem == "imagenet":
        return f"import timm\n\nnet = timm.create_model({f'local-dir:{folder}'!r}, pretrained=True).eval()\n"
    width = encoder.backbone.net.conv1.out_channels
    args = "".join(f", {key}={value!r}" for key, value in model_args(encoder).items())
    return (
        "import timm\n"
        "from safetensors.torch import load_file\n"
        "from torch import nn\n\n"
        f"net = timm.create_model({encoder.spec.backbone.arch!r}, num_classes=0{args})\n"
        f"net.conv1 = nn.Conv2d(3, {width}, 3, padding=1, bias=False)  # the stem for small images\n"
        "net.maxpool = nn.Identity()\n"
        f"net.load_state_dict(load_file({f'{folder}/model.safetensors'!r}))\n"
        "net.eval()\n"
    )


def parity(backbone: Backbone, code: str, place: Path) -> tuple[float, float]:
    """Largest absolute difference and smallest cosine between our features and those of ``code`` run in ``place``.

    Raises CheckpointError where the code fails, or the difference is above TOLERANCE times the largest feature.
    """
    images = {str(size): probe_images(size) for size in _sizes(backbone)}
    write_atomically(place / "x.safetensors", save(images))
    done = subprocess.run(
        [sys.executable, "-c", code + _CHECK, "x.safetensors", "y.safetensors"],
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise CheckpointError(f"the export was discarded: timm does not load it: {reason[0]}", "please report this")
    theirs = load_file(place / "y.safetensors")
    difference, largest, cosine = 0.0, 0.0, 1.0
    backbone.eval()
    for key, x in images.items():
        with torch.no_grad():
            ours = backbone(x)
        same_shape = ours.shape == theirs[key].shape
        difference = max(difference, float((ours - theirs[key]).abs().max()) if same_shape else float("inf"))
        largest = max(largest, float(ours.abs().max()))
        if same_shape:
            cosine = min(cosine, float(torch.nn.functional.cosine_similarity(ours, theirs[key]).min()))
    if not difference <= TOLERANCE * max(largest, 1e-6):
        raise CheckpointError(
            f"the export was discarded: timm's features differ from ours by {difference:.2g} (largest {largest:.2g})",
            "please report this",
        )
    return difference, cosine


def probe_images(size: int, count: int = 4) -> Tensor:
    """Seeded images with coarse and fine structure, about as spread as photographs: (count, 3, size, size)."""
    g = torch.Generator().manual_seed(size)
    coarse = torch.nn.functional.interpolate(torch.randn(count, 3, 4, 4, generator=g), (size, size), mode="bilinear")
    return coarse + 0.3 * torch.randn(count, 3, size, size, generator=g)


def _sizes(backbone: Backbone) -> list[int]:
    """The trained size, and a larger one where timm treats it as we do."""
    size = backbone.image_size
    if backbone.kind == "vit" and backbone.position != "timm":
        return [size]
    return [size, size + 2 * (backbone.patch or 16)]


def _notes(backbone: Backbone) -> list[str]:
    notes = []
    if backbone.stem == "small":
        notes.append(
            "timm.create_model alone cannot build the stem for small images (3x3, stride 1, no max-pool), and refuses"
            " these weights; load them with the code in README.md"
        )
    if backbone.kind == "vit" and backbone.position == "dino":
        notes.append(
            f"timm resizes position embeddings in its own way: features are the same at {backbone.image_size} px only"
        )
    return notes


def _refuse_taken(out: Path, force: bool) -> None:
    if not os.path.lexists(out):
        return
    held = {p.name for p in out.iterdir()} if out.is_dir() and not out.is_symlink() else {"what is no folder"}
    if not held:
        return
    if not held <= set(FILES):
        raise SpecError(f"--out {out}: is there already and no export", "give another name; --force does not remove it")
    if not force:
        raise SpecError(f"--out {out}: is there already", "give another name, or replace it with --force")


@contextlib.contextmanager
def _workplace(out: Path) -> Iterator[Path]:
    """A directory beside ``out`` that is gone afterwards."""
    place = out.parent / f".{out.name}.part-{os.getpid()}"
    try:
        (place / out.name).mkdir(parents=True)
        yield place
    except OSError as e:
        raise MachineError(f"cannot write {out}: {e.strerror or e}", "see its permissions and the free space") from e
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _move(folder: Path, out: Path) -> None:
    if out.exists():
        out.rename(folder.parent / "replaced")  # goes with the workplace
    folder.rename(out)
