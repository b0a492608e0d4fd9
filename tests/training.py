"""A small run on real files, for tests of the engine, of checkpoints and of resuming."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sslctl.engine.setup import Training, build, open_inputs
from sslctl.errors import Exit
from sslctl.methods import load_method
from sslctl.methods.resolve import resolve
from sslctl.runtime.stop import StopRequest
from sslctl.spec.parsing import merge

SMALL = {
    "simclr": {"out": 16},
    "swav": {"prototypes": 12, "hidden": 16, "out": 8, "queue": 16, "queue_from_epoch": 1},
    "dino": {"prototypes": 32, "hidden": 16, "bottleneck": 8},
}
BACKBONE = {
    "cnn": {"arch": "resnet18", "drop_path": 0.2, "args": {"channels": [8, 8, 16, 16], "layers": [1, 1, 1, 1]}},
    "vit": {
        "arch": "vit_tiny_patch16_224",
        "position": "dino",
        "drop_path": 0.2,
        "args": {"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2},
    },
}
LR = {"adamw": 1e-3, "sgd": 0.05, "lars": 0.5, "larc": 0.5}


def picture_folder(path: Path, n: int = 20, labels: int = 2) -> Path:
    """``n`` pictures of different sizes and formats in class folders: smooth colours, so that JPEG keeps them."""
    for i in range(n):
        rng = np.random.default_rng(i)
        h, w = int(rng.integers(40, 70)), int(rng.integers(40, 70))
        coarse = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8))
        folder = path / f"class{i % labels}"
        folder.mkdir(parents=True, exist_ok=True)
        suffix = ("jpg", "png", "webp")[i % 3]
        coarse.resize((w, h), Image.Resampling.BICUBIC).save(folder / f"{i:03d}.{suffix}")
    return path


def small_spec(path: Path | str, method: str = "simclr", optimizer: str = "adamw", **sections: Any) -> dict[str, Any]:
    """The user's part of a spec: two global and two local views, batches of 8, 6 steps, a checkpoint every 2."""
    base = {
        "data": {"path": str(path), "workers": 0},
        "views": {"multi_crop": "2x32+2x16"},
        "backbone": BACKBONE["vit" if method == "dino" or load_method(method).needs_vit else "cnn"],
        "method": {"name": method, **SMALL.get(method, {})},
        "optim": {"name": optimizer, "lr": LR[optimizer], "lr_scaling": "none", "warmup_epochs": 1},
        "run": {
            "steps": 6,
            "batch_size": 8,
            "checkpoint_every": 2,
            "log_every": 1,
            "device": "cpu",
            "precision": "fp32",
        },
    }
    return merge(base, sections)


def training(user: dict[str, Any], weights_seed: int | None = None) -> Training:
    """What the engine needs for ``user``; with ``weights_seed`` the fresh weights are those of another seed."""
    inputs = open_inputs(resolve(user))
    t = build(inputs)
    if weights_seed is None:
        return t
    other = build(
        replace(
            inputs,
            spec=inputs.spec.model_copy(update={"run": inputs.spec.run.model_copy(update={"seed": weights_seed})}),
        )
    )
    return replace(t, method=other.method, model=other.model, optimizer=other.optimizer)


class StopAfter(StopRequest):
    """Asks to stop once as many metric lines as ``steps`` were reported."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.left = steps

    def report(self, line: dict[str, Any]) -> None:
        self.left -= "step" in line

    @property
    def requested(self) -> Exit | None:
        return Exit.STOPPED if self.left <= 0 else None


def silent(_: dict[str, Any]) -> None:
    """A report that nobody reads."""


Report = Callable[[dict[str, Any]], None]
