"""``sslctl linear-eval``: how well a linear classifier reads classes off frozen features."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .scores import score_lines

if TYPE_CHECKING:
    from ..tasks.results import ClassScore, TargetsScore


def linear_eval(result: ClassScore | TargetsScore) -> str:
    """Score an encoder by a linear classifier.

    By default logistic regression by L-BFGS on standardised frozen features; its penalty is chosen on a part of the
    training images. A paper's protocol trains by SGD on augmented images; where it has several rates or features, all
    are trained in one pass, and one is chosen on a part of the training images. The test images decide nothing.

    Examples:

      sslctl linear-eval runs/swav-resnet18-demo-1a2b3c

      sslctl linear-eval last.safetensors --data labelled/ --json

      sslctl linear-eval runs/dino-vit_small_patch16_224-photos-4d5e6f --data labelled/ --protocol dinov2

      sslctl linear-eval last.safetensors --data labelled/ --labels 0.01

      sslctl linear-eval last.safetensors --data labelled/ --labels 0.01 --draws 3 --protocol simclr

      sslctl linear-eval last.safetensors --data photos/ --targets labels.csv

      sslctl linear-eval last.safetensors --data train/ --val-data test/ --fail-under 0.8
    """
    return "\n".join(score_lines(result))
