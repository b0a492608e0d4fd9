"""Random numbers keyed by step and image: those of the views' generator, whatever the batch."""

from __future__ import annotations

import numpy as np
import torch

from sslctl.runtime.seeding import generator, seed_step, shuffle, uniforms
from sslctl.schedule import Step
from sslctl.views import keyed

STEP = Step(7, 100, 10, seed=5)


def test_numbers_are_those_of_the_generator_of_views() -> None:
    index = torch.tensor([0, 3, 2**40])
    expected = keyed.uniforms(5, 7, index.numpy(), 2, 6)  # (seed, epoch, index, view) there, (.., stream) here
    assert np.array_equal(uniforms(STEP, index, 6, stream=2).numpy(), expected)


def test_an_image_has_its_numbers_in_any_batch_and_others_at_another_step() -> None:
    whole = uniforms(STEP, torch.arange(10), 4)
    assert torch.equal(uniforms(STEP, torch.tensor([8, 1]), 4), whole[[8, 1]])
    assert not torch.equal(uniforms(STEP.next, torch.arange(10), 4), whole)
    assert float(whole.min()) >= 0 and float(whole.max()) < 1 and len(whole.unique()) == 40


def test_a_generator_is_a_function_of_seed_and_step() -> None:
    first, again = (torch.rand(3, generator=generator(STEP)) for _ in range(2))
    assert torch.equal(first, again) and not torch.equal(first, torch.rand(3, generator=generator(STEP.next)))


def test_torch_is_seeded_by_the_step_alone() -> None:
    seed_step(3, 7)
    first = torch.rand(3)
    torch.rand(5)
    seed_step(3, 7)
    assert torch.equal(torch.rand(3), first)
    for other in ((3, 8), (4, 7)):
        seed_step(*other)
        assert not torch.equal(torch.rand(3), first)


def test_an_order_holds_every_image_once_and_changes_with_the_step() -> None:
    order = shuffle(50, STEP, torch.device("cpu"))
    assert sorted(order.tolist()) == list(range(50))
    assert torch.equal(order, shuffle(50, STEP, torch.device("cpu")))
    assert not torch.equal(order, shuffle(50, STEP.next, torch.device("cpu")))
