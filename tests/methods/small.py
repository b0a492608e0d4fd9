"""Parameters that make every objective small enough for a test."""

from __future__ import annotations

from typing import Any

SMALL: dict[str, dict[str, Any]] = {
    "instdisc": {"out": 8, "negatives": 5},
    "end-to-end": {"out": 8, "norm_groups": 2},
    "moco-v1": {"out": 8, "queue": 18, "momentum": 0.9, "norm_groups": 2},
    "moco-v2": {"out": 8, "queue": 18, "momentum": 0.9, "norm_groups": 2},
    "moco-v3": {"hidden": 16, "out": 8, "momentum": 0.9},
    "simclr": {"out": 8},
    "nnclr": {"hidden": 16, "out": 8, "predictor_hidden": 16, "queue": 18},
    "deepcluster-v2": {"prototypes": [3, 2], "hidden": 16, "out": 8},
    "swav": {"prototypes": 7, "hidden": 16, "out": 8, "queue": 12, "queue_from_epoch": 0},
    "byol": {"hidden": 16, "out": 8, "momentum": 0.9},
    "simsiam": {"out": 16, "bottleneck": 8},
    "barlow-twins": {"out": 16},
    "vicreg": {"out": 16},
    "dino": {"prototypes": 12, "hidden": 16, "bottleneck": 8, "norm_last_layer": False, "momentum": 0.9},
    "rotnet": {},
    "jigsaw": {"grid": 2, "permutations": 6, "embed": 8},
    "cpc": {
        "grid": 3,
        "patch": 0.5,
        "first_step": 1,
        "last_step": 2,
        "layers": 1,
        "hidden": 8,
        "out": 8,
        "patch_jitter": 1,
    },
    "supervised": {},
}
