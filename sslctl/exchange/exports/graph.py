"""An encoder as one traced graph of plain operators, written as an ONNX file or a file of ``torch.export``.

It takes any batch size, and any image size where the network does.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import warnings
from typing import Any

import torch
from timm.layers import Conv2dSame
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from ...backbones import Backbone
from ...backbones.backbone import VIT_EXAMPLE
from ...errors import SpecError
from ...files import write_atomically
from ...runs.meta import ImageSpec
from .card import USAGE, encode_code, join_code, prepare_code
from .formats import ExportJob, ExportResult, check_sizes

OUTPUTS = ("pooled", "cls", "patches")
OPSET = 18
MAX_IN_FILE = 1_900_000_000  # bytes of weights within the ONNX file: protobuf ends at 2 GiB


def output_names(backbone: Backbone, features: str) -> tuple[str, ...]:
    """Return the outputs that ``features`` selects: one of OUTPUTS, or ``all`` that this network has.

    Raises SpecError for an output that the network does not have.
    """
    absent = {"cls": not backbone.has_class_token, "patches": not backbone.has_map}
    available = tuple(name for name in OUTPUTS if not absent.get(name))
    if features == "all":
        return available
    if features not in available:
        part = "class token" if features == "cls" else "feature map"
        reason = "no such output" if features not in OUTPUTS else f"{backbone.family} has no {part}"
        raise SpecError(f"--features {features}: {reason}", f"one of {', '.join(available)}, all; cls {VIT_EXAMPLE}")
    return (features,)


def outputs(backbone: Backbone, x: Tensor, names: tuple[str, ...]) -> dict[str, Tensor]:
    """Return the outputs ``names`` for images x (B, 3, H, W), from one pass.

    pooled (B, dim), the encoder's feature; cls (B, D), the class token after the final norm; patches
    (B, D, H / stride, W / stride), the last feature map.
    """
    features = backbone(x)
    read = {"pooled": lambda: features.pooled, "cls": lambda: features.prefix[:, 0], "patches": lambda: features.map}
    return {name: read[name]() for name in names}


class ExportedEncoder(nn.Module):
    """The module that is traced: the encoder, the selected outputs and, with ``raw``, the normalisation before it.

    It takes float32 (B, 3, H, W), normalised; with ``raw`` uint8 (B, H, W, 3), RGB as decoders return it.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: Backbone, names: tuple[str, ...], raw: bool, image: ImageSpec) -> None:
        super().__init__()
        self.backbone = backbone
        self.names = names
        self.raw = raw
        for key in ("mean", "std"):
            self.register_buffer(key, torch.tensor(getattr(image, key))[:, None, None] * 255)

    def forward(self, images: Tensor) -> Tensor | dict[str, Tensor]:
        if self.raw:
            images = (images.permute(0, 3, 1, 2).float() - self.mean) / self.std
        results = outputs(self.backbone, images, self.names)
        return results if len(results) > 1 else results[self.names[0]]


def trace(job: ExportJob) -> tuple[ExportedProgram, tuple[str, ...], list[tuple[int, int]]]:
    """Return the graph, the names of its outputs, and the sizes (H, W) to check it at: one if it accepts no other.

    Raises SpecError for outputs that the network does not have, and for a network that cannot be traced.
    """
    backbone, image = job.encoder.backbone, job.encoder.meta.image
    names = output_names(backbone, job.features)
    # TensorFlow's padding depends on the size, and a tracer that follows it does not come back.
    fixed = backbone.is_vit or any(isinstance(module, Conv2dSame) for module in backbone.modules())
    sizes = check_sizes(job.encoder, fixed)
    net = ExportedEncoder(copy.deepcopy(backbone), names, job.preprocess, image).eval().requires_grad_(False)
    for attempt in (sizes, sizes[:1]) if len(sizes) > 1 else (sizes,):
        try:
            return _traced(net, job, attempt), names, attempt
        except Exception as e:  # whatever the tracer cannot follow, the first time because sizes are dynamic
            reason = next(iter(str(e).strip().splitlines()), type(e).__name__)
    raise SpecError(f"{backbone.family} cannot be traced: {reason}", "--format timm")


