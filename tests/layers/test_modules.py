"""The parts that objectives share: heads, one pass over many views, teachers, queues, centres, Sinkhorn, losses."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from sslctl.layers.buffers import Center, Queue
from sslctl.layers.clusters import sinkhorn, target_logs
from sslctl.layers.encoder import Encoder, encode
from sslctl.layers.heads import WeightNormed, mlp
from sslctl.layers.losses import swapped_cross_entropy
from sslctl.layers.precision import full_precision, unit
from sslctl.layers.teacher import EMA
from sslctl.schedule import Step

from ..stubs import StubBackbone

GOLDEN = Path(__file__).parents[1] / "golden"


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def shape_of(head: nn.Sequential) -> list[str]:
    """One word a layer: L+/L- with or without bias, BN with scale and shift, bn without, and activations."""
    words = []
    for layer in head:
        if isinstance(layer, nn.Linear):
            words.append(f"L{layer.in_features}>{layer.out_features}{'+' if layer.bias is not None else '-'}")
        elif isinstance(layer, nn.BatchNorm1d):
            words.append("BN" if layer.affine else "bn")
        else:
            words.append(type(layer).__name__)
    return words


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (mlp(4, 5, 6, bias=True), "L4>5+ BN ReLU L5>6+"),  # SwAV
        (mlp(4, 5, 6, bias=True, last_bias=False), "L4>5+ BN ReLU L5>6-"),  # BYOL
        (mlp(4, 5, 6, last_norm=True), "L4>5- BN ReLU L5>6- bn"),  # MoCo v3
        (mlp(4, 5, 6, last_bias=False), "L4>5- BN ReLU L5>6-"),  # Barlow Twins
        (mlp(4, 5, 6, 7, last_norm=True, last_bias=True), "L4>5- BN ReLU L5>6- BN ReLU L6>7+ bn"),  # SimSiam
        (mlp(4, 5, 6, norm=None, bias=True, activation=nn.GELU), "L4>5+ GELU L5>6+"),  # DINO
        (mlp(4, 6), "L4>6+"),  # MoCo v1
    ],
)
def test_heads_are_built_as_asked(head: nn.Sequential, words: str) -> None:
    assert shape_of(head) == words.split()


class Spy(StubBackbone):
    """A backbone that remembers the batches it saw: mean and largest of the pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, ...]] = []

    def pool(self, x: Tensor) -> Tensor:
        self.seen.append(tuple(x.shape))
        return torch.stack([x.mean((1, 2, 3)), x.amax((1, 2, 3))], 1)


def test_views_of_one_size_go_together_and_come_back_in_order() -> None:
    views = [randn(3, 3, size, size, seed=i) for i, size in enumerate([8, 8, 4, 4, 4])]
    head = nn.Linear(2, 5).double()
    spy = Spy()
    h, z = encode(Encoder(spy, head), views)
    assert spy.seen == [(6, 3, 8, 8), (9, 3, 4, 4)]
    for i, view in enumerate(views):
        torch.testing.assert_close(h[i], Spy().pool(view))
        torch.testing.assert_close(z[i], head(Spy().pool(view)))


def test_the_head_sees_all_views_at_once() -> None:
    views = [randn(4, 3, 8, 8, seed=1), randn(4, 3, 4, 4, seed=2)]
    head = nn.Sequential(nn.BatchNorm1d(2)).double()
    _, z = encode(Encoder(Spy(), head), views)
    torch.testing.assert_close(z.flatten(0, 1).mean(0), torch.zeros(2, dtype=torch.float64), atol=1e-12, rtol=0)
    assert z[0].mean(0).abs().max() > 1e-3, "each view by itself is not centred"


