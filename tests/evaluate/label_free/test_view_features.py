"""Features of several views of an image: those that training would show it, whatever the batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sslctl.backbones import build_backbone
from sslctl.data.folder import open_folder
from sslctl.data.source import ArraySource
from sslctl.evaluate.label_free.view_features import extract_views, view_plan
from sslctl.methods import FOREIGN_VIEWS, load_method
from sslctl.runs.meta import Imported
from sslctl.spec.schema import BackboneSpec
from sslctl.views.augment import Augment

from ...exchange.exports.encoders import encoder
from ...training import picture_folder

SPEC = BackboneSpec(arch="resnet18", args={"channels": [4, 4, 8, 8], "layers": [1, 1, 1, 1]})


def test_the_views_are_the_global_ones_of_the_run_or_simclrs_for_other_weights() -> None:
    own = encoder("resnet", 32)
    plan = view_plan(own)
    assert plan.locals == () and [view.size for view in plan.globals] == [224, 224], "SwAV's, as its paper has them"
    own.meta = own.meta.but(imported=Imported(layout="timm"))
    foreign = view_plan(own)
    assert [view.size for view in foreign.globals] == [32, 32] and foreign.mean == own.meta.image.mean
    assert foreign.globals[0].jitter == view_plan_of(FOREIGN_VIEWS)


def view_plan_of(name: str) -> tuple[float, float, float, float]:
    from sslctl.spec.schema import ViewsSpec
    from sslctl.views.recipe import plan_views

    return plan_views(load_method(name).views, ViewsSpec()).globals[0].jitter


@pytest.fixture(scope="module")
def net() -> torch.nn.Module:
    torch.manual_seed(0)
    return build_backbone(SPEC, 32)


def plan() -> object:
    own = encoder("resnet", 32)
    own.meta = own.meta.but(imported=Imported(layout="timm"))
    return view_plan(own)


@pytest.mark.parametrize("held", [True, False])
def test_an_image_has_the_views_of_training_in_epochs_from_the_first_on(
    net: torch.nn.Module, tmp_path: Path, held: bool
) -> None:
    if held:
        array = np.random.default_rng(0).integers(0, 256, (6, 40, 40, 3), dtype=np.uint8)
        source = ArraySource("set", array)
    else:
        source = open_folder(str(picture_folder(tmp_path / "pictures", 6)), "train")  # type: ignore[assignment]
    views = plan()
    found = extract_views(net, source, views, 3, seed=5, batch_size=4)  # type: ignore[arg-type]
    assert found.shape == (6, 3, 8)
    again = extract_views(net, source, views, 3, seed=5, batch_size=100)  # type: ignore[arg-type]
    torch.testing.assert_close(found, again, rtol=1e-4, atol=1e-5)
    other = extract_views(net, source, views, 3, seed=6)  # type: ignore[arg-type]
    assert (found - other).abs().amax((1, 2)).min() > 1e-3
    if not held:
        crops = Augment(views, 5).geometric(source.read(2), 1, 2)  # type: ignore[arg-type]
        assert len(crops) == 2, "two views an epoch: the third is the first of epoch 1"
    assert (found[:, 0] - found[:, 2]).abs().amax(1).min() > 1e-4


def test_unreadable_images_are_left_out_and_the_network_stays(net: torch.nn.Module, tmp_path: Path) -> None:
    folder = picture_folder(tmp_path / "pictures", 5)
    (folder / "class0" / "000.jpg").write_bytes(b"")
    source = open_folder(str(folder), "train")
    net.train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    seen: list[tuple[int, int]] = []
    found = extract_views(net, source, plan(), 2, batch_size=4, progress=lambda done, total: seen.append((done, total)))  # type: ignore[arg-type]
    assert len(found) == 4 and seen == [(2, 5), (4, 5), (5, 5)] and net.training
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
