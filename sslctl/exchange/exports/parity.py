"""Whether another library gives our numbers: run in a fresh process on real images, and compared."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from ...data import open_source
from ...data.decode import BadImage, Pixels
from ...data.demo import open_demo
from ...errors import CheckpointError, SslctlError
from ...files import write_atomically
from ...runs.encoder import LoadedEncoder
from ...runs.meta import ImageSpec
from ...views.evaluation import EvalTransform

IMAGES = 16
DEMO = "demo-hard"
REPORT = "please report this, with the architecture"

# No model is fetched and nothing in the working directory is imported by whoever checks.
_ALONE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "PYTHONSAFEPATH": "1", "PYTHONWARNINGS": "ignore"}


@dataclass(frozen=True)
class Parity:
    """How far their numbers are from ours."""

    absolute: float  # largest difference of two numbers
    relative: float  # the same, as a share of the largest number of that image
    cosine: float  # smallest, of an image's two features
    strangers: int  # images whose nearest neighbour (by cosine) is another one, by more than the tolerance

    def __str__(self) -> str:
        near = f"{self.strangers} nearest neighbours differ" if self.strangers else "the same nearest neighbours"
        return (
            f"largest difference {self.absolute:.2g} ({self.relative:.2g} of the largest number), "
            f"smallest cosine {self.cosine:.7f}, {near}"
        )


def compare(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], tolerance: float) -> Parity:
    """The worst over all outputs, each (B, ...); a missing one, another shape or a number that is none is infinitely
    far. ``tolerance`` is how close two cosines are a tie."""
    worst = Parity(0.0, 0.0, 1.0, 0)
    if ours.keys() - theirs.keys():
        return Parity(float("inf"), float("inf"), -1.0, 0)
    for name, mine in ours.items():
        other = theirs[name]
        if mine.shape != other.shape or not all(bool(torch.isfinite(x).all()) for x in (mine, other)):
            return Parity(float("inf"), float("inf"), -1.0, len(mine))
        a, b = mine.double().flatten(1), other.double().flatten(1)  # (B, D)
        gap = (a - b).abs().amax(1)
        worst = Parity(
            max(worst.absolute, float(gap.max())),
            max(worst.relative, float((gap / a.abs().amax(1).clamp_min(1e-12)).max())),
            min(worst.cosine, float(F.cosine_similarity(a, b).min())),
            max(worst.strangers, _strangers(a, b, tolerance)),
        )
    return worst


def demand(parity: Parity, tolerance: float, what: str, who: str) -> None:
    """CheckpointError where ``who`` does not give our numbers for ``what`` within ``tolerance`` (relative)."""
    if not parity.relative <= tolerance or parity.strangers:
        raise CheckpointError(
            f"{what} was discarded: {who} gives other features than sslctl: {parity}; allowed is {tolerance:g}", REPORT
        )


def run_fresh(code: str, inputs: Mapping[str, Tensor], place: Path, what: str, who: str) -> dict[str, Tensor]:
    """What ``code`` makes of ``inputs`` in a new Python process in the directory ``place``.

    It finds the tensors in the file named by sys.argv[1] and leaves its own in that of sys.argv[2]. Nothing is fetched
    from a network. Raises CheckpointError with the last line of its error where it fails.
    """
    x, y = place / "x.safetensors", place / "y.safetensors"
    write_atomically(x, save({name: t.contiguous() for name, t in inputs.items()}))
    command = [sys.executable, "-c", code, x.name, y.name]
    done = subprocess.run(
        command, cwd=place, env=os.environ | _ALONE, capture_output=True, text=True, errors="replace", check=False
    )
    try:
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise CheckpointError(f"{what} was discarded: {who} does not load it: {reason}", REPORT)
        return load_file(y)
    except (OSError, SafetensorError) as e:
        raise CheckpointError(f"{what} was discarded: {who} gave no features: {e}", REPORT) from e
    finally:
        x.unlink(missing_ok=True)
        y.unlink(missing_ok=True)


def real_images(encoder: LoadedEncoder, count: int = IMAGES) -> tuple[list[Pixels], str]:
    """``count`` images, uint8 (H, W, 3), spread over those that the encoder was trained on, and what they are.

    Where those are gone, unknown or too few, images of the embedded set instead.
    """
    if encoder.meta.imported is None:
        try:
            source = open_source(encoder.spec.data.path, labelled=False)
            found = _some(source, count)
            if len(found) == count:
                return found, PurePath(encoder.spec.data.path).name  # where it lies does not belong into a card
        except SslctlError:
            pass  # moved, or not on this machine: any real image will do
    demo = open_demo(DEMO, "val", n=count, size=max(32, encoder.meta.image.size))
    return list(demo.array), f"the embedded set ({DEMO})"


def at_size(images: list[Pixels], size: int) -> Tensor:
    """``images`` resized and cut as evaluation does, not normalised: uint8 (B, 3, size, size)."""
    plain = EvalTransform(size, (0.0,) * 3, (1 / 255,) * 3)
    return torch.stack([plain(image) for image in images]).round().to(torch.uint8)


def normalised(pixels: Tensor, image: ImageSpec) -> Tensor:
    """uint8 (B, 3, H, W) as the encoder takes it: float32, less the mean, over the deviation that ``image`` states."""
    mean, std = (torch.tensor(getattr(image, key))[:, None, None] * 255 for key in ("mean", "std"))
    return (pixels.float() - mean) / std


def _some(source: Any, count: int) -> list[Pixels]:
    """``count`` readable images, spread over the set; fewer where there are no more among those tried."""
    found: list[Pixels] = []
    spread = [k * len(source) // count for k in range(count)] if len(source) else []
    for i in dict.fromkeys([*spread, *range(min(len(source), 20 * count))]):
        if len(found) < count:
            with contextlib.suppress(BadImage):
                found.append(source.read(i))
    return found


def _strangers(a: Tensor, b: Tensor, tolerance: float) -> int:
    ours, theirs = (F.normalize(x, dim=1) @ F.normalize(x, dim=1).T for x in (a, b))
    for near in (ours, theirs):
        near.fill_diagonal_(-2)
    if len(a) < 2:
        return 0
    best = ours.amax(1)
    chosen = ours.gather(1, theirs.argmax(1, keepdim=True))[:, 0]
    return int((best - chosen > tolerance).sum())
