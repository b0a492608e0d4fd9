"""What holds for every objective: its description, finite losses on any crops, gradients in their place, resuming."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sslctl.backbones import build_backbone
from sslctl.errors import SpecError
from sslctl.layers.teacher import EMA
from sslctl.methods import METHODS, load_method
from sslctl.methods.base import Context, Method, Views
from sslctl.runs import checkpoint
from sslctl.runs.meta import DataFacts, ImageSpec, Meta
from sslctl.schedule import Step, constant
from sslctl.spec.crops import parse_crops
from sslctl.spec.parsing import check, check_spec, problems
from sslctl.spec.schema import BackboneSpec, OptimSpec, ViewsSpec
from sslctl.views.recipe import plan_views

from ..stubs import tiny_vit

BATCH = 6
every_method = pytest.mark.parametrize("name", METHODS)
CROPS = [((2, 24), (4, 12)), ((2, 16), (0, 0)), ((1, 16), (2, 8)), ((3, 16), (1, 8))]  # (count, px): global, local
# What a method forgets to save shows with any optimizer; what an optimizer keeps, with one method that freezes a layer.
OPTIMIZERS = [*((name, "adamw") for name in METHODS), *(("dino", name) for name in ("sgd", "lars", "larc"))]

META = Meta(spec={}, image=ImageSpec(size=16, mean=(0, 0, 0), std=(1, 1, 1)), data=DataFacts(name="noise"))


CONTEXT = Context(100, BATCH, classes=3)
LATER = Step(5, 10, 5)  # DeepCluster does not train in the first epoch


def build(name: str, net: Callable[[], nn.Module], context: Context = CONTEXT, seed: int = 0) -> Method[Any]:
    torch.manual_seed(seed)
    cls: Any = load_method(name)
    method: Method[Any] = cls(check(cls.Params, cls.tiny), tiny_vit() if cls.needs_vit else net(), context)
    if name == "deepcluster-v2":
        nn.init.normal_(method.get_buffer("memory"))  # as if after its first epoch
    return method


def predicting(name: str, views: Views) -> list[Tensor]:
    """The views whose pixels have gradient."""
    if name in ("jigsaw", "cpc"):
        return views.globals  # local views are too small to cut
    if name in ("moco-v1", "moco-v2"):
        return views.globals[:-1] + views.locals  # the last global view is the key
    alone = len(views.globals) == 1 and name in ("moco-v3", "byol", "simsiam", "dino", "nnclr")
    return views.locals if alone else views.all


@every_method
def test_parameters_have_descriptions_and_read_back(name: str) -> None:
    cls = load_method(name)
    params = cls.Params()
    assert cls.Params.model_validate_json(params.model_dump_json(), strict=True) == params
    described = [k for k, field in cls.Params.model_fields.items() if field.description or "temperature" in k]
    assert described == list(cls.Params.model_fields)
    assert problems(cls.Params, {"no_such": 1}, "method")


@every_method
def test_the_recipe_is_a_spec_and_the_views_can_be_made(name: str) -> None:
    cls = load_method(name)
    spec = check_spec({"data": {"path": "somewhere"}, "method": {"name": name}, **cls.recipe})
    assert {"name", "lr"} <= cls.recipe["optim"].keys() and "arch" in cls.recipe["backbone"]
    plan = plan_views(cls.views, spec.views)
    assert len(plan.globals) == parse_crops(cls.views.crops).globals.count
    with_locals = plan_views(cls.views, ViewsSpec(multi_crop="2x96+4x48"))
    assert with_locals.locals[0].scale[1] <= with_locals.globals[0].scale[1]
    assert METHODS[name].title and "arXiv" in METHODS[name].paper and METHODS[name].year >= 2000 and cls.__doc__


@every_method
def test_losses_are_finite_and_every_view_contributes_whatever_the_crops(
    name: str, net: Callable[[], nn.Module], random_views: Callable[..., Views]
) -> None:
    for globals, locals in CROPS:
        method = build(name, net, CONTEXT._replace(globals=globals[0], locals=locals[0]))
        views = random_views(globals, locals)
        for view in views.all:
            view.requires_grad_()
        output = method(views, LATER)
        assert torch.isfinite(output.loss) and output.loss.ndim == 0, (globals, locals)
        output.loss.backward()
        with_gradient = [view.grad is not None and float(view.grad.abs().amax()) > 0 for view in views.all]
        expected = [any(view is x for x in predicting(name, views)) for view in views.all]
        assert with_gradient == expected, (globals, locals)


@every_method
def test_outputs_are_what_the_loop_takes(
    name: str, net: Callable[[], nn.Module], random_views: Callable[..., Views]
) -> None:
    method = build(name, net)
    output = method(random_views((2, 16), (2, 8)), LATER)
    assert output.embedding.shape[0] == BATCH and output.embedding.ndim == 2 and not output.embedding.requires_grad
    assert all(isinstance(v, Tensor) and v.ndim == 0 and not v.requires_grad for v in output.logs.values())
    assert all(torch.isfinite(v) for v in output.logs.values())
    assert method.encoder()(torch.randn(3, 3, 16, 16)).pooled.shape == (3, 8)


@every_method
def test_gradients_go_to_what_is_trained_and_nowhere_else(
    name: str, net: Callable[[], nn.Module], random_views: Callable[..., Views]
) -> None:
    method = build(name, net)
    grouped = [key for group in method.groups() for key, _ in group.params]
    trained = {key for key, p in method.named_parameters() if p.requires_grad}
    assert len(grouped) == len(set(grouped)) and set(grouped) == trained
    method(random_views((2, 16), (2, 8)), LATER).loss.backward()
    assert {key for key, p in method.named_parameters() if p.grad is not None} == trained
    assert not any(key.startswith("teacher.") for key in trained)
    moved = {key for key, p in method.named_parameters() if p.grad is not None and p.grad.abs().amax() > 0}
    assert {key for key in trained if key.startswith("student.backbone.")} <= moved


@every_method
def test_a_step_moves_the_student_and_a_teacher_follows(
    name: str, net: Callable[[], nn.Module], random_views: Callable[..., Views], trainer: Callable[..., Any]
) -> None:
    method = build(name, net)
    before = {key: p.detach().clone() for key, p in method.named_parameters()}
    train = trainer(method, OptimSpec(name="sgd"), constant(0.1))
    for index in range(2):
        train.step(random_views((2, 16), (2, 8), seed=index), Step(index + 5, 10, 5))
    parts = {"student.backbone."} | {f"{key}.net.backbone." for key, m in method.named_children() if isinstance(m, EMA)}
    fixed = {key for key, p in method.student.named_parameters() if not p.requires_grad}
    for prefix in parts:
        keys = [key for key in before if key.startswith(prefix) and f"backbone.{key.removeprefix(prefix)}" not in fixed]
        assert keys and all(not torch.equal(before[key], method.get_parameter(key)) for key in keys)


@every_method
def test_half_precision_is_finite_and_near(
    name: str, net: Callable[[], nn.Module], random_views: Callable[..., Views]
) -> None:
    views = random_views((2, 16), (2, 8))
    method = build(name, net)
    whole = method(views, LATER).loss
    with torch.autocast("cpu", torch.bfloat16):
        half = build(name, net)(views, LATER)
    assert torch.isfinite(half.loss) and half.loss.dtype == torch.float32
    rel = 0.5 if name == "nnclr" else 0.1  # the nearest of random neighbours may be another one
    assert half.loss.item() == pytest.approx(whole.item(), rel=rel)
    half.loss.backward()


@every_method
def test_a_vision_transformer_takes_crops_of_two_sizes(name: str, random_views: Callable[..., Views]) -> None:
    arch = BackboneSpec(arch="vit_tiny_patch16_224", args={"depth": 2, "embed_dim": 24, "patch_size": 8})
    method = build(name, lambda: build_backbone(arch, 32))
    output = method(random_views((2, 32), (4, 16)), LATER)
    assert torch.isfinite(output.loss)
    output.loss.backward()


@pytest.mark.parametrize(("name", "optimizer"), OPTIMIZERS)
def test_resuming_is_bit_exact(
    name: str,
    optimizer: str,
    net: Callable[[], nn.Module],
    random_views: Callable[..., Views],
    trainer: Callable[..., Any],
    tmp_path: Path,
) -> None:
    """Through a checkpoint into an object of another seed; the queue fills and the frozen layers thaw on the way."""
    spec = OptimSpec(name=optimizer)  # type: ignore[arg-type]

    def run(method: Method[Any], train: Any, first: int, last: int) -> Method[Any]:
        for index in range(first, last):
            train.step(random_views((2, 16), (2, 8), seed=index), Step(index, 6, 2))
        return method

    method = build(name, net)
    train = trainer(method, spec, constant(0.01), constant(0.001))
    path = tmp_path / "step.safetensors"
    run(method, train, 0, 3)
    checkpoint.write(path, *checkpoint.snapshot(method, train.training.optimizer, META.but(step=3)))
    whole = run(method, train, 3, 6).state_dict()

    other = build(name, net, seed=99)
    resumed = trainer(other, spec, constant(0.01), constant(0.001))
    checkpoint.restore(path, other, resumed.training.optimizer)
    again = run(other, resumed, 3, 6).state_dict()
    assert [key for key in whole if not torch.equal(whole[key], again[key])] == []


def test_an_unknown_method_is_refused_with_the_nearest() -> None:
    with pytest.raises(SpecError, match="'sawv'.*did you mean 'swav'") as refused:
        load_method("sawv")
    assert all(name in refused.value.hint for name in METHODS)


@every_method
def test_a_vit_with_rotary_positions_trains_on_crops_of_several_sizes(
    name: str, random_views: Callable[..., Views]
) -> None:
    args = {"patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2}
    net = build_backbone(BackboneSpec(arch="vit_small_patch16_dinov3", args=args), 24)
    method = build(name, lambda: net)
    if load_method(name).needs_vit:
        pytest.skip("builds a ViT of its own")
    method(random_views((2, 24), (2, 16)), LATER).loss.backward()
    gradients = {key: p.grad for key, p in method.student.backbone.named_parameters() if p.requires_grad}
    assert all(g is not None and bool(torch.isfinite(g).all()) for g in gradients.values())
    assert bool(gradients["net.blocks.0.attn.qkv.weight"].any())  # type: ignore[union-attr]
