"""The limit of a step: the passes of its backbones alone, found in one real step."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path

import pytest
import torch
from torch import nn

from sslctl.engine.loop import train
from sslctl.profiling.estimate import noise_views
from sslctl.profiling.limit import Call, EncoderOnly, arrange, race, training_step, watch
from sslctl.runs.directory import Run
from sslctl.runs.encoder import load_encoder

from ..training import StopAfter, picture_folder, silent, small_spec, training


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return picture_folder(tmp_path_factory.mktemp("pictures"))


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        # (images, side, learns) of every pass: 8 images, two views of 32 px and two of 16
        ("simclr", [(16, 32, True), (16, 16, True)]),
        ("dino", [(16, 32, False), (16, 32, True), (16, 16, True)]),
    ],
)
def test_the_limit_is_the_passes_of_a_real_step(pictures, method, expected):
    t = training(small_spec(pictures, method))
    calls = watch(t, noise_views(t, 8))
    assert [(call.images, call.shape[1], call.learns) for call in calls] == expected
    each = arrange(calls, 8, grouped=False)
    assert [call.images for call in each] == [8] * sum(n // 8 for n, _, _ in expected)
    assert arrange(each, 8, grouped=True) == calls
    bare = EncoderOnly(t, noise_views(t, 8))
    learner = next(net for net, _, learns in bare.passes if learns)
    before = [p.clone() for p in learner.parameters()]
    own = [p.clone() for p in t.method.student.backbone.parameters()]
    bare.step()
    assert any(not torch.equal(a, b) for a, b in zip(before, learner.parameters(), strict=True)), "it trains"
    assert all(torch.equal(a, b) for a, b in zip(own, t.method.student.backbone.parameters(), strict=True)), "a copy"


@pytest.mark.slow  # compiling takes minutes, on one core beside other work many
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("method", ["simclr", "moco-v2", "dino"])
def test_compiled_backbones_train_alike(pictures, tmp_path, method):
    losses = {}
    for compiled in (False, True, "graphs"):
        t = training(small_spec(pictures, method, run={"compile": compiled}))
        with Run(tmp_path / f"{method}-{compiled}") as run:
            train(t, run, StopAfter(99), silent)
            losses[compiled] = [line["loss"] for line in run.lines()]
            assert load_encoder(run.last).meta.step == 6
    assert losses[True] == losses["graphs"] == pytest.approx(losses[False], rel=1e-4)
    views = noise_views(t, 8)
    EncoderOnly(t, views).step()
    plain, compiled = (watch(training(small_spec(pictures, method, run={"compile": c})), views) for c in (False, True))
    assert [call[1:] for call in plain] == [call[1:] for call in compiled], "compiled networks can be watched too"


def test_contenders_take_turns_and_the_first_rounds_do_not_count() -> None:
    ran: list[str] = []
    ticks = itertools.count()
    contenders = {name: (lambda name=name: ran.append(name)) for name in "abc"}
    found = race(contenders, torch.device("cpu"), rounds=3, clock=lambda: next(ticks))
    assert found == {name: [1, 1, 1] for name in "abc"}, "a clock that ticks once a call sees one tick in each run"
    assert "".join(ran) == "cbaabccbaabccba"


def test_a_step_of_the_run_can_be_taken_over_and_over(pictures: Path) -> None:
    t = training(small_spec(pictures))
    step = training_step(t, noise_views(t, 8))
    before = copy.deepcopy(t.method.state_dict())
    step()
    step()
    assert any(not torch.equal(before[name], value) for name, value in t.method.state_dict().items())


def test_passes_of_one_size_are_grouped_or_taken_apart() -> None:
    net = nn.Identity()
    calls = [Call(net, 8, (3, 32, 32), True), Call(net, 8, (3, 32, 32), True), Call(net, 16, (3, 16, 16), False)]  # type: ignore[arg-type]
    assert arrange(calls, 8, None) == calls
    assert [(call.images, call.shape[1]) for call in arrange(calls, 8, True)] == [(16, 32), (16, 16)]
    assert [(call.images, call.shape[1]) for call in arrange(calls, 8, False)] == [(8, 32), (8, 32), (8, 16), (8, 16)]
