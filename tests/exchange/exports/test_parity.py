"""Comparing two encoders' numbers: what counts as far, which images are looked at, what a fresh process may do."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from sslctl.data.demo import open_demo
from sslctl.errors import CheckpointError
from sslctl.exchange.exports import parity
from sslctl.exchange.exports.parity import at_size, compare, normalise, real_images, require_parity, run_fresh
from sslctl.runs.meta import ImageSpec, Imported
from tests.exchange.exports.encoders import encoder
from tests.fresh import warm  # noqa: F401 - a fixture
from tests.training import picture_folder


def test_the_worst_number_of_the_worst_image_counts() -> None:
    ours = torch.tensor([[100.0, 0.0], [1.0, 1.0], [0.0, 2.0]])
    theirs = ours.clone()
    theirs[1, 0] += 0.01
    found = compare({"a": ours, "b": ours}, {"b": theirs, "a": ours}, 1e-5)
    assert found.absolute == pytest.approx(0.01, rel=1e-4)
    assert found.relative == pytest.approx(0.01, rel=1e-4)  # of that image's largest number, not of 100
    assert found.cosine == pytest.approx(2.01 / math.sqrt(2 * (1.01**2 + 1)), abs=1e-7)
    require_parity(found, 0.02, "it", "they")
    with pytest.raises(CheckpointError, match=r"it was discarded: they and sslctl give .*0\.01 of the largest"):
        require_parity(found, 0.005, "it", "they")


def test_another_neighbour_is_an_error_but_a_tie_is_none() -> None:
    angles = torch.tensor([0.0, 0.1, 0.205])
    moved = torch.tensor([0.0, 0.1, 0.195])  # the middle one's neighbour is now the last
    points = [torch.stack([a.cos(), a.sin()], 1) for a in (angles, moved)]
    found = compare({"x": points[0]}, {"x": points[1]}, 1e-5)
    assert found.strangers == 1
    with pytest.raises(CheckpointError, match="1 nearest neighbours differ"):
        require_parity(found, 0.5, "it", "they")
    assert compare({"x": points[0]}, {"x": points[1]}, 1e-2).strangers == 0


NONE = torch.full((3, 5), math.nan)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(torch.ones(3, 5), {}), (torch.ones(3, 5), {"x": torch.ones(3, 4)}), (torch.ones(3, 5), {"x": NONE})]
    + [(NONE, {"x": torch.ones(3, 5)}), (NONE, {"x": NONE})],
)
def test_what_is_missing_or_no_number_is_infinitely_far(ours: torch.Tensor, theirs: dict[str, torch.Tensor]) -> None:
    found = compare({"x": ours}, theirs, 1.0)
    assert found.absolute == math.inf
    with pytest.raises(CheckpointError):
        require_parity(found, 1e9, "it", "they")


def test_images_are_those_of_the_run_where_they_are_and_real_ones_in_any_case(tmp_path: Path) -> None:
    folder = picture_folder(tmp_path / "pictures", 20)
    (folder / "class0" / "000.jpg").write_bytes(b"\xff\xd8 no picture")
    images, where = real_images(encoder("resnet", 32, folder))
    assert where == "pictures" and len(images) == 16
    assert len({image.tobytes() for image in images}) == 16
    (folder / "class1").rename(tmp_path / "elsewhere")  # ten are too few
    for data in (folder, tmp_path / "gone"):
        images, where = real_images(encoder("resnet", 48, data))
        assert "embedded" in where
        assert np.array_equal(np.stack(images), open_demo("demo-hard", "val", n=16, size=48).array)
    theirs = encoder("resnet", 32, tmp_path / "pictures")
    theirs.meta = theirs.meta.but(imported=Imported(layout="torchvision"))
    assert "embedded" in real_images(theirs)[1]


def test_pixels_are_prepared_as_evaluation_does() -> None:
    images = list(open_demo("demo", "val", n=3, size=80).array)
    image = ImageSpec(size=64, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    transform = image.transform()
    expected = torch.stack([transform(x) for x in images])
    torch.testing.assert_close(normalise(at_size(images, 64), image), expected, rtol=0, atol=1e-5)
    wide = normalise(at_size(images, 64)[:, :, :48], image)
    torch.testing.assert_close(wide, expected[:, :, :48], rtol=0, atol=1e-5)


def test_a_fresh_process_is_offline_and_leaves_no_files(tmp_path: Path) -> None:
    (tmp_path / "safetensors.py").write_text("raise RuntimeError('imported from the working directory')")
    code = (
        "import os, sys\nfrom safetensors.numpy import load_file, save_file\n"
        "assert os.environ['HF_HUB_OFFLINE'] == '1'\n"
        "save_file({k: 2 * v for k, v in load_file(sys.argv[1]).items()}, sys.argv[2])\n"
    )
    found = run_fresh(code, {"x": torch.arange(3)}, tmp_path, "it", "they")
    assert found["x"].tolist() == [0, 2, 4]
    assert [p.name for p in tmp_path.iterdir()] == ["safetensors.py"]


@pytest.mark.parametrize(
    ("code", "message"),
    [("import absent_library", "they does not load it: .*absent_library"), ("pass", "they returned no features")],
)
def test_a_process_that_fails_or_says_nothing_is_an_error(
    code: str,
    message: str,
    tmp_path: Path,
    warm: object,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parity.subprocess, "run", warm)
    with pytest.raises(CheckpointError, match=message):
        run_fresh(code, {"x": torch.ones(1)}, tmp_path, "it", "they")
    assert list(tmp_path.iterdir()) == []
