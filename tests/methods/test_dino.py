"""DINO against the authors' loss, head, parameter groups and two epochs of their training loop; its frozen parts.

Golden: facebookresearch/dino, main_dino.py, utils.py and vision_transformer.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.models import VisionTransformer
from torch import Tensor, nn

from sslctl.backbones import Backbone, build_backbone
from sslctl.layers.buffers import Center
from sslctl.layers.losses import swapped_cross_entropy
from sslctl.methods.base import Context, Views
from sslctl.methods.dino import DINO, DINOParams, Head
from sslctl.schedule import Schedule, Step, cosine
from sslctl.spec.schema import BackboneSpec, OptimSpec

PRECISIONS = pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
WARM = Schedule(base=0.07, shape="constant", warmup_from=0.04, warmup_epochs=1, per_epoch=True)
Golden = Callable[[str], dict[str, Tensor]]


def same(value: Tensor | None, expected: Tensor, tolerance: float, name: str = "") -> None:
    """Equal within ``tolerance`` of the largest number in ``expected``."""
    assert value is not None, name
    atol = tolerance * float(expected.abs().max())
    torch.testing.assert_close(value.detach(), expected, rtol=0, atol=atol, msg=lambda m: f"{name}: {m}")


def part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


@PRECISIONS
def test_loss_gradient_and_centre_are_the_authors(golden: Golden, dtype: torch.dtype, tolerance: float) -> None:
    case = {k: v.to(dtype) if v.is_floating_point() else v for k, v in golden("dino_loss").items()}
    center = Center(16, momentum=0.9).to(dtype)
    schedule = Schedule(base=0.07, shape="constant", warmup_from=0.04, warmup_epochs=3, per_epoch=True)
    for i in range(3):
        at = part(case, f"step{i}/")
        step = Step(int(at["epoch"]), 6, 1)
        student = at["student"].requires_grad_()
        teacher = at["teacher"].unflatten(0, (2, 4))
        same(center.value, at["center_before"][0], tolerance)
        q = ((teacher - center.value) / schedule.at(step)).softmax(-1)
        loss = swapped_cross_entropy(q, student.unflatten(0, (5, 4)), 0.1)
        center.update(teacher)
        same(loss, at["loss"], tolerance)
        same(torch.autograd.grad(loss, student)[0], at["grad_student"], tolerance)
        same(center.value, at["center_after"][0], tolerance)


HEADS = {
    "default": {"head_layers": 3},
    "bn_nonorm": {"head_layers": 3, "head_norm": True, "norm_last_layer": False},
    "one_layer": {"head_layers": 1},
}


@PRECISIONS
@pytest.mark.parametrize("name", HEADS)
def test_the_head_is_the_authors(golden: Golden, name: str, dtype: torch.dtype, tolerance: float) -> None:
    case = {k: v.to(dtype) for k, v in part(golden("dino_head"), f"{name}/").items()}
    head = Head(12, DINOParams(prototypes=20, hidden=14, bottleneck=8, **HEADS[name])).to(dtype)  # type: ignore[arg-type]
    rename = {"mlp.weight": "mlp.0.weight", "mlp.bias": "mlp.0.bias"}
    state = {rename.get(k, k): v for k, v in part(case, "state/").items() if "running" not in k and "num_" not in k}
    head.load_state_dict(state, strict=not HEADS[name].get("head_norm"))
    x = case["x"].requires_grad_()
    y = head(x)
    y.backward(case["cotangent"])
    same(y, case["y"], tolerance)
    same(x.grad, case["grad_x"], tolerance)
    gradients = {rename.get(k, k): v for k, v in part(case, "grad/").items()}
    own = {k: p.grad for k, p in head.named_parameters() if p.grad is not None}
    assert own.keys() == gradients.keys() and len(own) >= 3
    largest = max(float(g.abs().max()) for g in gradients.values())
    for key, gradient in gradients.items():
        # Before a batch norm a bias has no gradient but rounding: measured against the largest of all.
        torch.testing.assert_close(own[key], gradient, rtol=0, atol=tolerance * largest)
    assert head.last_layer.weight_g.requires_grad == bool(case["weight_g_requires_grad"])


def test_the_head_begins_as_the_authors() -> None:
    torch.manual_seed(0)
    head = Head(256, DINOParams(prototypes=512, hidden=256, bottleneck=128))
    for layer in head.mlp:
        if isinstance(layer, nn.Linear):
            assert abs(float(layer.weight.detach().std()) / 0.02 - 1) < 0.05
            assert not layer.bias.any()
    assert (head.last_layer.weight_g == 1).all()
    assert abs(float(head.last_layer.weight_v.detach().std()) / (128**-0.5 / 3**0.5) - 1) < 0.05, "a Linear's own start"


def tiny_vit() -> Backbone:
    """The authors' vision transformer at 16 x 3 x 2: width, depth, heads."""
    vit = VisionTransformer(
        img_size=32, patch_size=8, embed_dim=16, depth=3, num_heads=2, mlp_ratio=2, num_classes=0, dynamic_img_size=True
    )
    return Backbone(vit, 32, position="dino")


