"""The teacher follows the parameters of the student, and keeps buffers of its own."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sslctl.layers.encoder import Encoder
from sslctl.layers.teacher import EMA

from ..stubs import StubBackbone
from .drawing import randn


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
