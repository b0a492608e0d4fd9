"""The attention map of one large image: ours beside the whole matrix that DINO's code makes; memory, time, difference.

    OMP_NUM_THREADS=1 PYTHONPATH=. python benchmarks/attention.py

Both in one process, taking turns, on one image of 480 px by a ViT-S/8 (3601 tokens) with random weights: what is
measured depends on no weight. Memory is the growth of the process's largest resident size during a map (Linux).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from sslctl.backbones import Backbone, attention, build_backbone
from sslctl.spec.schema import BackboneSpec


def whole_matrix(backbone: Backbone, x: Tensor) -> Tensor:
    """As ``get_last_selfattention`` of facebookresearch/dino computes it: every block's matrix in full."""
    t = backbone.net._pos_embed(backbone.net.patch_embed(x))
    for block in backbone.net.blocks:
        block.attn.fused_attn = False
    for block in backbone.net.blocks[:-1]:
        t = block(t)
    attn, t = backbone.net.blocks[-1].attn, backbone.net.blocks[-1].norm1(t)
    q, k, _ = attn.qkv(t).reshape(*t.shape[:2], 3, attn.num_heads, -1).permute(2, 0, 3, 1, 4)
    rows = (q @ k.transpose(-2, -1) * attn.scale).softmax(-1)  # (B, heads, N, N)
    return rows[:, :, 0, 1:].reshape(*rows.shape[:2], x.shape[-2] // backbone.patch, -1)


def resident(key: str) -> float:
    """MiB of this process: VmRSS now, VmHWM at most since it was set back."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key + ":"))
    return int(line.split()[1]) / 1024


def measure(what: Callable[[], Tensor]) -> tuple[Tensor, float, float]:
    """The result, CPU seconds, MiB."""
    Path("/proc/self/clear_refs").write_text("5")  # the largest size so far is forgotten
    before, begun = resident("VmRSS"), time.process_time()
    found = what()
    return found, time.process_time() - begun, resident("VmHWM") - before


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=480)
    parser.add_argument("--repetitions", type=int, default=2)
    given = parser.parse_args()
    torch.manual_seed(0)
    net = build_backbone(BackboneSpec(arch="vit_small_patch8_224"), 224).eval()
    net.net.blocks[-1].attn.qkv.weight *= 8  # fresh weights look everywhere alike, which would hide a difference
    x = torch.randn(1, 3, given.size, given.size)
    attention(net, x[..., :64, :64])  # what is loaded on first use counts for neither
    contenders = {"ours": lambda: attention(net, x), "whole": lambda: whole_matrix(net, x)}
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    memory: dict[str, list[float]] = {name: [] for name in contenders}
    maps: dict[str, Tensor] = {}
    for _ in range(given.repetitions):
        for name, what in contenders.items():
            maps[name], took, held = measure(what)
            seconds[name].append(took)
            memory[name].append(held)
    best = {name: min(times) for name, times in seconds.items()}
    most = {name: max(held) for name, held in memory.items()}
    result = {
        "tokens": 1 + (given.size // 8) ** 2,
        "seconds": best,
        "memory_mib": memory,
        "memory_ratio": most["ours"] / most["whole"],
        "speedup": best["whole"] / best["ours"],
        "largest_difference": float((maps["ours"] - maps["whole"]).abs().max()),
        "largest_value": float(maps["whole"].max()),
    }
    sys.stdout.write(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
