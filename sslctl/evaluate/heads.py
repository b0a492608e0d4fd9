"""Many linear classifiers on one feature, each with its own learning rate, trained together by SGD."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

Rule = Literal["sgd", "nesterov", "larc"]


class Heads:
    """Classifiers (L, C, d) of features (B, d), one for each of L learning rates, beginning alike.

    All logits are one matrix product and all gradients another, so that L rates cost little more than one. Each head
    ends where it would by itself: they share nothing but the images.
    """

    def __init__(
        self,
        width: int,
        classes: int,
        rates: Sequence[float],
        *,
        rule: Rule = "sgd",
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        std: float = 0.01,
        seed: int = 0,
        device: torch.device | None = None,
    ) -> None:
        one = std * torch.randn(classes, width, generator=torch.Generator().manual_seed(seed))
        self.weight = one.expand(len(rates), -1, -1).clone().to(device)  # (L, C, d)
        self.bias = torch.zeros(len(rates), classes, device=device)  # (L, C)
        self.rates = torch.tensor(rates, device=device)
        self.rule, self.momentum, self.weight_decay = rule, momentum, weight_decay
        self._moments = [torch.zeros_like(self.weight), torch.zeros_like(self.bias)]

    @property
    def finite(self) -> Tensor:
        """(L,) whether a head still holds numbers: too high a rate ends beyond them."""
        return torch.isfinite(self.weight).flatten(1).all(1)

    def __call__(self, x: Tensor) -> Tensor:
        """Logits (L, B, C) of ``x`` (B, d)."""
        return (
            torch.addmm(self.bias.flatten(), x, self.weight.flatten(0, 1).T)
            .view(len(x), *self.bias.shape)
            .movedim(1, 0)
        )

    def step(self, x: Tensor, labels: Tensor, factor: float) -> Tensor:
        """One step on the mean cross-entropy of ``x`` (B, d), at ``factor`` times each rate; the losses (L,) before."""
        b = len(x)
        flat = torch.addmm(self.bias.flatten(), x, self.weight.flatten(0, 1).T)  # (B, L C)
        log_p = flat.view(b, *self.bias.shape).log_softmax(2)  # (B, L, C)
        own = labels[:, None, None].expand(-1, len(self.rates), 1)
        losses = -log_p.gather(2, own).mean((0, 2))
        error = log_p.exp_().scatter_add_(2, own, log_p.new_full((1, 1, 1), -1.0).expand(own.shape)).div_(b)
        # The gradient of the cross-entropy by hand: autograd would hold the logits thrice.
        gradients = [(error.flatten(1).T @ x).view_as(self.weight), error.sum(0)]
        for w, g, m in zip((self.weight, self.bias), gradients, self._moments, strict=True):
            self._move(w, g, m, factor)
        return losses

    def _move(self, w: Tensor, g: Tensor, m: Tensor, factor: float) -> None:
        shape = (-1, *[1] * (w.ndim - 1))
        if self.rule == "larc":
            g = _larc(w, g, self.weight_decay)
        elif self.weight_decay:
            g = g.add_(w, alpha=self.weight_decay)
        m.mul_(self.momentum).add_(g)
        update = g.add_(m, alpha=self.momentum) if self.rule == "nesterov" else m
        w.addcmul_(update, self.rates.view(shape), value=-factor)


def _larc(w: Tensor, g: Tensor, decay: float, trust: float = 0.001) -> Tensor:
    """NVIDIA/apex LARC without clipping, head by head: trust * |w| / (|g| + decay * |w|) * (g + decay * w)."""
    axes = tuple(range(1, w.ndim))
    wn, gn = (torch.linalg.vector_norm(t, dim=axes, keepdim=True) for t in (w, g))
    some = (wn > 0) & (gn > 0)
    return torch.where(some, trust * wn / (gn + decay * wn + 1e-8) * (g + decay * w), g)
