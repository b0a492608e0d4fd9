"""Reading the encoder out of a run's whole state, beside torch.load of the same tensors: seconds, in turns, ratios.

    OMP_NUM_THREADS=1 python benchmarks/checkpoint.py [--arch vit_base_patch16_224] [--folder /tmp]

The state is DINO's: student, teacher, heads, centre, two moments of AdamW. It is written once in each format; the files
are in the disk's cache when they are read.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from statistics import median

import torch
from safetensors import safe_open

from sslctl.engine.loop import take_step
from sslctl.engine.setup import build, open_inputs
from sslctl.methods.resolve import resolve
from sslctl.profiling.estimate import noise_views
from sslctl.profiling.limit import race
from sslctl.runs import checkpoint
from sslctl.runs.encoder import load_encoder
from sslctl.schedule import Step


def tensors_of_encoder(path: Path) -> float:
    """Every number of the encoder read into memory; their sum."""
    prefix = checkpoint.read_meta(path).encoder
    with safe_open(path, "pt") as file:
        return sum(float(file.get_tensor(key).sum()) for key in file.keys() if key.startswith(prefix))  # noqa: SIM118 - no mapping


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="vit_base_patch16_224")
    parser.add_argument("--folder", type=Path, default=None, help="where to write; needs 4 GB")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    spec = {"data": {"path": "demo"}, "method": {"name": "dino"}, "backbone": {"arch": given.arch}}
    spec |= {"views": {"multi_crop": "2x48"}, "run": {"batch_size": 2, "precision": "fp32", "device": "cpu"}}
    t = build(open_inputs(resolve(spec)))
    take_step(t, noise_views(t, 2), Step(t.total // 2, t.total, t.per_epoch))  # so that the optimizer has its moments
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        ours, theirs = Path(folder) / "ours.safetensors", Path(folder) / "theirs.pth"
        tensors, meta = checkpoint.snapshot(t.method, t.optimizer, t.meta | {"step": 1})
        checkpoint.write(ours, tensors, meta)
        torch.save(tensors, theirs)
        found = race(
            {
                "encoder's tensors": lambda: tensors_of_encoder(ours),
                "encoder, built and filled": lambda: load_encoder(ours),
                "torch.load": lambda: torch.load(theirs, map_location="cpu", weights_only=True),
                "whole, verified": lambda: checkpoint.read(ours),
            },
            t.device,
            given.rounds,
        )
        size = ours.stat().st_size / 1e9
    whole = median(found["torch.load"])
    sys.stdout.write(f"{size:.2f} GB of {given.arch}\n")
    for name, seconds in found.items():
        ratio = median(a / b for a, b in zip(seconds, found["torch.load"], strict=True))
        sys.stdout.write(f"{name}: {median(seconds):.3f} s, {ratio:.3f} of torch.load ({whole:.2f} s)\n")


if __name__ == "__main__":
    main()
