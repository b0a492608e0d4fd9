"""Views a second and core beside lightly's and kornia's, from memory and from JPEG files; ratios in one process.

    OMP_NUM_THREADS=1 PYTHONPATH=. python benchmarks/views.py memory         two views of 32 px
    OMP_NUM_THREADS=1 PYTHONPATH=. python benchmarks/views.py jpeg FOLDER    2x160+4x96, decoding included
    OMP_NUM_THREADS=1 PYTHONPATH=. python benchmarks/views.py parts FOLDER   where the time of the second goes

Contenders take turns; the figure is process-CPU time, the ratio the median over rounds. `pip install lightly kornia`.
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

from sslctl.data import decode
from sslctl.data.loader import Batch
from sslctl.profiling.limit import race
from sslctl.runtime.device import keep_freed_memory
from sslctl.views.augment import Augment
from sslctl.views.recipe import IMAGENET_MEAN, IMAGENET_STD, ViewPlan, ViewSpec

ROUNDS = 9
CPU = torch.device("cpu")
LARGE, SMALL = (0.25, 1.0), (0.05, 0.25)  # scales of DINO's crops
SIMCLR, DINO = (0.4, 0.4, 0.4, 0.1), (0.4, 0.4, 0.2, 0.1)  # jitter
NORMAL = {"mean": list(IMAGENET_MEAN), "std": list(IMAGENET_STD)}

Task = Callable[[], object]


def show(images: int, tasks: dict[str, Task]) -> None:
    """A row for each task: images a second, and how many times the rate of the first that is."""
    seconds = race(tasks, CPU, ROUNDS, time.process_time)
    first = np.array(next(iter(seconds.values())))
    sys.stdout.write("| what | images/s | times |\n|---|---|---|\n")
    for name, taken in seconds.items():
        rate, times = images / np.median(taken), np.median(first / np.array(taken))
        sys.stdout.write(f"| {name} | {rate:.0f} | {times:.2f} |\n")


def in_memory() -> None:
    import kornia.augmentation as K
    from lightly.transforms import SimCLRTransform

    photo = Image.fromarray(load_sample_image("china.jpg"))
    tiles = [photo.crop((x, y, x + 128, y + 128)).resize((32, 32)) for x in range(0, 128, 8) for y in range(0, 128, 8)]
    pixels = torch.from_numpy(np.stack([np.asarray(tile) for tile in tiles])).permute(0, 3, 1, 2)
    index = torch.arange(len(tiles))
    batch = Batch(index, torch.zeros_like(index), [], pixels, None, [])
    theirs = SimCLRTransform(input_size=32, cj_strength=0.5, gaussian_blur=0.0, normalize=NORMAL)
    kornia = K.AugmentationSequential(
        K.RandomResizedCrop((32, 32), scale=(0.08, 1.0)),
        K.RandomHorizontalFlip(),
        K.ColorJitter(*SIMCLR, p=0.8),
        K.RandomGrayscale(p=0.2),
        K.Normalize(torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)),
        data_keys=["input"],
    )
    scaled = pixels.float().div(255).contiguous()

    def ours(colour: str) -> Task:
        view = ViewSpec(size=32, jitter=SIMCLR, blur_p=0, colour=colour)  # type: ignore[arg-type]  # a word of this file
        augment = Augment(ViewPlan((view, view), (), IMAGENET_MEAN, IMAGENET_STD), 0)
        return lambda: augment(batch, CPU)

    tasks: dict[str, Task] = {
        "lightly SimCLRTransform": lambda: [torch.stack(views) for views in zip(*map(theirs, tiles), strict=True)],
        "kornia, batched": lambda: [kornia(scaled) for _ in range(2)],
        "sslctl": ours("exact"),
        "sslctl, views.colour=matrix": ours("matrix"),
    }
    with torch.no_grad():
        show(len(tiles), tasks)


def dino_views(colour: str = "exact") -> Augment:
    def view(size: int, scale: tuple[float, float], blur: float, solarize: float = 0) -> ViewSpec:
        return ViewSpec(
            size=size,
            scale=scale,
            interpolation="bicubic",
            jitter=DINO,
            blur_p=blur,
            solarize_p=solarize,
            colour=colour,  # type: ignore[arg-type]  # a word of this file
        )

    large = view(160, LARGE, 1.0), view(160, LARGE, 0.1, 0.2)
    return Augment(ViewPlan(large, (view(96, SMALL, 0.5),) * 4, IMAGENET_MEAN, IMAGENET_STD), 0)


def crops(files: list[Path], augment: Augment, fast: bool) -> Batch:
    """The batch as loader processes make it."""
    found = decode._simplejpeg
    decode._simplejpeg = found if fast else lambda: None  # type: ignore[assignment]  # the slow path, asked for
    try:
        made = [augment.geometric(decode.decode_file(str(file)), 0, i) for i, file in enumerate(files)]
    finally:
        decode._simplejpeg = found
    index = torch.arange(len(files))
    return Batch(index, torch.zeros_like(index), [torch.stack(v) for v in zip(*made, strict=True)], None, None, [])


def from_jpeg(files: list[Path]) -> None:
    from lightly.transforms import DINOTransform

    theirs = DINOTransform(
        global_crop_size=160, global_crop_scale=LARGE, local_crop_size=96, local_crop_scale=SMALL, n_local_views=4
    )  # fmt: skip
    exact, matrix = dino_views(), dino_views("matrix")

    def lightly() -> object:
        made = [theirs(Image.open(file).convert("RGB")) for file in files]
        return [torch.stack(views) for views in zip(*made, strict=True)]

    tasks: dict[str, Task] = {
        "lightly DINOTransform": lightly,
        "sslctl, uint8 crops alone": lambda: crops(files, exact, True),
        "sslctl, uint8 crops alone, by Pillow": lambda: crops(files, exact, False),
        "sslctl, all": lambda: exact(crops(files, exact, True), CPU),
        "sslctl, all, views.colour=matrix": lambda: matrix(crops(files, matrix, True), CPU),
    }
    show(len(files), tasks)


def parts(files: list[Path]) -> None:
    augment, matrix = dino_views(), dino_views("matrix")
    images = [decode.decode_file(str(file)) for file in files]
    batch = crops(files, augment, True)
    tasks: dict[str, Task] = {
        "decoding by simplejpeg": lambda: [decode.decode_file(str(file)) for file in files],
        "decoding by Pillow": lambda: [np.asarray(Image.open(file)) for file in files],
        "six crops": lambda: [augment.geometric(image, 0, i) for i, image in enumerate(images)],
        "flip, colour, blur, solarize, normalise": lambda: augment(batch, CPU),
        "the same, views.colour=matrix": lambda: matrix(batch, CPU),
    }
    show(len(files), tasks)


if __name__ == "__main__":
    torch.set_num_threads(1)
    keep_freed_memory()  # as runs do
    what, *folder = sys.argv[1:] or ["memory"]
    photos = sorted(Path(folder[0]).rglob("*.jpg"))[:24] if folder else []
    {"memory": in_memory, "jpeg": lambda: from_jpeg(photos), "parts": lambda: parts(photos)}[what]()
