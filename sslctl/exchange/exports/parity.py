"""Parity: features of another library, computed in a fresh process on real images, compared with ours."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from ...data import open_source
from ...data.decode import BadImage, Pixels
from ...data.demo import open_demo
from ...data.source import Source
from ...errors import CheckpointError, SslctlError
from ...files import write_atomically
from ...runs.encoder import LoadedEncoder
from ...runs.meta import ImageSpec
from ...views.evaluation import EvalTransform

IMAGES = 16
DEMO = "demo-hard"
REPORT = "please report this, with the architecture"

# The process that checks fetches no model and imports nothing from the working directory.
_ISOLATED = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "PYTHONSAFEPATH": "1", "PYTHONWARNINGS": "ignore"}


@dataclass(frozen=True)
class Parity:
    """The differences between two libraries' features of the same images."""

    absolute: float  # largest difference of two numbers
    relative: float  # the same, as a share of the largest number of that image
    cosine: float  # smallest, of an image's two features
    strangers: int  # images with another nearest neighbour by cosine, beyond the tolerance; a key of parity.json

    def __str__(self) -> str:
        neighbours = f"{self.strangers} nearest neighbours differ" if self.strangers else "the same nearest neighbours"
        return (
            f"largest difference {self.absolute:.2g} ({self.relative:.2g} of the largest number), "
            f"smallest cosine {self.cosine:.7f}, {neighbours}"
        )


def compare(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], tolerance: float) -> Parity:
    """Return the largest differences over all outputs, each (B, ...).

    They are infinite for a missing output, another shape or a value that is not finite. Cosines within ``tolerance``
    count as a tie between neighbours.
    """
    worst = Parity(0.0, 0.0, 1.0, 0)
    if ours.keys() - theirs.keys():
        return Parity(float("inf"), float("inf"), -1.0, 0)
    for name, value in ours.items():
        other = theirs[name]
        if value.shape != other.shape or not all(bool(torch.isfinite(x).all()) for x in (value, other)):
            return Parity(float("inf"), float("inf"), -1.0, len(value))
        a, b = value.double().flatten(1), other.double().flatten(1)  # (B, D)
        gap = (a - b).abs().amax(1)
        worst = Parity(
            max(worst.absolute, float(gap.max())),
            max(worst.relative, float((gap / a.abs().amax(1).clamp_min(1e-12)).max())),
            min(worst.cosine, float(F.cosine_similarity(a, b).min())),
            max(worst.strangers, _different_neighbours(a, b, tolerance)),
        )
    return worst


def require_parity(parity: Parity, tolerance: float, what: str, library: str) -> None:
    """Raise CheckpointError if features of ``library`` for ``what`` differ by more than ``tolerance`` (relative)."""
    if not parity.relative <= tolerance or parity.strangers:
        raise CheckpointError(
            f"{what} was discarded: {library} and sslctl give different features: {parity}; the tolerance is "
            f"{tolerance:g}",
            REPORT,
        )


def run_fresh(code: str, inputs: Mapping[str, Tensor], folder: Path, what: str, library: str) -> dict[str, Tensor]:
    """Run ``code`` on ``inputs`` in a new Python process in ``folder``, without a network, and return its tensors.

    It reads the file named by sys.argv[1] and writes that of sys.argv[2]. Raises CheckpointError with the last line of
    the error if it fails.
    """
    x, y = folder / "x.safetensors", folder / "y.safetensors"
    write_atomically(x, save({name: t.contiguous() for name, t in inputs.items()}))
    command = [sys.executable, "-c", code, x.name, y.name]
    process = subprocess.run(
        command, cwd=folder, env=os.environ | _ISOLATED, capture_output=True, text=True, errors="replace", check=False
    )
    try:
        if process.returncode:
            reason = (process.stderr.strip().splitlines() or [f"exit code {process.returncode}"])[-1]
            raise CheckpointError(f"{what} was discarded: {library} does not load it: {reason}", REPORT)
        return load_file(y)
    except (OSError, SafetensorError) as e:
        raise CheckpointError(f"{what} was discarded: {library} returned no features: {e}", REPORT) from e
    finally:
        x.unlink(missing_ok=True)
        y.unlink(missing_ok=True)


def real_images(encoder: LoadedEncoder, count: int = IMAGES) -> tuple[list[Pixels], str]:
    """Return ``count`` images, uint8 (H, W, 3), spread over the encoder's training set, and the name of the set.

    If that is missing, unknown or too small, they come from the embedded set.
    """
    if encoder.meta.imported is None:
        try:
            source = open_source(encoder.spec.data.path, labelled=False)
            images = _spread_images(source, count)
            if len(images) == count:
                return images, PurePath(encoder.spec.data.path).name  # a card does not show paths
        except SslctlError:
            pass  # moved, or not on this machine: any real images will do
    demo = open_demo(DEMO, "val", n=count, size=max(32, encoder.meta.image.size))
    return list(demo.array), f"the embedded set ({DEMO})"


def at_size(images: list[Pixels], size: int) -> Tensor:
    """Resize and crop ``images`` as evaluation does, without normalising: uint8 (B, 3, size, size)."""
    plain = EvalTransform(size, (0.0,) * 3, (1 / 255,) * 3)
    return torch.stack([plain(image) for image in images]).round().to(torch.uint8)


def normalise(pixels: Tensor, image: ImageSpec) -> Tensor:
    """Normalise pixels, uint8 (B, 3, H, W), by the mean and standard deviation of ``image``: float32."""
    mean, std = (torch.tensor(getattr(image, key))[:, None, None] * 255 for key in ("mean", "std"))
    return (pixels.float() - mean) / std


def _spread_images(source: Source, count: int) -> list[Pixels]:
    """Return ``count`` readable images spread over the set, fewer if too many cannot be read."""
    images: list[Pixels] = []
    spread = [k * len(source) // count for k in range(count)] if len(source) else []
    for i in dict.fromkeys([*spread, *range(min(len(source), 20 * count))]):
        if len(images) < count:
            with contextlib.suppress(BadImage):
                images.append(source.read(i))
    return images


def _different_neighbours(a: Tensor, b: Tensor, tolerance: float) -> int:
    ours, theirs = (F.normalize(x, dim=1) @ F.normalize(x, dim=1).T for x in (a, b))
    for similarity in (ours, theirs):
        similarity.fill_diagonal_(-2)
    if len(a) < 2:
        return 0
    loss = ours.amax(1) - ours.gather(1, theirs.argmax(1, keepdim=True))[:, 0]
    return int((loss > tolerance).sum())
