"""The ONNX file: read by onnxruntime, named inputs and outputs, open sizes, and what it says of itself."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch

from sslctl.exchange.exports.formats import Order
from sslctl.exchange.exports.graph import outputs
from sslctl.exchange.exports.onnx_graph import OPSET, write

from .encoders import encoder


def test_onnxruntime_gives_our_outputs_by_name_at_other_sizes(tmp_path: Path) -> None:
    ours, path = encoder("resnet", 64), tmp_path / "net.onnx"
    written = write(Order(ours, path, "net.onnx", "all"))
    session = onnxruntime.InferenceSession(path)
    assert [one.name for one in session.get_inputs()] == ["images"]
    assert session.get_inputs()[0].shape[2:] == ["height", "width"]
    names = [one.name for one in session.get_outputs()]
    for size in written.sizes:
        x = torch.randn(3, 3, *size)
        with torch.no_grad():
            expected = outputs(ours.backbone, x, tuple(names))
        for name, found in zip(names, session.run(None, {"images": x.numpy()}), strict=True):
            np.testing.assert_allclose(found, expected[name].numpy(), rtol=1e-3, atol=1e-4)
    assert written.kind == "numpy" and "def prepare" in written.code and "InferenceSession('net.onnx')" in written.code


def test_the_file_says_what_it_is(tmp_path: Path) -> None:
    ours = encoder("resnet", 64)
    write(Order(ours, tmp_path / "net.onnx", "net.onnx", preprocess=True))
    model = onnx.load(tmp_path / "net.onnx")
    onnx.checker.check_model(model)
    assert model.opset_import[0].version == OPSET
    facts = json.loads({entry.key: entry.value for entry in model.metadata_props}["sslctl"])
    assert facts["sha256"] == ours.meta.sha256 and facts["image"] == ours.meta.image.model_dump(mode="json")
    assert facts["takes"].startswith("uint8") and facts["gives"] == ["pooled (B, 8)"]
