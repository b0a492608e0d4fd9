"""MoCo v1 and v2 against four steps of the authors' module; its pairs, queue and shuffling; its end-to-end kin.

Golden: facebookresearch/moco, moco/builder.py, on one process.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sslctl.backbones import build_backbone
from sslctl.layers.encoder import Encoder, encode, encode_in_groups, encode_shuffled
from sslctl.layers.heads import mlp
from sslctl.methods.base import Context, Views
from sslctl.methods.moco import MoCo, MoCoParams, MoCoV2, MoCoV2Params
from sslctl.schedule import Step, constant
from sslctl.spec.schema import BackboneSpec, OptimSpec

from .compare import Tiny, load, official, part, same, same_gradients

PRECISIONS = pytest.mark.parametrize("dtype", [torch.float64, torch.float32])


Golden = Callable[[str], dict[str, Tensor]]


@PRECISIONS
@pytest.mark.parametrize(("version", "cls"), [("moco_v1", MoCo), ("moco_v2", MoCoV2)])
def test_training_is_the_authors(
    golden: Golden, trainer: Callable[..., Any], version: str, cls: type[MoCo], dtype: torch.dtype
) -> None:
    case = {k: v.to(dtype) if v.is_floating_point() else v for k, v in golden(version).items()}
    params = cls.Params(out=8, queue=12, momentum=constant(0.9), norm_groups=1)  # type: ignore[call-arg]
    method = cls(params, Tiny(), Context(1000, 4)).to(dtype)  # type: ignore[arg-type]
    assert params.temperature == {"moco_v1": 0.07, "moco_v2": 0.2}[version]
    query = part(case, "init/encoder_q.")
    for net in (method.student, method.teacher.encoder):
        load(net, query, "fc")
    method.queue.keys.copy_(case["init/queue"].T)
    names = {f"student.{k}": official(k, query, "fc") for k in method.student.state_dict()}

    spec = OptimSpec(name="sgd", momentum=0.9)
    train = trainer(method, spec, constant(0.03), constant(1e-4))
    for i in range(4):
        at = part(case, f"step{i}/")
        for key, value in method.teacher.encoder.named_parameters():
            same(value, at[f"encoder_k/{official(key, query, 'fc')}"], f"teacher {key} {i}")
        output = train.step(Views([at["im_q"], at["im_k"]], [], torch.arange(4)), Step(i, 4, 1))
        same(output.loss, at["loss"], f"loss {i}")
        same(output.embedding, at["q_normalised"], f"embedding {i}")
        same_gradients(method, part(at, "grad/"), names, f"step {i}")
        same(method.queue.keys.T, at["queue_after"], f"queue {i}")
        assert int(method.queue.pointer) == int(at["ptr_after"])
    for key, value in method.student.state_dict().items():
        same(value.to(dtype), case[f"final/encoder_q.{official(key, query, 'fc')}"].to(dtype), f"student {key}")
    for key, value in method.teacher.encoder.named_buffers():
        same(value.to(dtype), case[f"final/encoder_k.{official(key, query, 'fc')}"].to(dtype), f"statistics {key}")


def pair_loss(q: Tensor, k: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """The authors' lines for one query view and one key view: cross-entropy of [q.k | q.queue] against 0."""
    logits = torch.cat([(q * k).sum(1, keepdim=True), q @ queue.T], 1) / temperature
    return nn.functional.cross_entropy(logits, torch.zeros(len(q), dtype=torch.long))


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize(("globals", "locals"), [(2, 0), (2, 3), (3, 1), (1, 2)])
def test_pairs_are_as_documented(
    net: Callable[[], Any], random_views: Callable[..., Views], globals: int, locals: int, symmetric: bool
) -> None:
    params = MoCoV2Params(out=5, queue=9, symmetric=symmetric, norm_groups=1)
    method = MoCoV2(params, net(), Context(1000, 6)).double().eval()
    views = random_views((globals, 16), (locals, 8))
    views = Views([x.double() for x in views.globals], [x.double() for x in views.locals], views.index)
    queue = method.queue.keys.clone()
    q, k = (
        nn.functional.normalize(torch.stack([f(x) for x in views.all]), dim=-1)
        for f in (method.student, method.teacher)
    )
    keys = range(globals) if symmetric else [globals - 1]
    queries = range(globals + locals) if symmetric else [v for v in range(globals + locals) if v != globals - 1]
    expected = sum(torch.stack([pair_loss(q[v], k[t], queue, 0.2) for v in queries if v != t]).mean() for t in keys)
    output = method(views, Step(0, 4, 2))
    torch.testing.assert_close(output.loss, expected, rtol=1e-9, atol=0)
    pushed = torch.cat([k[t] for t in keys])[-9:]
    order = (torch.arange(len(pushed)) + (len(keys) * 6 - len(pushed))) % 9
    if len(keys) == 1:
        torch.testing.assert_close(method.queue.keys[order], pushed)


