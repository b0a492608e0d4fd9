"""A ResNet in the names of detectron2's backbone, in a file that its checkpointer reads."""

from __future__ import annotations

import re

from torch import Tensor

from ...backbones import Backbone
from ...backbones.architecture import ANY_NET, ResNetShape, resnet_shape
from ...errors import SpecError
from ...runs.meta import ImageSpec
from .card import encode_code, join_code, prepare_code
from .formats import ExportJob, ExportResult, check_sizes
from .torchvision_file import resnet_code, resnet_state, write_pth

DEPTHS: dict[tuple[bool, tuple[int, ...]], int] = {
    (False, (2, 2, 2, 2)): 18,
    (False, (3, 4, 6, 3)): 34,
    (True, (3, 4, 6, 3)): 50,
    (True, (3, 4, 23, 3)): 101,
    (True, (3, 8, 36, 3)): 152,
}


def write_detectron2(job: ExportJob) -> ExportResult:
    """Write a .pth file of {"model": tensors, "__author__", "matching_heuristics"}, all plain values.

    detectron2 reads .pkl and .pth alone; ``torch.load(weights_only=True)`` reads the latter, so nobody has to trust a
    pickle. With ``matching_heuristics`` its checkpointer finds the names under any prefix that the backbone has in a
    model (detection_checkpoint.py). mmdetection takes torchvision's names: ``--format torchvision --out NAME.pth``.
    Raises SpecError for a network that its configuration cannot express.
    """
    encoder = job.encoder
    backbone, image = encoder.backbone, encoder.meta.image
    shape = resnet_shape(backbone, "detectron2")
    depth = DEPTHS.get((shape.bottleneck, tuple(shape.depths)))
    if shape.small:
        raise SpecError(
            "detectron2's ResNet has a 7x7 stem with max-pooling; this one has the stem for small images",
            ANY_NET,
        )
    if depth is None or shape.stem != 64 or shape.widths[0] != (256 if shape.bottleneck else 64):
        raise SpecError(f"detectron2 has no ResNet with {shape.depths} blocks and widths {shape.widths}", ANY_NET)
    build = resnet_code(backbone, encoder.spec.backbone.arch)
    write_pth(job.path, detectron2_state(backbone), __author__="sslctl", matching_heuristics=True)
    load = (
        "import re\n\nimport numpy as np\nimport torch\nfrom PIL import Image, ImageOps\nfrom torch import nn\n"
        "from torchvision import models\n\n"
        "# Names back to torchvision's, to look at the encoder without detectron2.\n"
        f'state = torch.load({job.name!r}, weights_only=True)["model"]\n'
        "for theirs, ours in [\n"
        '    (r"^stem\\.", ""), (r"^res(\\d)", lambda m: f"layer{int(m[1]) - 1}"),\n'
        '    (r"conv(\\d)\\.norm", r"bn\\1"), (r"shortcut\\.norm", "downsample.1"), (r"shortcut", "downsample.0"),\n'
        "]:\n"
        "    state = {re.sub(theirs, ours, name): value for name, value in state.items()}\n"
        f"{build}net.load_state_dict(state)\nnet.eval()\n"
    )
    code = join_code(load, prepare_code(image), encode_code("net(x)", f"(B, {backbone.dim})"))
    remark = _config(job.name, shape, depth, image)
    return ExportResult(
        code, check_sizes(encoder), "detectron2", remark=remark, checked_by="torchvision, in its own names"
    )


def detectron2_state(backbone: Backbone) -> dict[str, Tensor]:
    """Return the weights in the names of facebookresearch/detectron2, tools/convert-torchvision-to-d2.py."""
    state = {}
    for name, value in resnet_state(backbone).items():
        name = name if name.startswith("layer") else f"stem.{name}"
        name = re.sub(r"^layer(\d)", lambda m: f"res{int(m[1]) + 1}", name)
        name = re.sub(r"\bbn(\d)", r"conv\1.norm", name)
        name = name.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")
        state[name] = value
    return state


def _config(name: str, shape: ResNetShape, depth: int, image: ImageSpec) -> str:
    mean, std = ([round(255 * float(v), 3) for v in getattr(image, key)] for key in ("mean", "std"))
    lines = [
        "For detectron2 (pixels from 0 to 255, the stride in the 3x3 convolution):",
        "",
        "```yaml",
        "MODEL:",
        f"  WEIGHTS: {name}",
        f"  PIXEL_MEAN: {mean}",
        f"  PIXEL_STD: {std}",
        "  RESNETS:",
        f"    DEPTH: {depth}",
        "    STRIDE_IN_1X1: false",
        "    NORM: BN  # or SyncBN; FrozenBN keeps the statistics as they are",
    ]
    if shape.bottleneck:
        lines += [f"    NUM_GROUPS: {shape.groups}", f"    WIDTH_PER_GROUP: {shape.inner // shape.groups}"]
    else:
        lines += ["    RES2_OUT_CHANNELS: 64"]
    return "\n".join([*lines, "INPUT:", "  FORMAT: RGB", "```"])
