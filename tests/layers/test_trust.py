"""The share that LARC moves a tensor by, and tensors that have no length or no gradient."""

from __future__ import annotations

import pytest
import torch

from sslctl.layers.trust import larc


def test_the_update_is_a_fixed_share_of_the_weights_norm() -> None:
    w, g = torch.full((4,), 3.0), torch.tensor([0.0, 2.0, 0.0, 0.0])
    scale, decay = larc(w.norm(), g.norm(), 0.0, trust=0.01)
    assert float((scale * (g + decay * w)).norm() / w.norm()) == pytest.approx(0.01, rel=1e-6)
    scale, decay = larc(w.norm(), g.norm(), 0.5, trust=0.01)
    assert float(decay) == 0.5 and float(scale) == pytest.approx(0.01 * 6 / (2 + 0.5 * 6), rel=1e-6)


def test_a_tensor_without_length_or_gradient_takes_its_gradient_as_it_is() -> None:
    norms = torch.tensor([0.0, 2.0, 0.0])
    scale, decay = larc(norms, torch.tensor([1.0, 0.0, 0.0]), 0.1)
    assert scale.tolist() == [1.0] * 3 and decay.tolist() == [0.0] * 3
