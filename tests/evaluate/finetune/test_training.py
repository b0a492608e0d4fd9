"""Fine-tuning: layers and their rates, mixing, learning for real, files that other commands read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from sslctl.backbones import build_backbone
from sslctl.cli.main import app
from sslctl.evaluate.baselines import random_backbone
from sslctl.evaluate.finetune.goals import Classes
from sslctl.evaluate.finetune.training import Classifier, Recipe, groups, mix
from sslctl.runs.directory import locked
from sslctl.runs.encoder import load_encoder
from sslctl.spec.schema import BackboneSpec

from ...training import BACKBONE, small_spec

COLOURS = {"blue": (40, 60, 200), "green": (50, 180, 60), "red": (200, 50, 40)}


def call(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def tuned(*words: object) -> dict[str, Any]:
    done = call("finetune", *words, "--json", "--workers", 0, "--precision", "fp32")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "flags"
    rng = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for i in range(20):
            noise = rng.normal(0, 25, (24, 32, 3)) + colour
            Image.fromarray(noise.clip(0, 255).astype(np.uint8)).save(folder / name / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def encoder(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    import yaml

    folder = tmp_path_factory.mktemp("encoder")
    (folder / "spec.yaml").write_text(yaml.safe_dump(small_spec(images, run={"steps": 2})))
    done = call("pretrain", "--spec", folder / "spec.yaml", "--out", folder / "run")
    assert done.exit_code == 0, done.output
    return folder / "run"


def classifier(kind: str) -> Classifier:
    return Classifier(build_backbone(BackboneSpec(**BACKBONE[kind]), 32), 3)


def test_the_rate_falls_from_the_head_down_by_block_and_by_stage() -> None:
    recipe = Recipe(layer_decay=0.5, weight_decay=0.1)
    for kind, layers in (
        ("vit", {"head.": 1, "blocks.1.": 0.5, "norm.": 0.5, "blocks.0.": 0.25, "patch_embed": 0.125, "cls": 0.125}),
        ("cnn", {"head.": 1, "layer4": 0.5, "layer3": 0.25, "layer2": 0.125, "layer1": 1 / 16, "conv1": 1 / 32}),
    ):
        net = classifier(kind)
        made = list(groups(net, recipe))
        of = {id(p): (g["lr_scale"], g["weight_decay"]) for g in made for p in g["params"]}
        assert len(of) == sum(len(g["params"]) for g in made) == len(list(net.parameters()))
        for name, p in net.named_parameters():
            short = name.removeprefix("backbone.net.")
            for start, scale in layers.items():
                assert of[id(p)][0] == scale or not short.startswith(start), name
            free = p.ndim < 2 or "pos_embed" in name or "cls_token" in name
            assert of[id(p)][1] == (0.0 if free else 0.1), name


def test_mixup_and_cutmix_mix_targets_as_they_mix_pixels() -> None:
    # Images of one grey level each: the mean of a mixed image says how much of each is in it.
    level = torch.arange(8.0)
    x, target = level[:, None, None, None].expand(8, 3, 16, 16), Classes(8).targets(torch.arange(8))
    kinds = set()
    for index in range(20):
        recipe = Recipe(mixup=0.8, cutmix=1.0, seed=3)
        mixed, soft = mix(x, target, recipe, index)
        torch.testing.assert_close(mixed.mean((1, 2, 3)), soft @ level, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(soft.sum(1), torch.ones(8))
        kinds.add(len(mixed[0, 0].unique()))
        again = mix(x, target, recipe, index)
        assert torch.equal(again[0], mixed) and torch.equal(again[1], soft)
    assert kinds == {1, 2}  # mixup keeps an image of one grey, CutMix makes one of two
    assert mix(x, target, Recipe(), 0)[0] is x


def test_smoothing_is_that_of_torch() -> None:
    logits, labels = torch.randn(6, 5), torch.tensor([0, 1, 2, 3, 4, 0])
    ours = torch.nn.functional.cross_entropy(logits, Classes(5, 0.1).targets(labels))
    torch.testing.assert_close(ours, torch.nn.functional.cross_entropy(logits, labels, label_smoothing=0.1))


def test_it_learns_and_leaves_files_that_other_commands_read(encoder: Path, images: Path, tmp_path: Path) -> None:
    before = {k: v.clone() for k, v in load_encoder(encoder).backbone.state_dict().items()}
    words = [encoder, "--data", images, "--epochs", 12, "--batch-size", 18, "--lr", 0.05, "--out", tmp_path / "t"]
    found = tuned(*words, "--mixup", 0.2, "--smoothing", 0.1)
    assert found["top1"] == 1.0 and (found["n_train"], found["n_test"]) == (54, 6)
    assert found["protocol"]["mixup"] == 0.2 and found["protocol"]["layer_decay"] == 0.75
    assert {p.name for p in (tmp_path / "t").iterdir()} == {
        "metrics.jsonl",
        "model.safetensors",
        "report.html",
        "result.json",
        "run.lock",
    }
    assert json.loads((tmp_path / "t" / "result.json").read_text()) == found
    lines = [json.loads(line) for line in (tmp_path / "t" / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == list(range(1, 13))
    assert lines[-1]["top1"] == found["top1"] and lines[-1]["loss"] < lines[0]["loss"]
    after = load_encoder(tmp_path / "t").backbone.state_dict()
    assert all(not torch.equal(before[k], after[k]) for k in before if k.endswith("weight"))  # every layer moved
    near = call("knn", tmp_path / "t", "--data", images, "--k", 5, "--json")
    assert near.exit_code == 0 and json.loads(near.stdout)["checkpoint"]["step"] == lines[-1]["step"]
    refused = call("finetune", *words)
    assert refused.exit_code == 2 and "--force" in refused.stderr
    with locked(tmp_path / "t"):
        busy = call("finetune", *words, "--force")
        assert busy.exit_code == 5 and "is in use by pid" in busy.stderr


def test_it_begins_where_it_says_and_twice_is_the_same(encoder: Path, images: Path, tmp_path: Path) -> None:
    words = [encoder, "--data", images, "--epochs", 1, "--batch-size", 18]
    still = [*words, "--lr", 1e-12]  # the weights stay where they began
    for name, more in (("a", words), ("b", words), ("tuned", still), ("scratch", [*still, "--from-scratch"])):
        assert tuned(*more, "--out", tmp_path / name)["protocol"]["from_scratch"] == (name == "scratch")
    found = {name: load_encoder(tmp_path / name).backbone.state_dict() for name in ("a", "b", "tuned", "scratch")}
    assert all(torch.equal(found["a"][k], found["b"][k]) for k in found["a"])
    loaded = load_encoder(encoder)
    fresh = random_backbone(loaded.spec.backbone, loaded.meta.image.size, 0)
    for name, net in (("tuned", loaded.backbone), ("scratch", fresh)):
        for key, value in net.named_parameters():
            torch.testing.assert_close(found[name][key], value, rtol=0, atol=1e-9)
    assert any(not torch.allclose(found["tuned"][k], found["scratch"][k]) for k, _ in fresh.named_parameters())


def test_few_labels_and_a_missed_gate(encoder: Path, images: Path, tmp_path: Path) -> None:
    words = ["finetune", encoder, "--data", images, "--epochs", 1, "--workers", 0, "--json"]
    done = call(*words, "--labels", "2-per-class", "--out", tmp_path / "few", "--fail-under", 1, "--lr", 1e-9)
    found = json.loads(done.stdout)
    assert found["n_train"] == 6 and found["protocol"]["labels"] == "2-per-class"
    assert done.exit_code == (0 if found["top1"] == 1 else 7) and found["gate"]["passed"] == (found["top1"] == 1)
    assert "draws" not in found["protocol"] or found["protocol"]["draws"] == 1
    several = ["--labels", "2-per-class", "--draws", 3, "--lr", 0.01]
    mean = json.loads(call(*words, *several, "--out", tmp_path / "draws").stdout)
    alone = json.loads(call(*words, *several[:2], "--lr", 0.01, "--out", tmp_path / "alone").stdout)
    each = mean["protocol"]["draws_top1"]
    assert mean["protocol"]["draws"] == 3 and each[0] == alone["top1"] and mean["top1"] == pytest.approx(sum(each) / 3)
    first, only = (load_encoder(tmp_path / name).backbone.state_dict() for name in ("draws", "alone"))
    assert all(torch.equal(first[key], only[key]) for key in only)
    curves = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("draws", "alone")]
    assert curves[0] == curves[1]
    assert call(*words, "--draws", 2, "--out", tmp_path / "none").exit_code == 2
    exploded = call(*words, "--lr", 1e30, "--out", tmp_path / "nan")
    assert exploded.exit_code in (4, 6) and not (tmp_path / "nan" / "model.safetensors").exists()