def official_name(name: str) -> str:
    return name.removeprefix("student.").removeprefix("teacher.net.").replace("backbone.net.", "backbone.")


@pytest.mark.parametrize("norm_last_layer", [True, False])
@pytest.mark.parametrize("arch", ["vit", "resnet18"])
def test_parameter_groups_are_the_authors(arch: str, norm_last_layer: bool) -> None:
    path = Path(__file__).parents[1] / "golden" / "dino_param_groups.json"
    expected = json.loads(path.read_text())[f"{arch}.norm_last_layer_{norm_last_layer}"]
    backbone = tiny_vit() if arch == "vit" else build_backbone(BackboneSpec(arch=arch), 224)
    params = DINOParams(prototypes=20, hidden=14, bottleneck=8, norm_last_layer=norm_last_layer)
    decay, rest = DINO(params, backbone, Context(100, 4)).groups()
    assert decay.decay and not rest.decay and not rest.adapt
    assert [official_name(name) for name, _ in decay.params] == expected["regularized"]
    assert [official_name(name) for name, _ in rest.params] == expected["not_regularized"]


def trace_method(case: dict[str, Tensor], norm_last_layer: bool, dtype: torch.dtype) -> DINO:
    params = DINOParams(
        prototypes=24,
        hidden=20,
        bottleneck=8,
        norm_last_layer=norm_last_layer,
        momentum=cosine(0.9, 1.0),
        teacher_temperature=WARM,
    )
    method = DINO(params, tiny_vit(), Context(9, 3)).to(dtype)
    init = part(case, "init/student/")
    for net in (method.student, method.teacher.net):
        net.load_state_dict({name: init[official_name(name)] for name in net.state_dict()})
    return method


@PRECISIONS
@pytest.mark.parametrize("kind", ["freelast", "normlast"])
def test_training_is_the_authors(
    golden: Golden, trainer: Callable[..., Any], kind: str, dtype: torch.dtype, tolerance: float
) -> None:
    case = {k: v.to(dtype) for k, v in golden(f"dino_train_trace_{kind}").items()}
    method = trace_method(case, kind == "normlast", dtype)
    lr, decay = Schedule(base=0.002, end=1e-5, warmup_epochs=1), cosine(0.04, 0.4)
    train = trainer(method, OptimSpec(name="adamw", clip=0.3, clip_each=True), lr, decay)
    for index in range(6):
        step = Step(index, 6, 3)
        for schedule, name in [(lr, "lr"), (decay, "wd"), (method.params.momentum, "momentum")]:
            assert schedule.at(step) == pytest.approx(float(case[f"{name}_schedule"][index]), rel=1e-6)
        crops = [case[f"ep{index // 3}/it{index % 3}/crop{i}"] for i in range(4)]
        output = train.step(Views(crops[:2], crops[2:], torch.arange(3)), step)
        same(output.loss, case["losses"][index], tolerance, f"loss {index}")
        if index % 3 == 2:
            after = part(case, f"ep{index // 3}/")
            same(method.center.value, after["center"][0], tolerance, "centre")
            for who, net in (("student", method.student), ("teacher", method.teacher.net)):
                for name, value in net.state_dict().items():
                    expected = after[f"{who}/{official_name(name)}"]
                    if name.endswith("qkv.bias") and dtype == torch.float32:
                        # Softmax ignores a bias of the keys: its gradient is rounding, which Adam makes into steps.
                        value, expected = (torch.cat([x[:16], x[32:]]) for x in (value, expected))
                    same(value, expected, tolerance, f"{who} {name} after {index}")


