"""The memory of a step before the first one: measured on a copy, and what follows from it."""

from __future__ import annotations

import json

import pytest
import torch
from typer.testing import CliRunner

from sslctl.cli.main import app
from sslctl.profiling.estimate import Size, estimate, noise_views, parts_that_fit

from ..training import picture_folder, small_spec, training


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return picture_folder(tmp_path_factory.mktemp("pictures"))


def test_estimating_leaves_the_run_as_it_is(pictures):
    t = training(small_spec(pictures, "swav"))
    before = {name: value.clone() for name, value in t.method.state_dict().items()}
    state = torch.get_rng_state()
    size = estimate(t)
    assert all(torch.equal(before[name], value) for name, value in t.method.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    assert size.memory == size.fixed + 8 * size.per_image > 0
    twice = estimate(training(small_spec(pictures, "swav", run={"batch_size": 16})))
    assert twice.images == 2 * size.images
    assert twice.fixed == size.fixed


def test_the_largest_batch_fills_what_is_free():
    size = estimate_of(fixed=1000, per_image=10, free=10_000)
    assert size.largest_batch == (8500 - 1000) // 10
    assert estimate_of(fixed=10_000, per_image=10, free=10_000).largest_batch == 0
    assert estimate_of(fixed=1, per_image=1, free=None).fits


def estimate_of(**more):
    return Size(parameters=1, backbone_parameters=1, images=100, **more)


def test_a_run_that_may_not_fit_is_warned_of(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr("sslctl.profiling.estimate.free_memory", lambda device: 1 << 20)
    spec = tmp_path / "spec.yaml"
    spec.write_text(json.dumps(small_spec(pictures)))
    said = CliRunner().invoke(app, ["pretrain", "--spec", str(spec), "--out", str(tmp_path / "run")])
    assert said.exit_code == 0, said.stderr
    assert "may not fit into memory" in said.stderr


def test_parameters_and_fixed_memory_are_counted(pictures):
    t = training(small_spec(pictures, "simclr", "sgd"))
    size = estimate(t)
    own = sum(p.numel() for p in t.method.parameters())
    assert size.parameters == own and size.backbone_parameters == sum(
        p.numel() for p in t.method.encoder().parameters()
    )
    buffers = sum(b.numel() * b.element_size() for b in t.method.buffers())
    assert size.fixed >= 4 * own * 3 + buffers  # weights, gradients, momentum
    adam = estimate(training(small_spec(pictures, "simclr", "adamw")))
    assert adam.fixed - size.fixed == pytest.approx(4 * own, rel=0.01), "a second moment"


def test_recomputed_blocks_need_less_for_an_image(pictures):
    plain = estimate(training(small_spec(pictures, "dino")))
    thrifty = estimate(training(small_spec(pictures, "dino", backbone={"grad_checkpointing": True})))
    assert thrifty.per_image < 0.8 * plain.per_image


def test_noise_has_the_sizes_of_the_views(pictures):
    t = training(small_spec(pictures))
    views = noise_views(t, 3)
    assert [tuple(x.shape) for x in views.globals] == [(3, 3, 32, 32)] * 2
    assert [tuple(x.shape) for x in views.locals] == [(3, 3, 16, 16)] * 2 and views.index.tolist() == [0, 1, 2]


def test_a_batch_is_cut_into_the_fewest_equal_parts_that_fit():
    assert parts_that_fit(12, lambda parts: True) == 1
    assert parts_that_fit(12, lambda parts: parts >= 5) == 6
    assert parts_that_fit(12, lambda parts: parts > 6) is None, "no part of one image"


def test_it_says_what_is_needed_and_what_there_is():
    assert str(estimate_of(fixed=1 << 30, per_image=0, free=None)) == "about 1.00 GiB"
    said = str(estimate_of(fixed=1 << 30, per_image=1 << 20, free=4 << 30))
    assert said.startswith("about 1.10 GiB of 4.0 GiB free; 2457 images")
