"""Batch norm over processes: on one it is torch's, value, gradient and running statistics; names of weights stay."""

from __future__ import annotations

import copy

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from sslctl.layers.batch_norm import SharedBatchNorm, share_statistics


def norms() -> list[nn.Module]:
    torch.manual_seed(0)
    made: list[nn.Module] = [
        nn.BatchNorm2d(5),
        nn.BatchNorm2d(5, momentum=None, eps=1e-3),
        nn.BatchNorm2d(5, affine=False),
        nn.BatchNorm2d(5, track_running_stats=False),
        BatchNormAct2d(5, act_layer=nn.SiLU),
    ]
    for norm in made:
        for p in norm.parameters():
            nn.init.uniform_(p, 0.5, 2)
    return made


@pytest.mark.parametrize("which", range(5))
def test_on_one_process_it_is_torchs(which: int) -> None:
    plain = nn.Sequential(norms()[which]).double()
    shared = copy.deepcopy(plain)
    share_statistics(shared, torch.device("cpu"))
    assert isinstance(shared[0], SharedBatchNorm) and shared.state_dict().keys() == plain.state_dict().keys()
    for training in (True, True, False):
        x = (3 * torch.randn(4, 5, 6, 7, dtype=torch.float64) + 1).requires_grad_()
        weight = torch.randn(4, 5, 6, 7, dtype=torch.float64)
        found = []
        for net in (plain, shared):
            out = net.train(training)(x)
            found.append([out, *torch.autograd.grad((out * weight).sum(), [x, *net.parameters()])])
        torch.testing.assert_close(found[1], found[0], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(dict(shared.named_buffers()), dict(plain.named_buffers()), rtol=1e-12, atol=0)


def test_half_precision_comes_out_as_it_went_in_and_is_computed_in_full() -> None:
    x = 1000 + torch.randn(64, 5, 4, 4)
    net = nn.Sequential(nn.BatchNorm2d(5))
    share_statistics(net, torch.device("cpu"))
    out = net(x.bfloat16())
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), nn.BatchNorm2d(5)(x.bfloat16().float()), rtol=0.01, atol=0.01)


def test_on_cuda_it_is_torchs_for_that_and_every_name_stays() -> None:
    nets = [nn.Sequential(nn.Conv2d(3, 5, 1), nn.Sequential(norm), nn.Linear(2, 2)) for norm in norms()]
    for net in nets:
        before = {key: value.clone() for key, value in net.state_dict().items()}
        share_statistics(net, torch.device("cuda"))
        found = [m for m in net.modules() if isinstance(m, _BatchNorm)]
        assert len(found) == 1 and isinstance(found[0], nn.SyncBatchNorm)
        assert net.state_dict().keys() == before.keys()
        assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