def test_the_queue_is_no_longer_than_the_set(net: Callable[[], Any]) -> None:
    assert len(MoCo(MoCoParams(out=5), net(), Context(50, 6)).queue.keys) == 50
    assert len(MoCo(MoCoParams(out=5, queue=40), net(), Context(50, 6)).queue.keys) == 40


def pass_for_each_group(net: Encoder, views: Sequence[Tensor], parts: int) -> tuple[Tensor, Tensor]:
    """Features and embeddings of ``parts`` of the images, each encoded by itself, as on so many GPUs."""
    h, z = zip(*(encode(net, part) for part in zip(*(view.chunk(parts) for view in views), strict=True)), strict=True)
    return torch.cat(h, 1), torch.cat(z, 1)


@pytest.mark.parametrize(("images", "group", "parts"), [(8, 8, 1), (10, 3, 3), (8, 1, 4)])
@pytest.mark.parametrize("locals", [0, 1])
@pytest.mark.parametrize("arch", ["resnet18", "regnetx_002"])  # torch's batch norm; timm's, with activation
def test_groups_in_one_pass_are_a_pass_for_each(
    random_views: Callable[..., Views], arch: str, locals: int, images: int, group: int, parts: int
) -> None:
    narrow = {"channels": [8, 8, 16, 16], "layers": [1, 1, 1, 1]} if arch == "resnet18" else {}
    backbone = build_backbone(BackboneSpec(arch=arch, args=narrow), 32)
    nets = [Encoder(backbone, mlp(backbone.dim, 6, 5)).double().train()]
    nets.append(copy.deepcopy(nets[0]))
    whole = copy.deepcopy(nets[0])
    views = [view.double() for view in random_views((2, 32), (locals, 16), images).all]
    for step in range(2):
        outputs = encode_in_groups(nets[0], views, group), pass_for_each_group(nets[1], views, parts)
        found = []
        for net, (h, z) in zip(nets, outputs, strict=True):
            loss = (h.square() * torch.linspace(step, 1, h.numel()).view_as(h)).mean() + z.sigmoid().mean()
            found.append([h, z, *torch.autograd.grad(loss, list(net.parameters()))])
        torch.testing.assert_close(found[0], found[1], rtol=1e-7, atol=1e-11)
    assert torch.allclose(found[0][0], encode(whole, views)[0]) == (parts == 1), "groups tell the difference"
    for (name, mine), theirs in zip(nets[0].named_buffers(), nets[1].buffers(), strict=True):
        if not name.endswith("num_batches_tracked"):  # counts passes
            torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)


def test_shuffling_changes_the_company_and_not_the_order(
    net: Callable[[], Any], random_views: Callable[..., Views]
) -> None:
    encoder = Encoder(net(), nn.Linear(8, 5)).double()
    views = [x.double() for x in random_views((2, 16), images=8).globals]
    order = torch.tensor([3, 0, 6, 5, 7, 1, 2, 4])
    z = encode_shuffled(encoder, views, 4, order)
    for company in (order[:4], order[4:]):
        torch.testing.assert_close(z[:, company], encode(encoder, [x[company] for x in views])[1])
    encoder.eval()
    torch.testing.assert_close(encode_shuffled(encoder, views, 4, order), encode(encoder, views)[1])


def test_companies_change_from_step_to_step_and_with_the_seed(
    net: Callable[[], Any], random_views: Callable[..., Views]
) -> None:
    def loss(seed: int, index: int) -> float:
        torch.manual_seed(0)
        method = MoCo(MoCoParams(out=5, queue=9, norm_groups=2), net(), Context(1000, 6))
        return float(method(random_views((2, 16)), Step(index, 4, 2, seed)).loss.detach())

    assert loss(0, 1) == loss(0, 1)
    assert len({loss(0, 1), loss(0, 2), loss(1, 1)}) == 3


def test_everything_decays(net: Callable[[], Any]) -> None:
    (group,) = MoCo(MoCoParams(out=5, queue=9), net(), Context(1000, 6)).groups()
    assert group.decay and {"student.head.0.bias", "student.backbone.net.1.weight"} <= {
        name for name, _ in group.params
    }
