"""MoCo v3 against the authors' loss and three steps of their module, with ResNet's and ViT's heads; its ViT's start.

Golden: facebookresearch/moco-v3, moco/builder.py and vits.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from sslctl.backbones import build_backbone
from sslctl.backbones.positions import sincos_positions
from sslctl.layers.losses import info_nce
from sslctl.layers.precision import unit
from sslctl.methods.base import Context, Views
from sslctl.methods.moco_v3 import MoCoV3, MoCoV3Params
from sslctl.schedule import Schedule, Step, constant
from sslctl.spec.schema import BackboneSpec, OptimSpec

from .compare import Tiny, load, part, same, same_gradients

PRECISIONS = pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
Golden = Callable[[str], dict[str, Tensor]]


@PRECISIONS
@pytest.mark.parametrize("temperature", [1.0, 0.2])
def test_loss_and_gradient_are_the_authors(golden: Golden, temperature: float, dtype: torch.dtype) -> None:
    case = {k: v.to(dtype) for k, v in part(golden("mocov3"), "loss_fn/").items()}
    q = case["q"].requires_grad_()
    loss = 2 * temperature * info_nce(unit(case["k"])[None], unit(q)[None], temperature).sum()
    same(loss, case[f"t{temperature}.loss"])
    same(torch.autograd.grad(loss, q)[0], case[f"t{temperature}.grad_q"])


class Fixed(Schedule):
    """The golden trace's momentum, by the step in which the authors move their teacher; after the last they do not."""

    values: tuple[float, ...]

    def at(self, step: Step) -> float:
        return (*self.values, 1.0)[step.index]


@PRECISIONS
@pytest.mark.parametrize("kind", ["resnet", "vit"])
def test_training_is_the_authors(golden: Golden, trainer: Callable[..., Any], kind: str, dtype: torch.dtype) -> None:
    case = {k: v.to(dtype) if v.is_floating_point() else v for k, v in part(golden("mocov3"), f"{kind}/").items()}
    heads = {"head_layers": 3, "predictor_norm": True} if kind == "vit" else {}
    momentum = Fixed(base=1.0, values=tuple(float(case[f"step{i}/m"]) for i in range(3)))
    params = MoCoV3Params(hidden=12, out=8, temperature=0.2, **heads).model_copy(update={"momentum": momentum})  # type: ignore[arg-type]
    method = MoCoV3(params, Tiny(), Context(1000, 6)).to(dtype)  # type: ignore[arg-type]
    head = "head" if kind == "vit" else "fc"
    load(method.student, part(case, "init/base_encoder."), head)
    load(method.teacher.net, part(case, "init/momentum_encoder."), head)
    method.predictor.load_state_dict(part(case, "init/predictor."))

    def name(key: str) -> str:
        base = key.replace("student.backbone.", "base_encoder.").replace("student.head.", f"base_encoder.{head}.")
        return base.replace("teacher.net.backbone.", "momentum_encoder.").replace(
            "teacher.net.head.", f"momentum_encoder.{head}."
        )

    train = trainer(method, OptimSpec(name="sgd", momentum=0.0), constant(0.1))
    for i in range(3):
        at = part(case, f"step{i}/")
        output = train.step(Views([at["x1"], at["x2"]], [], torch.arange(6)), Step(i, 3, 1))
        same(output.loss, at["loss"], f"loss {i}")
        names = {key: name(key) for key, p in method.named_parameters()}
        same_gradients(method, part(at, "grad/"), names, f"step {i}")
    for key, value in method.state_dict().items():
        same(value.to(dtype), case[f"final/{name(key)}"].to(dtype), key)


def test_pairs_are_mean_over_different_views(net: Callable[[], Any], random_views: Callable[..., Views]) -> None:
    method = MoCoV3(MoCoV3Params(hidden=8, out=5, temperature=0.5), net(), Context(1000, 6)).double().eval()
    views = random_views((2, 16), (2, 8))
    views = Views([x.double() for x in views.globals], [x.double() for x in views.locals], views.index)
    q = [unit(method.predictor(method.student(x))) for x in views.all]
    k = [unit(method.teacher(x)) for x in views.globals]
    own = torch.arange(6)
    pairs = [torch.nn.functional.cross_entropy(q[v] @ k[t].T / 0.5, own) for v in range(4) for t in range(2) if v != t]
    loss = method(views, Step(0, 4, 2)).loss
    torch.testing.assert_close(loss, 2 * 0.5 * 2 * torch.stack(pairs).mean(), rtol=1e-9, atol=0)


def vit(**params: Any) -> MoCoV3:
    arch = BackboneSpec(
        arch="vit_tiny_patch16_224", args={"depth": 2, "embed_dim": 32, "patch_size": 8, "num_heads": 2}
    )
    torch.manual_seed(0)
    return MoCoV3(MoCoV3Params(hidden=16, out=8, **params), build_backbone(arch, 32), Context(1000, 6))


def test_positions_are_the_authors(golden: Golden) -> None:
    table = golden("posembed_sincos")
    torch.testing.assert_close(sincos_positions((4, 4), 16), table["mocov3"], rtol=0, atol=1e-6)
    rows, columns = table["mae"].float()[None].chunk(2, -1)
    torch.testing.assert_close(sincos_positions((4, 4), 16), torch.cat([columns, rows], -1), rtol=0, atol=1e-6)
    wide = sincos_positions((2, 3), 8)[0, 1:].view(2, 3, 8)
    assert (wide[:, 0] == wide[:, 1])[..., :4].all() and (wide[0] == wide[1])[..., 4:].all(), "rows, then columns"


def test_a_vit_begins_as_the_authors() -> None:
    net: Any = vit().student.backbone.net
    limits = {
        net.blocks[0].attn.qkv: math.sqrt(6 / (32 + 32)),  # q, k and v are matrices of their own
        net.blocks[0].attn.proj: math.sqrt(6 / (32 + 32)),
        net.blocks[1].mlp.fc1: math.sqrt(6 / (32 + 128)),
        net.patch_embed.proj: math.sqrt(6 / (3 * 8 * 8 + 32)),
    }
    for module, limit in limits.items():
        assert 0.95 * limit < float(module.weight.detach().abs().max()) <= limit
        assert abs(float(module.weight.detach().std()) * math.sqrt(3) / limit - 1) < 0.06
        assert not module.bias.any()
    assert 0 < float(net.cls_token.detach().abs().max()) < 1e-5
    torch.testing.assert_close(net.pos_embed.detach(), sincos_positions((4, 4), 32))


def test_positions_and_patches_are_frozen_and_the_teacher_has_them(
    random_views: Callable[..., Views], trainer: Callable[..., Any]
) -> None:
    method = vit(decay_all=True)
    frozen = {key: p.clone() for key, p in method.student.named_parameters() if "patch_embed" in key or "pos_" in key}
    assert len(frozen) == 3
    (group,) = method.groups()
    assert group.decay and not {f"student.{key}" for key in frozen} & {name for name, _ in group.params}
    assert "student.backbone.net.cls_token" in {name for name, _ in group.params}
    train = trainer(method, OptimSpec(name="adamw"), constant(0.01), constant(0.1))
    for index in range(2):
        train.step(random_views((2, 32), (2, 16), seed=index), Step(index, 4, 2))
    for net in (method.student, method.teacher.net):
        assert all(torch.equal(net.get_parameter(key), value) for key, value in frozen.items())
    assert vit(freeze_patches=False).student.backbone.get_parameter("net.patch_embed.proj.weight").requires_grad
