"""Protocols by name: heads trained together end where each would alone, the backbone stays, the test set has no say."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner

from sslctl.backbones import Backbone, build_backbone
from sslctl.cli.main import app
from sslctl.data.source import ArraySource
from sslctl.engine.optimizers import LARC
from sslctl.errors import DivergedError, SpecError
from sslctl.evaluate.labelled_training import Task
from sslctl.evaluate.linear.protocols import DINOV2_RATES, PROTOCOLS, Read, Reader, evaluate, find_protocol, train
from sslctl.evaluate.linear.sgd_heads import Heads
from sslctl.runs.meta import ImageSpec
from sslctl.spec.schema import BackboneSpec

from ...training import BACKBONE, small_spec

IMAGE = ImageSpec(size=32, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


def coloured(n: int, seed: int) -> ArraySource:
    """Three classes by colour, under noise."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    base = np.array([(60, 80, 170), (70, 150, 80), (170, 70, 60)])[labels][:, None, None]
    array = (base + rng.normal(0, 30, (n, 32, 32, 3))).clip(0, 255).astype(np.uint8)
    return ArraySource("colours", array, labels.astype(np.int64), ["a", "b", "c"])


def net(kind: str) -> Backbone:
    torch.manual_seed(0)
    return build_backbone(BackboneSpec(**BACKBONE[kind]), 32)


def task(n: int = 90, seed: int = 0) -> Task:
    return Task(coloured(n, seed), coloured(45, seed + 1), IMAGE, torch.device("cpu"), torch.float32, 0)


def steps(heads: Heads, n: int = 8) -> Heads:
    g = torch.Generator().manual_seed(1)
    for i in range(n):
        x, y = torch.randn(16, 10, generator=g), torch.randint(0, 4, (16,), generator=g)
        heads.step(x, y, 1.0 - i / n)
    return heads


def by_autograd(optimizer: Any, w: Tensor, b: Tensor, rate: float, n: int = 8) -> None:
    g = torch.Generator().manual_seed(1)
    for i in range(n):
        x, y = torch.randn(16, 10, generator=g), torch.randint(0, 4, (16,), generator=g)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(x @ w.T + b, y).backward()
        for group in optimizer.param_groups:
            group["lr"] = rate * (1.0 - i / n)
        optimizer.step()