def test_weight_normed_is_torchs_and_copies() -> None:
    layer = WeightNormed(4, 6).double()
    assert layer.weight_v.abs().max() <= 1 / math.sqrt(4), "as a Linear begins"
    torch.nn.init.uniform_(layer.weight_g, 0.5, 2.0)
    theirs = torch.nn.utils.parametrizations.weight_norm(nn.Linear(4, 6, bias=False).double())
    theirs.parametrizations.weight.original0.data.copy_(layer.weight_g.data)
    theirs.parametrizations.weight.original1.data.copy_(layer.weight_v.data)
    x = randn(3, 4)
    torch.testing.assert_close(layer(x), theirs(x), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(copy.deepcopy(layer)(x), layer(x), rtol=0, atol=0)
    assert set(layer.state_dict()) == {"weight_g", "weight_v"}


class Line(StubBackbone):
    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(3, 3)

    def pool(self, x: Tensor) -> Tensor:
        out: Tensor = self.line(x)
        return out


def test_a_teacher_follows_parameters_and_leaves_buffers() -> None:
    student = Encoder(Line(), nn.BatchNorm1d(3)).double()
    teacher = EMA(student)
    before = {k: v.clone() for k, v in teacher.net.state_dict().items()}
    with torch.no_grad():
        for p in student.parameters():
            p.add_(1.0)
    student(randn(8, 3))
    teacher.update(student, 0.75)
    for name, p in teacher.net.named_parameters():
        assert not p.requires_grad
        torch.testing.assert_close(p.data, before[name] + 0.25, rtol=1e-12, atol=1e-12)
    assert torch.equal(teacher.net.head.running_mean, before["head.running_mean"])
    assert not torch.equal(teacher.net.head.running_mean, student.head.running_mean)

    teacher.update(student, 1.0)
    teacher.update(student, 0.0)
    for p, q in zip(teacher.net.parameters(), student.parameters(), strict=True):
        assert torch.equal(p, q), "momentum 0 is the student itself"


def test_a_queue_overwrites_its_oldest_keys() -> None:
    queue = Queue(5, 2)
    torch.testing.assert_close(queue.keys.norm(dim=1), torch.ones(5))
    for batch in range(3):
        queue.push(torch.full((2, 2), float(batch)))
    assert queue.keys[:, 0].tolist()[1:] == [0.0, 1.0, 1.0, 2.0] and queue.keys[0, 0] == 2.0
    assert int(queue.pointer) == 1
    ages = [float(queue.age(Step(i, 9, 9), torch.zeros(1, 2, 2))) for i in (0, 1, 2, 3)]
    assert ages == [0.0, 1.0, 2.0, 2.5]
    again = Queue(5, 2)
    again.load_state_dict(queue.state_dict())
    again.push(torch.full((1, 2), 9.0))
    assert again.keys[1, 0] == 9.0


def test_a_centre_is_a_moving_mean_also_of_half_precision() -> None:
    center = Center(3, momentum=0.9)
    x = randn(2, 4, 3, dtype=torch.float32)
    center.update(x)
    torch.testing.assert_close(center.value, 0.1 * x.mean((0, 1)))
    half = Center(3, momentum=0.0)
    many = torch.full((2, 1000, 3), 1.0).to(torch.bfloat16)
    many[:, ::2] = 1.0078125  # the next number that bfloat16 has
    half.update(many)
    torch.testing.assert_close(half.value, torch.full((3,), 1.00390625), rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("dtype", "suffix", "tolerance"), [(torch.float64, "", 1e-9), (torch.float32, "_float32", 1e-4)]
)
@pytest.mark.parametrize("case", ["eps0.05_it3", "eps0.05_it10", "eps0.03_it3", "eps0.05_it0"])
def test_sinkhorn_is_swavs(case: str, dtype: torch.dtype, suffix: str, tolerance: float) -> None:
    """Golden: ``distributed_sinkhorn`` of facebookresearch/swav, main_swav.py."""
    golden = load_file(GOLDEN / "swav_sinkhorn.safetensors")
    epsilon, _, iterations = case.removeprefix("eps").partition("_it")
    q = sinkhorn(golden["scores"].to(dtype), float(epsilon), int(iterations))
    torch.testing.assert_close(q, golden[f"{case}.q{suffix}"], rtol=tolerance, atol=0)


def test_sinkhorn_uses_prototypes_equally_and_keeps_its_range() -> None:
    scores = unit(randn(40, 8)) @ unit(randn(6, 8, seed=1)).T
    q = sinkhorn(scores, 0.05, 100)
    torch.testing.assert_close(q.sum(1), torch.ones(40, dtype=torch.float64))
    torch.testing.assert_close(q.sum(0), torch.full((6,), 40 / 6, dtype=torch.float64))
    extreme = torch.tensor([[1.0, -1.0], [-1.0, 1.0], [1.0, 1.0]], dtype=torch.float16)
    assert torch.isfinite(sinkhorn(extreme, 0.03, 3)).all()


def test_swapped_cross_entropy_is_the_mean_over_pairs_of_different_views() -> None:
    q, s = randn(2, 5, 7).softmax(-1), randn(4, 5, 7, seed=1).requires_grad_()
    by_hand = [-(q[t] * F.log_softmax(s[v] / 0.2, dim=-1)).sum(-1).mean() for t in range(2) for v in range(4) if v != t]
    expected = torch.stack(by_hand).mean()
    loss = swapped_cross_entropy(q, s, 0.2)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(*(torch.autograd.grad(x, s)[0] for x in (loss, expected)), rtol=1e-10, atol=1e-14)


def test_full_precision_leaves_autocast_and_raises_halves() -> None:
    @full_precision
    def product(x: Tensor, y: Tensor) -> Tensor:
        return x @ y

    x = randn(4, 4, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        assert (x @ x).dtype == torch.bfloat16
        assert product(x, x).dtype == torch.float32
        assert product(x.bfloat16(), x.bfloat16()).dtype == torch.float32
        assert (x @ x).dtype == torch.bfloat16
    assert product(x.double(), x.double()).dtype == torch.float64


def test_target_logs_tell_both_collapses_from_learning() -> None:
    uniform = torch.full((2, 8, 4), 0.25)
    one_hot = F.one_hot(torch.zeros(2, 8, dtype=torch.long), 4).float()
    spread = F.one_hot(torch.arange(16).reshape(2, 8) % 4, 4).float()
    logs = [{k: round(float(v), 6) for k, v in target_logs(q).items()} for q in (uniform, one_hot, spread)]
    assert [x["target_entropy"] for x in logs] == [1.0, 0.0, 0.0]
    assert [x["target_information"] for x in logs] == [0.0, 0.0, round(math.log(4), 6)]
