"""Every objective through the engine on real files: it trains, its encoder reads back, it goes on to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sslctl.engine.loop import train
from sslctl.errors import DataError, Stopped
from sslctl.methods import METHODS, load_method
from sslctl.runs import checkpoint
from sslctl.runs.directory import Run
from sslctl.runs.encoder import load_encoder
from sslctl.spec.parsing import merge

from ..training import StopAfter, picture_folder, silent, small_spec, training


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return picture_folder(tmp_path_factory.mktemp("pictures"))


def user_spec(images: Path, name: str, **run: Any) -> dict[str, Any]:
    return merge(small_spec(images, name), {"method": load_method(name).tiny, "run": {"steps": 5, **run}})


@pytest.mark.parametrize("name", METHODS)
def test_it_trains_goes_on_and_its_encoder_reads_back(name: str, pictures: Path, tmp_path: Path) -> None:
    user = user_spec(pictures, name)
    whole = training(user)
    with Run(tmp_path / "whole") as run:
        train(whole, run, StopAfter(99), silent)

    last = tmp_path / "whole" / "checkpoints" / "last.safetensors"
    loaded = load_encoder(last).backbone
    x = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(loaded(x), whole.method.encoder().eval()(x))  # in another memory layout

    with Run(tmp_path / "parts") as run:
        stop = StopAfter(3)
        with pytest.raises(Stopped):
            train(training(user), run, stop, stop.report)
    with Run(tmp_path / "parts") as run:
        train(training(user, weights_seed=999), run, StopAfter(99), silent)
    expected, found = (
        checkpoint.read(tmp_path / x / "checkpoints" / "last.safetensors")[1] for x in ("whole", "parts")
    )
    assert expected.keys() == found.keys()
    assert [key for key in expected if not torch.equal(expected[key], found[key])] == []


def test_supervised_needs_labels(pictures: Path, tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in pictures.rglob("*.jpg"):
        (flat / path.name).write_bytes(path.read_bytes())
    with pytest.raises(DataError, match="no classes") as refused:
        training(user_spec(flat, "supervised", batch_size=4))
    assert "one folder for each class" in refused.value.hint