@pytest.mark.parametrize("rule", ["sgd", "nesterov", "larc"])
def test_heads_trained_together_end_where_torch_takes_each_alone(rule: Any) -> None:
    rates = [1.0, 50.0, 500.0] if rule == "larc" else [0.001, 0.1, 2.0]
    heads = steps(Heads(10, 4, rates, rule=rule, weight_decay=0.01, seed=3))
    assert not torch.allclose(heads.weight[0], heads.weight[1], atol=1e-3)
    for i, rate in enumerate(rates):
        begin = Heads(10, 4, [rate], seed=3)
        w, b = begin.weight[0].clone().requires_grad_(), begin.bias[0].clone().requires_grad_()
        if rule == "larc":
            group = {"params": [w, b], "lr": rate, "weight_decay": 0.01, "adapt": True}
            optimizer: Any = LARC([group], rate, 0.9)
        else:
            optimizer = torch.optim.SGD([w, b], rate, 0.9, weight_decay=0.01, nesterov=rule == "nesterov")
        by_autograd(optimizer, w, b, rate)
        torch.testing.assert_close(heads.weight[i], w.detach(), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(heads.bias[i], b.detach(), rtol=1e-4, atol=1e-6)


def test_logits_are_those_of_the_formula() -> None:
    heads = steps(Heads(10, 4, [0.1, 1.0]))
    x = torch.randn(7, 10)
    logits = torch.stack([x @ heads.weight[i].T + heads.bias[i] for i in range(2)])
    torch.testing.assert_close(heads(x), logits)


def test_what_is_read_of_a_vit_and_of_a_resnet() -> None:
    vit, x = net("vit").eval(), torch.randn(3, 3, 32, 32)
    reader = Reader(vit, PROTOCOLS["dinov2"].reads)
    assert reader.reads == (Read(1), Read(1, True), Read(2), Read(2, True))  # it has two blocks, not four
    with torch.no_grad():
        parts = reader.parts(reader(x))
        tokens = vit.net.forward_features(x)
        torch.testing.assert_close(parts[0], vit(x).pooled)
        torch.testing.assert_close(parts[1], torch.cat([tokens[:, 0], tokens[:, 1:].mean(1)], 1))
        earlier = vit.net.get_intermediate_layers(x, 2, return_prefix_tokens=True, norm=True)[0][1][:, 0]
        torch.testing.assert_close(parts[3], torch.cat([earlier, tokens[:, 0], tokens[:, 1:].mean(1)], 1))
    assert Reader(net("cnn"), PROTOCOLS["dinov2"].reads).reads == (Read(),)


@pytest.mark.parametrize(("name", "kind"), [("dinov2", "vit"), ("dino", "vit"), ("dinov2", "cnn"), ("moco", "cnn")])
def test_the_backbone_stays_as_it_is_to_the_bit(name: str, kind: str) -> None:
    backbone = net(kind).train()  # in train mode batch norm and stochastic depth would show
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    score, _ = evaluate(backbone, task(), find_protocol(name, 2))
    after = backbone.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert backbone.training and 0 <= score.top1 <= 1


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_learns_colours(name: str) -> None:
    # The papers' rates are for features of trained nets; those of a random one are small.
    rates = {"simsiam": (300.0,), "dinov2": (0.01, 1.0, 30.0)}.get(name, (30.0,))
    protocol = replace(find_protocol(name, 12), batch_size=30, rates=rates, scaled=False)
    score, test = evaluate(net("cnn"), task(), protocol)
    assert score.top1 > 0.8
    assert score.protocol["name"] == name and score.n_test == len(test.labels) == 45


def test_the_head_is_chosen_within_the_training_images_and_says_so() -> None:
    t = task(seed=4)
    score, _ = evaluate(net("vit"), t, find_protocol("dinov2", 3))
    said = score.protocol
    assert said["heads"] == 4 * 13 and said["held_out"] == 9 and score.n_train == 81
    assert max(said["held_out_top1"].values()) == said["held_out_top1"][said["reads"]]
    assert said["lr"] / (81 / 256) in [pytest.approx(rate) for rate in DINOV2_RATES]
    wrong = t.test.take(np.arange(45))
    wrong.labels = (t.test.labels + 1) % 3
    assert evaluate(net("vit"), replace(t, test=wrong), find_protocol("dinov2", 3))[0].protocol == said


def test_a_rate_that_diverges_is_never_chosen() -> None:
    sweep = replace(find_protocol("dinov2", 4), rates=(math.inf, 0.1))
    score, _ = evaluate(net("cnn"), task(), sweep)
    assert score.protocol["lr"] == pytest.approx(0.1 * 81 / 256)
    with pytest.raises(DivergedError, match="diverged"):
        evaluate(net("cnn"), task(), replace(sweep, rates=(math.inf, math.inf)))


def test_a_shorter_protocol_keeps_its_shape() -> None:
    seen: list[float] = []

    class Listening(Heads):
        def step(self, x: Tensor, labels: Tensor, factor: float) -> None:
            seen.append(factor)
            super().step(x, labels, factor)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sslctl.evaluate.linear.protocols.Heads", Listening)
        protocol = replace(find_protocol("moco", 10), batch_size=30)
        train(Reader(net("cnn"), protocol.reads), coloured(30, 0), task(), protocol, 0, lambda done, total: None)
    assert seen == pytest.approx([1.0] * 6 + [0.1] * 2 + [0.01] * 2)  # falls at 60 and 80 of 100 epochs


def test_unknown_names_are_told_the_nearest() -> None:
    with pytest.raises(SpecError, match="did you mean 'dinov2'"):
        find_protocol("dinov3")


def test_the_command_line_says_which_head_was_chosen_and_on_what(tmp_path: Path) -> None:
    import yaml

    data = coloured(60, 0)
    for i in range(60):
        folder = tmp_path / "data" / data.classes[data.labels[i]]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(data.array[i]).save(folder / f"{i}.png")
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(small_spec(tmp_path / "data", run={"steps": 1})))

    def call(*words: object) -> Any:
        return CliRunner().invoke(app, [str(word) for word in words])

    made = call("pretrain", "--spec", tmp_path / "spec.yaml", "--out", tmp_path / "r")
    assert made.exit_code == 0, made.output
    done = call("linear-eval", tmp_path / "r", "--protocol", "dinov2", "--epochs", 2, "--workers", 0, "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["protocol"]["name"] == "dinov2" and found["protocol"]["heads"] == 13
    assert found["data"]["train"]["fingerprint"] != found["data"]["test"]["fingerprint"]
    assert "of 13 heads, by 3 training images held out" in done.stderr
    few = call("linear-eval", tmp_path / "r", "--labels", "2-per-class", "--draws", 2, "--json")
    assert json.loads(few.stdout)["protocol"]["draws"] == 2, few.output
    words = ["--protocol", "moco", "--epochs", 2, "--labels", "2-per-class", "--workers", 0, "--json"]
    few = call("linear-eval", tmp_path / "r", *words, "--draws", 2)
    found = json.loads(few.stdout)
    assert found["protocol"]["draws"] == 2 and found["n_train"] == 6 and found["protocol"]["name"] == "moco"
    assert json.loads(call("linear-eval", tmp_path / "r", *words).stdout)["top1"] == found["protocol"]["draws_top1"][0]
    for words in (["--protocol", "dinov3"], ["--epochs", 3], ["--protocol", "moco", "--baselines"], ["--draws", 2]):
        assert call("linear-eval", tmp_path / "r", *words).exit_code == 2
