"""Every format comes back, judged by its own library on real images; what differs is an error and leaves nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from sslctl.errors import CheckpointError, SpecError
from sslctl.exchange.exports import graph, parity
from sslctl.exchange.exports import write as module
from sslctl.exchange.exports.formats import FORMATS, ExportJob, ExportResult, Format
from sslctl.exchange.exports.graph import output_names, outputs
from sslctl.exchange.exports.write import Export, export
from sslctl.runs.encoder import LoadedEncoder
from tests.exchange.exports.encoders import code_in, encoder
from tests.fresh import warm  # noqa: F401 - a fixture

Run = Callable[..., Any]


@pytest.fixture
def fresh(warm: Run, monkeypatch: pytest.MonkeyPatch) -> Run:  # noqa: F811
    """Fresh processes are forked from one that has the libraries loaded."""
    monkeypatch.setattr(parity.subprocess, "run", warm)
    return warm


def photo(path: Path, height: int = 90, width: int = 120) -> Path:
    """A picture with an edge, a slope and a texture."""
    y, x = np.mgrid[:height, :width]
    parts = [255 * (x > y), 2 * x, 128 + 100 * np.sin(x / 3) * np.cos(y / 5)]
    Image.fromarray(np.stack(parts, -1).clip(0, 255).astype(np.uint8)).save(path, quality=95)
    return path


def loaded(place: Path, code: str, run: Run) -> dict[str, Tensor]:
    """What the card's code, as it stands and with its last line no comment, gives for photo.jpg in ``place``."""
    use = '# features = encode(prepare(Image.open("photo.jpg"))[None])'
    assert code.rstrip().endswith(use)
    save = (
        "\nimport numpy\nfrom safetensors.numpy import save_file\n"
        "found = features if isinstance(features, dict) else {'features': features}\n"
        "save_file({k: numpy.ascontiguousarray(v) for k, v in found.items()}, 'photo.features')\n"
    )
    done = run([sys.executable, "-c", code.replace(use, use[2:]) + save], cwd=place)
    assert done.returncode == 0, done.stderr
    found = load_file(place / "photo.features")
    (place / "photo.features").unlink()
    return found


def nearest(x: Tensor) -> list[int]:
    """The nearest neighbour of each image, by the cosine of what sets it apart from the mean."""
    x = x.double().flatten(1)
    x = torch.nn.functional.normalize(x - x.mean(0), dim=1)
    return (x @ x.T).fill_diagonal_(-2).argmax(1).tolist()


ROUND_TRIPS = [
    # kind, size, format, --features, --preprocess, a word of what must be said
    ("resnet", 64, "timm", "pooled", False, ""),
    ("resnet", 32, "timm", "pooled", False, "stem for small images"),
    ("dino", 32, "timm", "pooled", False, "32 px only"),
    ("rotary", 32, "timm", "pooled", False, ""),
    ("resnet10", 64, "torchvision", "pooled", False, ""),
    ("resnet10", 32, "torchvision", "pooled", False, "stem for small images"),
    ("vit", 32, "torchvision", "pooled", False, "32 px only"),
    ("resnet18", 64, "detectron2", "pooled", False, ""),
    ("resnet", 64, "hf", "pooled", False, ""),
    ("resnet", 32, "hf", "pooled", False, "stem for small images"),
    ("dino", 32, "hf", "pooled", False, "32 px only"),
    ("dinov2", 32, "hf", "pooled", False, "32 px only"),
    ("registers", 32, "hf", "pooled", False, "32 px only"),
    ("giant", 32, "hf", "pooled", False, "32 px only"),
    ("averaged", 32, "hf", "pooled", False, "through timm"),
    ("convnext", 64, "hf", "pooled", False, "through timm"),
    ("rotary", 32, "hf", "pooled", False, "through timm"),
    ("resnet", 64, "onnx", "all", True, ""),
    ("dino", 32, "onnx", "all", False, ""),
    ("rotary", 32, "onnx", "all", False, ""),
    ("resnet", 64, "pt2", "pooled", False, ""),
    ("vit", 32, "pt2", "patches", True, ""),
    ("same", 64, "pt2", "pooled", False, ""),
]


