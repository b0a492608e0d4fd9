"""Feature extraction against the bare encoder's forward pass, and bfloat16 against float32; as ratios in one process.

    OMP_NUM_THREADS=1 python benchmarks/features.py              # some minutes; one JSON object a line
    OMP_NUM_THREADS=1 python benchmarks/features.py --model RUN  # a trained encoder on its own images, of one size

Contenders take turns and the least process-CPU time of the repetitions counts: beside other work seconds mean little.
The images lie in memory at the size that the encoder takes, so that decoding and resizing are not what is measured.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from turns import fastest

from sslctl.backbones import Backbone, build_backbone
from sslctl.data import open_one
from sslctl.data.source import ArraySource, Source
from sslctl.evaluate.features.extract import extract
from sslctl.evaluate.features.writing import Order, write_features
from sslctl.runs.encoder import load_encoder
from sslctl.runtime.device import cpu_has_bf16
from sslctl.spec.schema import BackboneSpec
from sslctl.views.evaluation import EvalTransform
from sslctl.views.recipe import IMAGENET_MEAN, IMAGENET_STD


def images(n: int, size: int) -> ArraySource:
    """Smooth colours: arithmetic on them takes what it takes on photographs."""
    coarse = torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    pixels = F.interpolate(coarse, (size, size), mode="bilinear") * 255
    return ArraySource("made", pixels.byte().permute(0, 2, 3, 1).contiguous().numpy())


def untrained(arch: str, size: int, n: int, batch: int) -> tuple[Backbone, ArraySource, EvalTransform]:
    torch.manual_seed(0)
    encoder = build_backbone(BackboneSpec(arch=arch, stem="imagenet" if arch.startswith("resnet") else "auto"), size)
    source, transform = images(n, size), EvalTransform(size, IMAGENET_MEAN, IMAGENET_STD, crop=1.0)
    calibrate(encoder, transform.batch(torch.from_numpy(source.array[:batch]).permute(0, 3, 1, 2)))
    return encoder.eval().requires_grad_(False), source, transform


def trained(model: Path, n: int) -> tuple[Backbone, Source, EvalTransform]:
    encoder = load_encoder(model)
    image, source = encoder.meta.image, open_one(encoder.spec.data)
    some = source.take(np.arange(min(n, len(source))))
    return encoder.backbone, some, image.transform()


def compare(
    encoder: Backbone, source: Source, transform: EvalTransform, batch: int, repetitions: int, folder: Path
) -> Iterator[dict[str, object]]:
    assert source.array is not None
    n = len(source)
    layout = torch.channels_last if encoder.channels_last else torch.contiguous_format
    ready = [
        transform.batch(torch.from_numpy(part).permute(0, 3, 1, 2)).contiguous(memory_format=layout)
        for part in np.array_split(source.array, range(batch, n, batch))
    ]

    def bare() -> None:
        with torch.no_grad():
            for x in ready:
                encoder(x)

    def to_file() -> None:
        order = Order(folder / f"{time.time_ns()}.npy", "npy", "k", {})
        write_features(encoder, source, transform, order, batch_size=batch)

    tasks = [bare, lambda: extract(encoder, source, transform, batch_size=batch), to_file]
    forward, features, file = fastest(repetitions, *tasks)
    arch = encoder.net.default_cfg["architecture"]
    about = {"arch": arch, "size": transform.size, "images": n, "batch": batch, "bare_images_per_second": n / forward}
    yield {"what": "extract / bare forward", **about, "throughput_ratio": forward / features}
    yield {"what": "embed to .npy / bare forward", **about, "throughput_ratio": forward / file}
    yield {"what": "bf16 / fp32", **about, **half(encoder, source, transform, batch, repetitions)}


def half(
    encoder: Backbone, source: Source, transform: EvalTransform, batch: int, repetitions: int
) -> dict[str, object]:
    found: dict[torch.dtype, Tensor] = {}

    def take(dtype: torch.dtype) -> None:
        found[dtype] = extract(encoder, source, transform, batch_size=batch, dtype=dtype).x

    seconds = fastest(repetitions, lambda: take(torch.float32), lambda: take(torch.bfloat16))
    cosine = F.cosine_similarity(found[torch.float32], found[torch.bfloat16])
    return {
        "cpu_has_bf16": cpu_has_bf16(),
        "speed_ratio": seconds[0] / seconds[1],
        "cosine_min": float(cosine.min()),
        "cosine_mean": float(cosine.mean()),
    }


def calibrate(encoder: Backbone, x: Tensor) -> None:
    """Batch norm as after training: with the statistics of some images."""
    with torch.no_grad():
        for module in encoder.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = None
                module.train()
                module.weight.fill_(1.0)  # timm's ResNets begin with zero in the last norm of a block
        encoder(x)
    encoder.eval()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--images", type=int, default=96)
    options.add_argument("--batch", type=int, default=32)
    options.add_argument("--repetitions", type=int, default=5)
    options.add_argument("--model", type=Path)
    given = options.parse_args()
    torch.set_num_threads(1)
    n, batch = given.images, given.batch
    kinds: tuple[tuple[str, int, int], ...] = (
        ("resnet50", 224, n),
        ("vit_small_patch16_224", 224, n),
        ("vit_tiny_patch16_224", 224, 2 * n),
        ("resnet18", 32, 20 * n),
    )
    contenders = [trained(given.model, 20 * n)] if given.model else (untrained(*kind, batch) for kind in kinds)
    with tempfile.TemporaryDirectory() as folder:
        for encoder, source, transform in contenders:
            for line in compare(encoder, source, transform, batch, given.repetitions, Path(folder)):
                sys.stdout.write(json.dumps(line) + "\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