def _traced(net: nn.Module, job: ExportJob, sizes: list[tuple[int, int]]) -> ExportedProgram:
    # No two dynamic dimensions of the example are equal: the tracer could take equal ones for the same.
    h, w = sizes[-1]
    example = torch.zeros(2, h, w, 3, dtype=torch.uint8) if job.preprocess else torch.zeros(2, 3, h, w)
    dynamic: dict[int, Any] = {0: Dim("batch")}
    if len(sizes) > 1:
        dynamic |= dict.fromkeys(size_axes(job), Dim.DYNAMIC)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.export.export(net, (example,), dynamic_shapes={"images": dynamic})


def size_axes(job: ExportJob) -> tuple[int, int]:
    """Return which axes of the input are height and width."""
    return (1, 2) if job.preprocess else (2, 3)


def describe_graph(job: ExportJob, names: tuple[str, ...], sizes: list[tuple[int, int]]) -> tuple[str, list[str]]:
    """Return type and shape of the input and of each output, in words."""
    backbone, (h, w) = job.encoder.backbone, sizes[0]
    side = f"{h}, {w}" if len(sizes) == 1 else "H, W"
    takes = f"uint8 (B, {side}, 3), RGB" if job.preprocess else f"float32 (B, 3, {side}), normalised"
    places = f"{h // backbone.patch}, {w // backbone.patch}" if backbone.is_vit else "h, w"
    gives = {"pooled": f"(B, {backbone.dim})", "cls": "(B, D)", "patches": f"(B, D, {places})"}
    return takes, [f"{name} {gives[name]}" for name in names]


def write_pt2(job: ExportJob) -> ExportResult:
    """Write a .pt2 file, which runs without timm and without sslctl. Raises SpecError as ``trace``."""
    program, names, sizes = trace(job)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(program, buffer)
    write_atomically(job.path, buffer.getvalue())
    takes, gives = describe_graph(job, names, sizes)
    load = (
        "import numpy as np\nimport torch\nfrom PIL import Image, ImageOps\n\n"
        f"net = torch.export.load({job.name!r}).module()\n"
    )
    prepare = prepare_code(job.encoder.meta.image, raw=job.preprocess)
    code = join_code(load, prepare, encode_code("net(x)", ", ".join(gives)))
    return ExportResult(code, sizes, "pytorch", remark=f"The graph takes {takes}, and gives {', '.join(gives)}.")


def write_onnx(job: ExportJob) -> ExportResult:
    """Write a .onnx file of opset 18.

    Weights of more than 1.9 GB go into a second file next to it. Raises SpecError as ``trace``.
    """
    program, names, sizes = trace(job)
    image = job.encoder.meta.image
    takes, gives = describe_graph(job, names, sizes)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            graph = torch.onnx.export(
                program,
                opset_version=OPSET,
                input_names=["images"],
                output_names=list(names),
                dynamo=True,
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as e:
        raise SpecError(
            f"{job.encoder.spec.backbone.arch} cannot be exported to ONNX: {e}", "--format pt2 or timm"
        ) from e
    assert graph is not None
    shape = graph.model.graph.inputs[0].shape
    assert shape is not None
    if len(sizes) > 1:
        for axis, name in zip(size_axes(job), ("height", "width"), strict=True):
            shape[axis] = name  # in place of the tracer's s27 and the like
    facts = {
        "image": image.model_dump(mode="json"),
        "takes": takes,
        "gives": gives,
        "sha256": job.encoder.meta.sha256,
    }
    graph.model.metadata_props["sslctl"] = json.dumps(facts)
    if sum(t.nbytes for t in program.state_dict.values()) > MAX_IN_FILE:
        graph.save(job.path, external_data=True)
    else:
        write_atomically(job.path, graph.model_proto.SerializeToString())
    run = 'session.run(None, {"images": x})'
    result = f"dict(zip({list(names)}, {run}))" if len(names) > 1 else f"{run}[0]"
    code = (
        "import numpy as np\nimport onnxruntime\nfrom PIL import Image, ImageOps\n\n"
        f"session = onnxruntime.InferenceSession({job.name!r})\n\n\n"
        f"{prepare_code(image, 'numpy', job.preprocess)}\n\n"
        f"def encode(x):\n    return {result}  # {', '.join(gives)}\n\n\n{USAGE}"
    )
    remark = f"The graph (opset {OPSET}) takes `images`, {takes}, and gives {', '.join(gives)}."
    return ExportResult(code, sizes, "onnx", "numpy", remark=remark)
