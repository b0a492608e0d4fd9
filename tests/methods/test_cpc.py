"""CPC: the contrast against a reference computation, patches, and directions of prediction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from sslctl.errors import SpecError
from sslctl.layers.losses import info_nce_below
from sslctl.methods.base import Context, Views
from sslctl.methods.cpc import CPC, ContextNetwork, CPCParams, jitter_patches
from sslctl.schedule import Step

from .compare import same

Golden = Callable[[str], dict[str, Tensor]]


STEP = Step(3, 10, 5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_cpcs_contrast_is_the_reference(golden: Golden, dtype: torch.dtype) -> None:
    case = {k: v.to(dtype) for k, v in golden("cpc_reference").items()}
    z, context = case["z"].requires_grad_(), case["context"].requires_grad_()
    losses = [info_nce_below(context @ case["W"][k - 1], z, k) for k in (2, 3)]
    same(torch.stack(losses), case["loss_per_k"])
    same(sum(losses), case["loss"])  # type: ignore[arg-type]
    gradients = torch.autograd.grad(sum(losses), [z, context])  # type: ignore[arg-type]
    same(gradients[0], case["grad_z"])
    same(gradients[1], case["grad_context"])


def test_a_context_sees_its_row_and_those_above() -> None:
    torch.manual_seed(0)
    params = CPCParams(grid=5, first_step=1, last_step=2, layers=2, hidden=6, out=4)
    context = ContextNetwork(3, params).double()
    h = torch.randn(1, 5, 5, 3, dtype=torch.float64, requires_grad=True)
    out = context(h)  # (2, 1, 5, 5, 4)
    (gradient,) = torch.autograd.grad(out[:, 0, 2, 2].sum(), h)
    seen = gradient[0].abs().sum(-1) > 0
    assert not seen[3:].any(), "nothing below"
    assert seen[2, 2] and seen[1].any() and seen[0].any(), "two layers see two rows up"


def cpc(net: Any, **params: Any) -> CPC:
    torch.manual_seed(0)
    sizes = {"grid": 3, "patch": 0.5, "first_step": 1, "last_step": 2, "layers": 1, "hidden": 6, "out": 4}
    return CPC(CPCParams(**{**sizes, **params}), net(), Context(100, 6))


def test_patches_are_evenly_spaced_from_edge_to_edge(net: Callable[[], Any]) -> None:
    view = torch.arange(256.0).expand(1, 1, 256, 256)
    patches = cpc(net, grid=7, patch=0.25).cut(view)
    assert len(patches) == 49 and patches[0].shape[-2:] == (64, 64)
    assert [p[0, 0, 0, 0].item() for p in patches[:7]] == [32.0 * i for i in range(7)], "version 1's grid"
    second = cpc(net, grid=6, patch=80 / 260).cut(torch.arange(260.0).expand(1, 1, 260, 260))
    assert [p[0, 0, 0, 0].item() for p in second[:6]] == [36.0 * i for i in range(6)], "version 2's grid"


@pytest.mark.parametrize("directions", [1, 4])
def test_cpc_predicts_from_each_side(
    net: Callable[[], Any], random_views: Callable[..., Views], directions: int
) -> None:
    method = cpc(net, directions=directions).eval()
    (view,) = random_views((1, 16)).globals
    h = torch.stack([method.student.backbone(x).pooled for x in method.cut(view)], 1).view(6, 3, 3, -1)
    each = []
    for turn in range(directions):
        features = torch.rot90(h, turn, (1, 2))
        below = method.contexts[turn](features)
        targets = method.student.head(features)
        each.append(sum(info_nce_below(0.1 * below[k - 1], targets, k) for k in (1, 2)))
    loss = method(Views([view], [], torch.arange(6)), STEP).loss
    torch.testing.assert_close(loss, torch.stack(each).mean())  # type: ignore[arg-type]


def test_each_patch_gets_a_colour_of_its_own_and_keeps_its_content(random_views: Callable[..., Views]) -> None:
    (view,) = random_views((1, 16)).globals
    done = jitter_patches([view, view], 1.0, STEP)
    assert all(torch.equal(x, y) for x, y in zip(done, jitter_patches([view, view], 1.0, STEP), strict=True))
    contrasts = []
    for x in done:
        assert x.shape == view.shape and torch.equal(x[:, 0], x[:, 2])
        for image, original in zip(x[:, 0].flatten(1), view.flatten(2), strict=True):
            likeness = [torch.corrcoef(torch.stack([image, channel]))[0, 1].item() for channel in original]
            assert max(likeness) == pytest.approx(1, abs=1e-4), "one of the channels, at another contrast"
            channel = original[likeness.index(max(likeness))]
            contrasts.append((image.std() / channel.std()).item())
            assert abs(image.mean() - channel.mean()) <= 1.5
    assert 0.4 <= min(contrasts) < 0.8 and 1.2 < max(contrasts) <= 1.6
    assert not torch.equal(*done)


def test_steps_beyond_the_grid_are_refused(net: Callable[[], Any]) -> None:
    with pytest.raises(SpecError, match="steps 1 to 3 do not fit a grid of 3"):
        cpc(net, last_step=3)
