"""Commands called in this process, and tiny runs for them to work on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from typer.testing import CliRunner, Result

from sslctl.cli.main import app

COLOURS = {"blue": (40, 60, 200), "green": (50, 180, 60), "red": (200, 50, 40)}


def call(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def result(*words: object) -> dict[str, Any]:
    done = call(*words, "--json")
    assert done.exit_code == 0, done.output
    assert len(done.stdout.splitlines()) == 1
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def write_images(folder: Path, classes: list[str], count: int) -> Path:
    rng = np.random.default_rng(len(classes) * count)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for i in range(count):
            noise = rng.normal(0, 25, (24, 32, 3)) + COLOURS[name]
            Image.fromarray(noise.clip(0, 255).astype(np.uint8)).save(folder / name / f"{i}.png")
    return folder


def pretrain(data: Path, out: Path, method: str, arch: str, **args: object) -> Path:
    sets = [f"--set=backbone.args={json.dumps(args)}", "--set=run.threads=1", "--workers=0", "--seed=1"]
    if method == "dino":
        sets += ["--set=method.prototypes=16", "--set=method.hidden=8", "--set=method.bottleneck=8"]
    done = call(
        "pretrain", f"--data={data}", f"--method={method}", f"--arch={arch}", "--multi-crop=2x32", "--steps=2",
        "--batch-size=8", f"--out={out}", *sets
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    return out


def tiny_resnet(images: Path, out: Path) -> Path:
    """A run of two steps, SimCLR."""
    return pretrain(images, out, "simclr", "resnet18", channels=[4, 8, 8, 8], layers=[1, 1, 1, 1])


def tiny_vit(images: Path, out: Path) -> Path:
    """A run of two steps, DINO."""
    return pretrain(images, out, "dino", "vit_tiny_patch16_224", patch_size=8, embed_dim=16, depth=2, num_heads=2)
