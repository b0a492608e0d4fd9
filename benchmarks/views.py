"""Images a second and core of the views, beside torchvision's transforms on Pillow images; ratios from one process.

    OMP_NUM_THREADS=1 PYTHONPATH=. python benchmarks/views.py [FOLDER OF JPEGS]

In memory: two views of 32 px. From JPEG files, where a folder is given: 2x160+4x96 as uint8 crops, decode included.
Contenders take turns; the figure is process-CPU time, the ratio the median over rounds.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_image
from torchvision.transforms import v2

from sslctl.data.decode import decode_file
from sslctl.data.loader import Batch
from sslctl.views.augment import Augment
from sslctl.views.recipe import IMAGENET_MEAN, IMAGENET_STD, ViewPlan, ViewSpec

ROUNDS = 9
JITTER = (0.4, 0.4, 0.4, 0.1)


def peer(size: int, scale: tuple[float, float]) -> v2.Compose:
    return v2.Compose(
        [
            v2.RandomResizedCrop(size, scale=scale, antialias=True),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([v2.ColorJitter(*JITTER)], 0.8),
            v2.RandomGrayscale(0.2),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )


def race(name: str, images: int, ours: Callable[[], object], theirs: Callable[[], object]) -> None:
    def cpu(run: Callable[[], object]) -> float:
        begun = time.process_time()
        run()
        return time.process_time() - begun

    ours(), theirs()
    seconds = np.array([(cpu(ours), cpu(theirs)) for _ in range(ROUNDS)])
    rates, ratio = images / np.median(seconds, axis=0), np.median(seconds[:, 1] / seconds[:, 0])
    sys.stdout.write(f"| {name} | {rates[0]:.0f} | {rates[1]:.0f} | {ratio:.1f} |\n")


def in_memory() -> None:
    photo = Image.fromarray(load_sample_image("china.jpg"))
    tiles = [photo.crop((x, y, x + 128, y + 128)).resize((32, 32)) for x in range(0, 128, 8) for y in range(0, 128, 8)]
    view = ViewSpec(size=32, jitter=JITTER, blur_p=0)
    augment = Augment(ViewPlan((view, view), (), IMAGENET_MEAN, IMAGENET_STD), 0)
    pixels = torch.from_numpy(np.stack([np.asarray(tile) for tile in tiles])).permute(0, 3, 1, 2)
    index = torch.arange(len(tiles))
    batch = Batch(index, torch.zeros_like(index), [], pixels, None, [])
    transform = peer(32, (0.08, 1.0))
    cpu = torch.device("cpu")
    race(
        "2x32 in memory, all operations",
        len(tiles),
        lambda: augment(batch, cpu),
        lambda: [torch.stack([transform(tile) for tile in tiles]) for _ in range(2)],
    )


def from_jpeg(folder: Path) -> None:
    files = sorted(folder.rglob("*.jpg"))[:24]
    large, small = ViewSpec(size=160, scale=(0.14, 1)), ViewSpec(size=96, scale=(0.05, 0.14))
    augment = Augment(ViewPlan((large,) * 2, (small,) * 4, IMAGENET_MEAN, IMAGENET_STD), 0)
    transforms = [peer(160, (0.14, 1))] * 2 + [peer(96, (0.05, 0.14))] * 4

    def theirs() -> None:
        for file in files:
            image = Image.open(file).convert("RGB")
            for transform in transforms:
                transform(image)

    race(
        "2x160+4x96 from JPEG: uint8 crops against the whole transform",
        len(files),
        lambda: [augment.geometric(decode_file(str(file)), 0, i) for i, file in enumerate(files)],
        theirs,
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.stdout.write("| views | sslctl | torchvision v2 on Pillow | ratio |\n|---|---|---|---|\n")
    in_memory()
    if len(sys.argv) > 1:
        from_jpeg(Path(sys.argv[1]))
