"""What setup makes of a spec and the data it points at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_image
from torch import nn

from sslctl.engine.setup import build_method, check_batch, open_inputs
from sslctl.errors import DataError, SpecError, SslctlError
from sslctl.methods import load_method
from sslctl.methods.resolve import resolve
from sslctl.schedule import Step
from sslctl.spec.schema import ViewsSpec
from sslctl.views.recipe import plan_views

from ..training import picture_folder, small_spec, training


@pytest.mark.parametrize(("decode", "side"), [("full", 854), ("reduced", 214)])
def test_a_run_reads_large_jpegs_reduced_where_it_is_told_to(tmp_path: Path, decode: str, side: int) -> None:
    photo = Image.fromarray(load_sample_image("flower.jpg")).resize((1280, 854))
    for i in range(3):
        photo.crop((0, 0, 1280 - i, 854)).save(tmp_path / f"{i}.jpg")
    layer = {
        "data": {"path": str(tmp_path), "decode": decode},
        "views": {"multi_crop": "2x64@0.2-1"},
        "method": {"name": "simclr"},
    }
    inputs = open_inputs(resolve(layer))
    assert inputs.train.read(0).shape[0] == side
    assert any("data.decode=reduced" in note for note in inputs.notes) is (decode == "full")


def test_views_of_small_images_shrink_with_them_and_a_note_says_so(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "small.npz", images=rng.integers(0, 256, (40, 32, 32, 3), dtype=np.uint8))
    spec = resolve({"data": {"path": str(tmp_path / "small.npz")}, "method": {"name": "dino"}})
    inputs = open_inputs(spec)
    paper = plan_views(load_method("dino").views, ViewsSpec())
    assert [view.size for view in inputs.plan.all] == [
        max(8, 4 * round(view.size * 32 / paper.globals[0].size / 4)) for view in paper.all
    ]
    assert any("at the scale of 32 px" in note for note in inputs.notes)
    assert inputs.spec.views.multi_crop is not None, "the run's spec says what was chosen"
    wished = open_inputs(spec.model_copy(update={"views": ViewsSpec(multi_crop="2x24")}))
    assert [view.size for view in wished.plan.all] == [24, 24] and not wished.notes


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return picture_folder(tmp_path_factory.mktemp("pictures"))


def test_weights_are_a_function_of_the_spec_and_its_seed(pictures: Path) -> None:
    inputs = open_inputs(resolve(small_spec(pictures)))
    first, again = (build_method(inputs.spec, inputs.plan, 20).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    other = inputs.spec.model_copy(update={"run": inputs.spec.run.model_copy(update={"seed": 1})})
    assert any(not torch.equal(first[k], v) for k, v in build_method(other, inputs.plan, 20).state_dict().items())


def test_everything_of_the_loop_follows_from_the_spec(pictures: Path) -> None:
    t = training(small_spec(pictures, run={"steps": 300, "checkpoint_every": None, "log_every": None}))
    assert (t.total, t.per_epoch, t.log_every, t.checkpoint_every) == (300, 2, 3, 2)  # 18 of 20 images, 8 at a time
    assert t.dtype == torch.float32 and not t.scaler.is_enabled() and t.probe is None and t.model is t.method
    assert t.meta.image.size == 32 and t.meta.data.images == len(t.source) and t.meta.spec == t.spec.dump()
    assert next(iter(t.loader(start_step=299))).index.shape == (8,)
    convolutions = [m for m in t.method.modules() if isinstance(m, nn.Conv2d)]
    assert all(m.weight.is_contiguous(memory_format=torch.channels_last) for m in convolutions)
    plain = training(small_spec(pictures, run={"channels_last": False}))
    assert all(m.weight.is_contiguous() for m in plain.method.modules() if isinstance(m, nn.Conv2d))
    assert training(small_spec(pictures, run={"precision": "fp16"})).scaler.is_enabled()


def test_a_probe_scores_the_encoder_as_the_spec_asks(pictures: Path) -> None:
    t = training(small_spec(pictures, run={"probe_data": str(pictures), "probe_every": 4}))
    assert t.probe is not None and t.probe_every == 4
    scores = t.probe(Step(0, 6, 2))
    assert 0 <= scores["probe_knn"] <= 1


@pytest.mark.parametrize(
    ("batch_size", "accumulate", "images", "error", "hint"),
    [
        (8, 3, 100, SpecError, "--batch-size 6"),
        (2, 4, 100, SpecError, "--batch-size 4"),
        (8, 1, 7, DataError, "--batch-size 7"),
        (8, 1, 1, DataError, "--batch-size 2"),
    ],
)
def test_batches_that_cannot_be_cut_are_refused_with_one_that_can(
    pictures: Path, batch_size: int, accumulate: int, images: int, error: type[SslctlError], hint: str
) -> None:
    spec = resolve(small_spec(pictures, run={"batch_size": batch_size}, optim={"accumulate": accumulate}))
    with pytest.raises(error) as refused:
        check_batch(spec, images)
    assert refused.value.hint == hint
