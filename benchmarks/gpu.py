"""The rows of docs/benchmarks.md that need an accelerator: step beside the bare encoder, rates of whole runs, waiting.

    python benchmarks/gpu.py step             step ÷ bare compiled encoder, images/s, share of augmentation, what
                                              compiling gains and costs
    python benchmarks/gpu.py waits            whether a step makes the host wait for the device (CUDA tells)
    python benchmarks/gpu.py small            a whole run on 50 000 images of 32 px: seconds an epoch
    python benchmarks/gpu.py photos FOLDER    whole runs on photographs, beside the same steps on noise

Both sides of ``step`` are compiled and in the run's precision. Whole runs are the command line's own; their rate is the
median of the metric lines but for the first quarter, in which networks are compiled. ``--compile graphs`` tries CUDA
graphs. ``--quick`` shrinks everything, to see on any machine that it runs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import numpy as np
import torch
from step import training

from sslctl.data.loader import Batch
from sslctl.engine.loop import take_step
from sslctl.engine.setup import Training
from sslctl.profiling.estimate import noise_views
from sslctl.profiling.limit import EncoderOnly, race, training_step
from sslctl.schedule import Step

Row = tuple[str, str, str, int, tuple[str, ...]]
ROWS: dict[str, Row] = {
    "photos": ("simclr", "resnet50", "2x224", 256, ()),
    "moco-v3": ("moco-v3", "resnet50", "2x224", 256, ()),
    "dino": ("dino", "vit_small_patch16_224", "2x224+10x96", 128, ()),
    "small": ("simclr", "resnet18", "2x32", 512, ("backbone.stem=small",)),
}
QUICK: dict[str, Row] = {
    "photos": ("simclr", "resnet18", "2x96", 16, ()),
    "dino": ("dino", "vit_tiny_patch16_224", "2x96+4x48", 8, ("method.prototypes=2048",)),
    "small": ("simclr", "resnet18", "2x32", 64, ("backbone.stem=small",)),
}
IMAGES = 50_000


def open_row(row: Row, compiled: str) -> Training:
    method, arch, crops, batch, sets = row
    return training(method, arch, crops, batch, [*sets, f"run.compile={compiled}", "run.steps=100000"], "auto")


def crops(t: Training) -> Batch:
    """A batch as loader processes hand it over, of noise."""
    n = t.spec.run.batch_size
    index = torch.arange(n) % len(t.source)
    made = [torch.randint(0, 256, (n, 3, v.size, v.size), dtype=torch.uint8) for v in t.augment.plan.all]
    return Batch(index, torch.zeros_like(index), made, None, None, [])


def step(rows: dict[str, Row], compiled: str, rounds: int) -> None:
    heads = ["method", "encoder", "views", "batch", "images/s", "step ÷ bare encoder", "augmentation ÷ step"]
    heads += ["plain step ÷ compiled", "first two steps, s"] if compiled != "false" else []
    sys.stdout.write(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|\n")
    for row in rows.values():
        t = open_row(row, compiled)
        batch, views = crops(t), noise_views(t, t.spec.run.batch_size)
        contenders = {"ours": training_step(t, views), "bare": EncoderOnly(t, views).step}
        contenders["augment"] = lambda t=t, batch=batch: t.augment(batch, t.device)  # type: ignore[misc]
        begun = time.perf_counter()
        race({"ours": contenders["ours"]}, t.device, 0)
        first = time.perf_counter() - begun
        if compiled != "false":
            contenders["plain"] = training_step(open_row(row, "false"), views)
        found = race(contenders, t.device, rounds, time.process_time if t.device.type == "cpu" else time.perf_counter)
        ours, bare, augment = (found[name] for name in ("ours", "bare", "augment"))
        ratio = median(a / b for a, b in zip(ours, bare, strict=True))
        share = median(a / b for a, b in zip(augment, ours, strict=True))
        cells = [*row[:3], str(row[3]), f"{row[3] / median(ours):.0f}", f"{ratio:.2f}", f"{share:.2f}"]
        if compiled != "false":
            gain = median(a / b for a, b in zip(found["plain"], ours, strict=True))
            cells += [f"{gain:.2f}", f"{first:.0f}"]
        sys.stdout.write(f"| {' | '.join(cells)} |\n")
        sys.stdout.flush()


def waits(rows: dict[str, Row], compiled: str) -> None:
    for row in rows.values():
        t = open_row(row, compiled)
        batch = crops(t)
        t.method.train()
        for index in range(4):
            if index == 3 and t.device.type == "cuda":  # compiled and warm by now
                torch.cuda.set_sync_debug_mode("error")
            take_step(t, t.augment(batch, t.device), Step(index, t.total, t.per_epoch))
        if t.device.type == "cuda":
            torch.cuda.set_sync_debug_mode("default")
        sys.stdout.write(f"{row[0]}: {'nothing waits' if t.device.type == 'cuda' else 'ran; only CUDA can tell'}\n")


def run(data: str, row: Row, compiled: str, steps: int) -> float:
    """Images a second of a run by the command line."""
    method, arch, views, batch, sets = row
    more = [word for pair in (*sets, f"run.compile={compiled}") for word in ("--set", pair)]
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-m", "sslctl", "pretrain", "--data", data, "--method", method, "--arch", arch]
        command += [
            "--multi-crop",
            views,
            "--batch-size",
            str(batch),
            "--steps",
            str(steps),
            "--out",
            f"{out}/run",
            *more,
        ]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        lines = [json.loads(line) for line in Path(out, "run", "metrics.jsonl").read_text().splitlines()]
    rates = [line["images_per_second"] for line in lines if "images_per_second" in line]
    return median(rates[len(rates) // 4 :])


def small(row: Row, compiled: str, quick: bool) -> None:
    images = 1000 if quick else IMAGES
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "small.npz")
        noise = np.random.default_rng(0).integers(0, 256, (images, 32, 32, 3), dtype=np.uint8)
        np.savez(path, images=noise)
        rate = run(str(path), row, compiled, 20 if quick else 2000)
    sys.stdout.write(f"{row[0]} {row[1]} {row[2]}: {rate:.0f} images/s, {IMAGES / rate:.2f} s for {IMAGES} images\n")


def photos(folder: str, rows: Sequence[Row], compiled: str, rounds: int, steps: int) -> None:
    for row in rows:
        t = open_row(row, compiled)
        found = race({"step": training_step(t, noise_views(t, row[3]))}, t.device, rounds)
        noise = row[3] / median(found["step"])
        whole = run(folder, row, compiled, steps)
        sys.stdout.write(f"{row[0]} {row[1]} {row[2]}: {whole:.0f} images/s, {whole / noise:.2f} of steps on noise\n")
        sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("step", "waits", "small", "photos"))
    parser.add_argument("folder", nargs="?", default="demo")
    parser.add_argument("--compile", default="true", choices=("true", "false", "graphs"))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    rows = QUICK if given.quick else ROWS
    match given.what:
        case "step":
            step(rows, given.compile, given.rounds)
        case "waits":
            waits(rows, given.compile)
        case "small":
            small(rows["small"], given.compile, given.quick)
        case "photos":
            photos(given.folder, [rows["photos"], rows["dino"]], given.compile, given.rounds, given.steps)


if __name__ == "__main__":
    main()