@pytest.mark.parametrize(
    ("kind", "size", "name", "features", "preprocess", "said"),
    ROUND_TRIPS,
    ids=["-".join(str(word) for word in case[:4]) for case in ROUND_TRIPS],
)
def test_each_format_comes_back_with_our_features_and_neighbours(
    kind: str,
    size: int,
    name: str,
    features: str,
    preprocess: bool,
    said: str,
    tmp_path: Path,
    fresh: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[tuple[dict[str, Tensor], dict[str, Tensor]]] = []
    compare = module.compare

    def watched(ours: dict[str, Tensor], theirs: dict[str, Tensor], tolerance: float) -> parity.Parity:
        seen.append((ours, theirs))
        return compare(ours, theirs, tolerance)

    monkeypatch.setattr(module, "compare", watched)
    large = name == "onnx" and kind == "dino"
    if large:
        monkeypatch.setattr(graph, "MAX_IN_FILE", 0)
    ours = encoder(kind, size)
    done = export(ours, tmp_path / "an export", FORMATS[name], features=features, preprocess=preprocess)
    assert done.tolerance == (1e-4 if name == "onnx" else 1e-5)
    assert done.parity.relative <= done.tolerance and done.parity.cosine > 0.99999 and done.parity.strangers == 0
    assert done.images.startswith("16 images of the embedded set") and f"at {size}x{size}" in done.images
    one_size = ours.backbone.is_vit or kind == "same"
    by_timm = (kind, name) in (("averaged", "hf"), ("rotary", "hf"), ("rotary", "timm"))
    assert (" and " in done.images) == (not one_size or by_timm)
    ((mine, theirs),) = seen
    assert len(mine) == len(output_names(ours.backbone, features)) * len(done.images.split(" and "))
    for key, value in mine.items():
        assert nearest(value) == nearest(theirs[key]) and len(set(nearest(value))) > 3
    assert said in " ".join(done.notes) and bool(done.notes) == bool(said)
    assert [p.name for p in tmp_path.iterdir()] == ["an export"]
    assert (done.path / "model.onnx.data").exists() == large
    card = done.path / "README.md"
    assert code_in(card).rstrip() == done.code.rstrip()
    assert all(note in card.read_text() for note in done.notes)
    check_photo(ours, done, features, tmp_path, fresh)


def check_photo(ours: LoadedEncoder, done: Export, features: str, place: Path, run: Run) -> None:
    """The card's code, run on a picture from disk, gives our evaluation's features of it."""
    with Image.open(photo(place / "photo.jpg")) as image:
        pixels = np.asarray(image)
    x = ours.transform()(pixels)[None]
    names = output_names(ours.backbone, features)
    with torch.inference_mode():
        expected = outputs(ours.backbone, x, names)
    for name, found in loaded(place, done.code, run).items():
        mine = expected[name if name in expected else names[0]]
        assert found.shape == mine.shape
        # Resizing may differ by a grey level or two.
        assert float((found - mine).abs().max()) < 0.05 * float(mine.abs().max())


def test_numbers_that_differ_are_an_error_and_leave_nothing(
    tmp_path: Path, fresh: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(self: Format) -> Callable[[ExportJob], ExportResult]:
        def write(job: ExportJob) -> ExportResult:
            other = encoder("resnet10", 32)
            with torch.no_grad():
                other.backbone.net.layer4[0].bn2.bias[0] += 0.1  # one number of millions
            return real(self)(replace(job, encoder=other))

        return write

    real = Format.writer
    monkeypatch.setattr(Format, "writer", damaged)
    for name in ("timm", "torchvision", "hf"):
        with pytest.raises(CheckpointError, match="and sslctl give different features: largest difference 0.") as e:
            export(encoder("resnet10", 32), tmp_path / "out", FORMATS[name])
        assert e.value.exit_code == 4 and FORMATS[name].library in e.value.message
        assert list(tmp_path.iterdir()) == []


def test_code_that_fails_or_prepares_other_images_is_an_error_and_leaves_nothing(
    tmp_path: Path, fresh: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Format.writer
    for old, new, message in [
        ("/model.safetensors'", "/absent.safetensors'", "torchvision does not load it: .*absent.safetensors"),
        ("Image.Resampling.BICUBIC", "Image.Resampling.NEAREST", "torchvision prepares other images than evaluation"),
        (
            "return net(x)",
            "return net(x)[:, 1:]",
            "torchvision and sslctl give different features: .*difference inf",
        ),
    ]:

        def write(job: ExportJob, old: str = old, new: str = new) -> ExportResult:
            written = real(FORMATS["torchvision"])(job)
            assert old in written.code
            return replace(written, code=written.code.replace(old, new))

        monkeypatch.setattr(Format, "writer", lambda self, write=write: write)
        with pytest.raises(CheckpointError, match=message):
            export(encoder("resnet10", 64), tmp_path / "out", FORMATS["torchvision"])
        assert list(tmp_path.iterdir()) == []


def test_what_a_format_cannot_hold_is_refused_with_what_can(tmp_path: Path) -> None:
    for kind, size, name, message in [
        ("resnet", 64, "torchvision", r"no ResNet of these sizes: layer1.0.conv1.weight is \(4, 64, 3, 3\) here"),
        ("dinov2", 32, "torchvision", "no layer scale"),
        ("convnext", 64, "torchvision", "takes ResNets, not a ConvNeXt"),
        ("same", 64, "torchvision", "its stem, padding"),
        ("same", 64, "timm", "TensorFlow's padding"),
        ("resnet18", 32, "detectron2", "stem for small images"),
        ("resnet10", 64, "detectron2", r"no ResNet with \[1, 1, 1, 1\] blocks"),
        ("vit", 32, "detectron2", "takes ResNets, not a VisionTransformer"),
    ]:
        with pytest.raises(SpecError, match=message) as e:
            export(encoder(kind, size), tmp_path / "out", FORMATS[name])
        assert "onnx" in e.value.hint
    for options, name in [({"features": "cls"}, "timm"), ({"preprocess": True}, "hf")]:
        with pytest.raises(SpecError, match="loads a network") as e:
            export(encoder("vit", 32), tmp_path / "out", FORMATS[name], **options)  # type: ignore[arg-type]
        assert e.value.hint == "--format onnx or pt2"
    with pytest.raises(SpecError, match="no class token"):
        export(encoder("resnet", 32), tmp_path / "out", FORMATS["pt2"], features="cls")
    assert list(tmp_path.iterdir()) == []
