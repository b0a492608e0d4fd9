"""An encoder as an ONNX graph, for onnxruntime and whatever else reads the format."""

from __future__ import annotations

import contextlib
import io
import json
import warnings

import torch

from ...errors import SpecError
from ...files import write_atomically
from .formats import Order, Written
from .graph import says, sides, trace
from .snippets import USE, prepare

OPSET = 18
LARGEST = 1_900_000_000  # bytes of weights within the file: protobuf ends at 2 GiB


def write(order: Order) -> Written:
    """A .onnx file of opset 18 for any batch size, and any image size where the net takes it.

    Weights of more than 1.9 GB lie in a second file beside it. Raises SpecError as ``trace``.
    """
    program, names, sizes = trace(order)
    image = order.encoder.meta.image
    takes, gives = says(order, names, sizes)
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
        raise SpecError(f"{order.encoder.spec.backbone.arch} cannot be ONNX: {e}", "--format pt2 or timm") from e
    assert graph is not None
    shape = graph.model.graph.inputs[0].shape
    assert shape is not None
    if len(sizes) > 1:
        for axis, name in zip(sides(order), ("height", "width"), strict=True):
            shape[axis] = name  # the tracer's own name says nothing
    facts = {
        "image": image.model_dump(mode="json"),
        "takes": takes,
        "gives": gives,
        "sha256": order.encoder.meta.sha256,
    }
    graph.model.metadata_props["sslctl"] = json.dumps(facts)
    if sum(t.nbytes for t in program.state_dict.values()) > LARGEST:
        graph.save(order.path, external_data=True)
    else:
        write_atomically(order.path, graph.model_proto.SerializeToString())
    run = 'session.run(None, {"images": x})'
    result = f"dict(zip({list(names)}, {run}))" if len(names) > 1 else f"{run}[0]"
    code = (
        "import numpy as np\nimport onnxruntime\nfrom PIL import Image, ImageOps\n\n"
        f"session = onnxruntime.InferenceSession({order.name!r})\n\n\n"
        f"{prepare(image, 'numpy', order.preprocess)}\n\n"
        f"def encode(x):\n    return {result}  # {', '.join(gives)}\n\n\n{USE}"
    )
    more = f"The graph (opset {OPSET}) takes `images`, {takes}, and gives {', '.join(gives)}."
    return Written(code, sizes, "onnx", "numpy", more=more)
