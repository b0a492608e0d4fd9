"""SimSiam against the authors' loss and three steps of their module; its pairs and each of the paper's ablations.

Golden: facebookresearch/simsiam, simsiam/builder.py and main_simsiam.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sslctl.layers.losses import mean_cosines, mean_of_others
from sslctl.layers.precision import unit
from sslctl.methods.base import Context, Views
from sslctl.methods.simsiam import SimSiam, SimSiamParams
from sslctl.schedule import Step, constant
from sslctl.spec.schema import OptimSpec

from .compare import Tiny, load, part, same, same_gradients

PRECISIONS = pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
Golden = Callable[[str], dict[str, Tensor]]


def make(net: Any, **params: Any) -> SimSiam:
    torch.manual_seed(0)
    return SimSiam(SimSiamParams(out=10, bottleneck=6, **params), net(), Context(100, 6))


@PRECISIONS
def test_loss_and_gradient_are_the_authors(golden: Golden, dtype: torch.dtype) -> None:
    case = {k: v.to(dtype) for k, v in part(golden("simsiam"), "fn/").items()}
    p, z = (torch.stack([case[f"{x}1"], case[f"{x}2"]]).requires_grad_() for x in "pz")
    loss = -mean_of_others(mean_cosines(z.detach(), p))
    same(loss, case["loss"])
    (gradient,) = torch.autograd.grad(loss, p)
    same(gradient[0], case["grad_p1"])
    same(gradient[1], case["grad_p2"])


@PRECISIONS
def test_training_is_the_authors(golden: Golden, trainer: Callable[..., Any], dtype: torch.dtype) -> None:
    case = {k: v.to(dtype) if v.is_floating_point() else v for k, v in part(golden("simsiam"), "model/").items()}
    method = make(Tiny).to(dtype)
    load(method.student, part(case, "init/encoder."), "fc")
    method.predictor.load_state_dict(part(case, "init/predictor."))

    def name(key: str) -> str:
        return key.replace("student.backbone.", "encoder.").replace("student.head.", "encoder.fc.")

    train = trainer(method, OptimSpec(name="sgd", momentum=0.9), constant(0.05), constant(1e-4))
    for i in range(3):
        at = part(case, f"step{i}/")
        output = train.step(Views([at["x1"], at["x2"]], [], torch.arange(6)), Step(i, 3, 1))
        same(output.loss, at["loss"], f"loss {i}")
        same(output.embedding, at["z1"], f"z {i}")
        names = {key: name(key) for key, p in method.named_parameters()}
        same_gradients(method, part(at, "grad/"), names, f"step {i}")
    for key, value in method.state_dict().items():
        same(value.to(dtype), case[f"final/{name(key)}"].to(dtype), key)


def two_way(method: SimSiam, views: Views) -> tuple[list[Tensor], list[Tensor]]:
    z = [method.student(x) for x in views.all]
    return z, [method.predictor(x) for x in z]


def doubled(views: Views) -> Views:
    return Views([x.double() for x in views.globals], [x.double() for x in views.locals], views.index)


@pytest.mark.parametrize(("globals", "locals"), [(2, 0), (2, 2), (1, 3), (3, 1)])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("similarity", ["cosine", "cross-entropy"])
def test_pairs_and_similarities_are_as_documented(
    net: Callable[[], Any],
    random_views: Callable[..., Views],
    globals: int,
    locals: int,
    symmetric: bool,
    similarity: str,
) -> None:
    method = make(net, symmetric=symmetric, similarity=similarity).double()
    views = doubled(random_views((globals, 16), (locals, 8)))
    z, p = two_way(method, views)

    def distance(prediction: Tensor, target: Tensor) -> Tensor:
        if similarity == "cosine":
            return -(unit(prediction) * unit(target)).sum(1).mean()
        return -(target.softmax(1) * prediction.log_softmax(1)).sum(1).mean()

    targets = range(globals) if symmetric else [globals - 1]
    pairs = [distance(p[v], z[t]) for t in targets for v in range(globals + locals) if v != t]
    torch.testing.assert_close(method(views, Step(0, 4, 2)).loss, torch.stack(pairs).mean(), rtol=1e-9, atol=0)


def test_the_gradient_is_stopped_unless_told_otherwise(
    net: Callable[[], Any], random_views: Callable[..., Views]
) -> None:
    """Predicting nothing (no predictor), asymmetric: without the stop the target view has gradient, with it none."""
    views = random_views((2, 16))
    for view in views.globals:
        view.requires_grad_()
    for stop in (True, False):
        method = make(net, symmetric=False, predictor="none", stop_gradient=stop)
        gradients = torch.autograd.grad(method(views, Step(0, 4, 2)).loss, views.globals, allow_unused=True)
        assert gradients[0] is not None and (gradients[1] is None or not gradients[1].any()) == stop


@pytest.mark.parametrize(
    ("norm", "projector", "predictor"),
    [
        ("default", ["BN", "BN", "bn"], ["BN"]),
        ("hidden", ["BN", "BN"], ["BN"]),
        ("all", ["BN", "BN", "bn"], ["BN", "bn"]),
        ("none", [], []),
    ],
)
def test_batch_norm_is_where_the_paper_has_it(
    net: Callable[[], Any], norm: str, projector: list[str], predictor: list[str]
) -> None:
    def norms(head: nn.Module) -> list[str]:
        return ["BN" if m.affine else "bn" for m in head.modules() if isinstance(m, nn.BatchNorm1d)]

    method = make(net, head_norm=norm)
    assert norms(method.student.head) == projector and norms(method.predictor) == predictor
    last = [m for m in method.student.head if isinstance(m, nn.Linear)][-1]
    assert last.bias is not None and last.bias.requires_grad == (norm in ("hidden", "none"))


def test_a_fixed_predictor_stays_as_drawn(
    net: Callable[[], Any], random_views: Callable[..., Views], trainer: Callable[..., Any]
) -> None:
    method = make(net, predictor="fixed")
    before = method.predictor[0].weight.clone()  # type: ignore[index]
    trainer(method, OptimSpec(name="sgd"), constant(0.1)).step(random_views((2, 16)), Step(0, 4, 2))
    assert torch.equal(method.predictor[0].weight, before)  # type: ignore[index]


@pytest.mark.parametrize("decay", [False, True])
def test_the_predictors_rate_is_constant_unless_told_otherwise(net: Callable[[], Any], decay: bool) -> None:
    rest, predictor = make(net, decay_predictor_lr=decay).groups()
    assert rest.scheduled and predictor.scheduled == decay and rest.decay and predictor.decay
    assert predictor.params and all(name.startswith("predictor.") for name, _ in predictor.params)


def test_targets_of_k_steps_come_from_the_weights_before_them(
    net: Callable[[], Any], random_views: Callable[..., Views], trainer: Callable[..., Any]
) -> None:
    """Alternation: with k = 1 plain SimSiam; with k = 2 steps 1, 3 … use the weights from before step 0, 2 …"""
    once, twice, plain = (make(net, alternation=k) for k in (1, 2, 1))
    assert not hasattr(once, "teacher")
    train = trainer(twice, OptimSpec(name="sgd"), constant(0.2))
    old: dict[int, Tensor] = {}
    for index in range(4):
        views = random_views((2, 16), seed=index)
        old[index] = twice.student.head[0].weight.detach().clone()
        assert torch.equal(twice.teacher.net.head[0].weight, old[index - index % 2]), index
        if index == 0:
            torch.testing.assert_close(twice(views, Step(0, 4, 2)).loss, plain(views, Step(0, 4, 2)).loss)
        train.step(views, Step(index, 4, 2))
    assert not torch.equal(old[1], old[2])


def test_the_output_spreads_and_collapse_shows(net: Callable[[], Any], random_views: Callable[..., Views]) -> None:
    method = make(net)
    spread = method(random_views((2, 16)), Step(0, 4, 2)).logs["output_std"]
    assert 0.3 < float(spread) < 1.2, "of unit vectors, times the root of their width"
    nn.init.zeros_(method.student.head[-2].weight)
    assert float(method(random_views((2, 16)), Step(0, 4, 2)).logs["output_std"]) < 1e-3
