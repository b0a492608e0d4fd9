"""The queue of keys and the centre of outputs: what they hold after some steps."""

from __future__ import annotations

import torch

from sslctl.layers.buffers import Center, Queue
from sslctl.schedule import Step

from .drawing import randn


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
