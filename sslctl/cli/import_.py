"""``sslctl import``: other people's weights as a checkpoint of ours, checked for equal features."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..tasks.results import Import


def import_(result: Import) -> str:
    """Turn weights of another tool into a checkpoint.

    Recognises the files of MoCo, SwAV, DINO, DINOv2, MAE, lightly, solo-learn, torchvision, timm, Hugging Face and
    others by what is in them. No code in a file is run. The result is read back and compared with the library that
    the weights are for, on real images; the figures stand beside it in a .parity.json.

    Examples:

      sslctl import moco_v2_800ep_pretrain.pth.tar --out moco.safetensors

      sslctl import dino_deitsmall16_pretrain_full_checkpoint.pth --branch online --out student.safetensors

      sslctl import facebook-dinov2-small/ --out dinov2.safetensors --json
    """
    return result.out
