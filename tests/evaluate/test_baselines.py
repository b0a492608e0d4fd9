"""What a score has to beat: pixels as they are, and the network before any training."""

from __future__ import annotations

import numpy as np
import torch

from sslctl.backbones import build_backbone
from sslctl.evaluate.baselines import PIXELS, Pixels, random_backbone
from sslctl.spec.schema import BackboneSpec

SPEC = BackboneSpec(arch="resnet18", args={"channels": [4, 4, 8, 8], "layers": [1, 1, 1, 1]})


def test_pixels_are_the_normalised_image_row_by_row() -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    x = Pixels()(PIXELS(image)[None])
    expected = (image.transpose(2, 0, 1) / 255 - np.array(PIXELS.mean)[:, None, None]) / np.array(PIXELS.std)[
        :, None, None
    ]
    np.testing.assert_allclose(x[0].numpy(), expected.reshape(-1), rtol=1e-4, atol=1e-5)


def test_random_weights_are_those_of_the_seed_and_nothing_else_is_drawn() -> None:
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first, again, other = (random_backbone(SPEC, 32, seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(0)
    fresh = build_backbone(SPEC, 32).state_dict()
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]) and torch.equal(value, fresh[name])
    assert any(not torch.equal(value, other.state_dict()[name]) for name, value in first.state_dict().items())
    assert not first.training and not any(p.requires_grad for p in first.parameters())
