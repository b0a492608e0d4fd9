"""An encoder as the file of ``torch.export``: a graph that runs without timm and without sslctl."""

from __future__ import annotations

import io
import warnings

import torch

from ...files import write_atomically
from .formats import Order, Written
from .graph import says, trace
from .snippets import encode, joined, prepare


def write(order: Order) -> Written:
    """A .pt2 file, for any batch size, and any image size where the net takes it. Raises SpecError as ``trace``."""
    program, names, sizes = trace(order)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(program, buffer)
    write_atomically(order.path, buffer.getvalue())
    takes, gives = says(order, names, sizes)
    load = (
        "import numpy as np\nimport torch\nfrom PIL import Image, ImageOps\n\n"
        f"net = torch.export.load({order.name!r}).module()\n"
    )
    image = order.encoder.meta.image
    code = joined(load, prepare(image, raw=order.preprocess), encode("net(x)", ", ".join(gives)))
    return Written(code, sizes, "pytorch", more=f"The graph takes {takes}, and gives {', '.join(gives)}.")
