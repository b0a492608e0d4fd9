"""A traced graph gives the outputs of the encoder, at every batch size and, where the net allows, image size."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor

from sslctl.backbones import Backbone, build_backbone
from sslctl.errors import SpecError
from sslctl.exchange.exports.formats import ExportJob
from sslctl.exchange.exports.graph import (
    OPSET,
    OUTPUTS,
    describe_graph,
    output_names,
    outputs,
    size_axes,
    trace,
    write_onnx,
    write_pt2,
)
from sslctl.spec.schema import BackboneSpec

from .encoders import encoder


@pytest.mark.parametrize(
    ("kind", "size", "sizes"), [("resnet", 64, [(64, 64), (88, 80)]), ("vit", 32, [(32, 32)]), ("same", 64, [(64, 64)])]
)
@pytest.mark.parametrize("raw", [False, True])
def test_the_graph_gives_what_the_encoder_gives(kind: str, size: int, sizes: list[tuple[int, int]], raw: bool) -> None:
    ours = encoder(kind, size)
    program, names, taken = trace(ExportJob(ours, Path("x"), "x", "all", raw))
    assert taken == sizes and names == (("pooled", "cls", "patches") if kind == "vit" else ("pooled", "patches"))
    run = program.module()
    for batch, (h, w) in ((1, sizes[0]), (3, sizes[-1])):
        pixels = torch.randint(0, 256, (batch, h, w, 3), dtype=torch.uint8)
        mean, std = (torch.tensor(getattr(ours.meta.image, key))[:, None, None] for key in ("mean", "std"))
        x = (pixels.permute(0, 3, 1, 2) / 255 - mean) / std
        with torch.no_grad():
            expected, found = outputs(ours.backbone, x, names), run(pixels if raw else x)
        for name in names:
            torch.testing.assert_close(found[name], expected[name], rtol=1e-3, atol=1e-4)


def test_one_output_comes_by_itself() -> None:
    ours = encoder("vit", 32)
    program, names, _ = trace(ExportJob(ours, Path("x"), "x", "cls"))
    x = torch.randn(2, 3, 32, 32)
    found = program.module()(x)
    assert names == ("cls",) and isinstance(found, Tensor)
    with torch.no_grad():
        torch.testing.assert_close(found, outputs(ours.backbone, x, ("cls",))["cls"], rtol=1e-5, atol=1e-5)


def test_the_encoder_itself_stays_as_it_is() -> None:
    ours = encoder("resnet", 64)
    ours.backbone.requires_grad_(True)
    trace(ExportJob(ours, Path("x"), "x"))
    assert all(p.requires_grad for p in ours.backbone.parameters())


def test_an_output_that_the_net_lacks_is_refused() -> None:
    with pytest.raises(SpecError, match="no class token"):
        trace(ExportJob(encoder("resnet", 64), Path("x"), "x", "cls"))


def test_what_goes_in_and_comes_out_is_written_for_people() -> None:
    job = ExportJob(encoder("vit", 32), Path("x"), "x", "all", preprocess=True)
    takes, gives = describe_graph(job, ("pooled", "cls", "patches"), [(32, 32)])
    assert takes == "uint8 (B, 32, 32, 3), RGB"
    assert gives == ["pooled (B, 16)", "cls (B, D)", "patches (B, D, 4, 4)"]
    plain = ExportJob(encoder("resnet", 64), Path("x"), "x")
    assert describe_graph(plain, ("pooled",), [(64, 64), (88, 80)])[0] == "float32 (B, 3, H, W), normalised"
    assert (size_axes(job), size_axes(plain)) == ((1, 2), (2, 3))


def build(arch: str, size: int, **args: object) -> Backbone:
    torch.manual_seed(0)
    return build_backbone(BackboneSpec(arch=arch, args=args), size).eval()


def test_a_vit_gives_its_tokens_apart() -> None:
    vit = build("vit_small_patch14_reg4_dinov2", 32, patch_size=8, embed_dim=16, depth=2, num_heads=2)
    assert output_names(vit, "all") == OUTPUTS
    x = torch.randn(2, 3, 32, 48)
    with torch.inference_mode():
        found, tokens = outputs(vit, x, OUTPUTS), vit.net.forward_features(x)
        torch.testing.assert_close(found["pooled"], vit(x).pooled, rtol=0, atol=0)
        torch.testing.assert_close(found["cls"], tokens[:, 0], rtol=0, atol=0)
        for row, column in [(0, 0), (1, 2), (3, 5)]:
            patch = tokens[:, 5 + 6 * row + column]  # after [CLS] and four registers
            torch.testing.assert_close(found["patches"][:, :, row, column], patch, rtol=0, atol=0)
        assert outputs(vit, x, ("cls",)).keys() == {"cls"}


def test_a_resnet_has_no_class_token_and_pools_its_map() -> None:
    net = build("resnet18", 64, channels=[4, 4, 8, 8], layers=[1, 1, 1, 1])
    assert output_names(net, "all") == ("pooled", "patches")
    x = torch.randn(2, 3, 64, 96)
    with torch.inference_mode():
        found = outputs(net, x, ("pooled", "patches"))
        assert found["patches"].shape == (2, 8, 2, 3)
        torch.testing.assert_close(found["patches"].mean((2, 3)), net.net(x))
        torch.testing.assert_close(found["pooled"], net.net(x), rtol=0, atol=0)
        torch.testing.assert_close(net.net.forward_features(x), found["patches"], rtol=0, atol=0)
    for wanted, reason in [("cls", "no class token"), ("tokens", "no such output")]:
        with pytest.raises(SpecError, match=reason) as e:
            output_names(net, wanted)
        assert "pooled, patches, all" in e.value.hint


def test_torch_alone_gives_our_features_at_every_size(tmp_path: Path) -> None:
    ours, path = encoder("resnet", 64), tmp_path / "net.pt2"
    written = write_pt2(ExportJob(ours, path, "net.pt2"))
    net = torch.export.load(path).module()
    assert len(written.sizes) == 2 and "torch.export.load('net.pt2')" in written.code
    for size in written.sizes:
        x = torch.randn(3, 3, *size)
        with torch.no_grad():
            torch.testing.assert_close(net(x), ours.backbone(x).pooled, rtol=1e-4, atol=1e-5)


def test_onnxruntime_gives_our_outputs_by_name_at_other_sizes(tmp_path: Path) -> None:
    ours, path = encoder("resnet", 64), tmp_path / "net.onnx"
    written = write_onnx(ExportJob(ours, path, "net.onnx", "all"))
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
    write_onnx(ExportJob(ours, tmp_path / "net.onnx", "net.onnx", preprocess=True))
    model = onnx.load(tmp_path / "net.onnx")
    onnx.checker.check_model(model)
    assert model.opset_import[0].version == OPSET
    facts = json.loads({entry.key: entry.value for entry in model.metadata_props}["sslctl"])
    assert facts["sha256"] == ours.meta.sha256 and facts["image"] == ours.meta.image.model_dump(mode="json")
    assert facts["takes"].startswith("uint8") and facts["gives"] == ["pooled (B, 8)"]