def test_the_last_layer_is_frozen_for_its_epochs(
    net: Callable[[], Any], random_views: Callable[..., Views], trainer: Callable[..., Any]
) -> None:
    params = DINOParams(prototypes=12, hidden=8, bottleneck=4, norm_last_layer=False, freeze_last_layer_epochs=1)
    method = DINO(params, net(), Context(100, 6))
    train = trainer(method, OptimSpec(name="adamw", lr=0.01), cosine(0.01, 0.0), cosine(0.04, 0.4))
    last = method.student.head.last_layer
    moved = []
    for index in range(4):
        before = [p.detach().clone() for p in last.parameters()]
        train.step(random_views((2, 16), (2, 8), seed=index), Step(index, 8, 2))
        moved.append([not torch.equal(p, old) for p, old in zip(last.parameters(), before, strict=True)])
    assert moved == [[False, False], [False, False], [True, True], [True, True]]


def test_the_centre_moves_after_it_was_used(net: Callable[[], Any], random_views: Callable[..., Views]) -> None:
    method = DINO(DINOParams(prototypes=12, hidden=8, bottleneck=4, center_momentum=0.5), net(), Context(100, 6))
    views = random_views((2, 16))
    t = method.teacher(torch.cat(views.globals)).unflatten(0, (2, -1))
    s = method.student(torch.cat(views.globals)).unflatten(0, (2, -1))
    uncentred = swapped_cross_entropy((t / 0.04).softmax(-1), s, 0.1)
    torch.testing.assert_close(method(views, Step(0, 8, 2)).loss, uncentred)
    torch.testing.assert_close(method.center.value, 0.5 * t.mean((0, 1)))
    assert not torch.allclose(method(views, Step(1, 8, 2)).loss, uncentred)

    without = DINO(DINOParams(prototypes=12, hidden=8, bottleneck=4, center_momentum=1), net(), Context(100, 6))
    without(views, Step(0, 8, 2))
    assert not without.center.value.any()


def test_only_the_student_drops_paths() -> None:
    backbone = build_backbone(BackboneSpec(arch="vit_tiny_patch16_224", drop_path=0.5, args={"depth": 3}), 48)
    method = DINO(DINOParams(prototypes=12, hidden=8, bottleneck=4), backbone, Context(100, 6)).train()
    x = torch.randn(16, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    twice = [method.teacher(x) for _ in range(2)]
    assert torch.equal(*twice), "a teacher sees its images whole"
    assert not torch.equal(method.student(x), method.student(x))
    probabilities = [m.drop_prob for m in method.student.modules() if isinstance(m, timm.layers.DropPath)]
    assert max(probabilities) == pytest.approx(0.5)


def test_evaluation_takes_the_teacher(net: Callable[[], Any]) -> None:
    method = DINO(DINOParams(prototypes=12, hidden=8, bottleneck=4), net(), Context(100, 6))
    assert method.encoder() is method.teacher.net.backbone
    assert not any(p.requires_grad for p in method.encoder().parameters())
