"""``sslctl finetune``: train the whole network with labels, from an encoder or from scratch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .scores import spread_lines

if TYPE_CHECKING:
    from ..tasks.results import ClassScore, TargetsScore


def finetune(result: ClassScore | TargetsScore) -> str:
    """Train the whole network with labels, and score it.

    The last weights are scored; none are chosen by the test images. Writes result.json, metrics.jsonl and
    model.safetensors, which every other command takes; of several --draws, the curve and the model are the first's.

    Examples:

      sslctl finetune runs/swav-resnet18-demo-1a2b3c --data labelled/ --out runs/tuned

      sslctl finetune runs/swav-resnet18-demo-1a2b3c --data labelled/ --from-scratch --out runs/scratch

      sslctl finetune last.safetensors --data photos/ --targets labels.csv

      sslctl finetune last.safetensors --data labelled/ --labels 0.01 --draws 5

      sslctl finetune last.safetensors --data labelled/ --labels 0.1 --mixup 0.8 --cutmix 1 --smoothing 0.1
    """
    scratch = result.protocol.model_dump().get("from_scratch")
    origin = "random weights" if scratch else result.checkpoint.path
    sizes = f"  {result.n_train} training and {result.n_test} test images, from {origin}"
    return "\n".join([f"finetune: {result}", *spread_lines(result), sizes, str(result.run)])
