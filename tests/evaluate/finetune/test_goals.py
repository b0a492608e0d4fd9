"""Targets and losses of fine-tuning, against the formulas of torch and the paper."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from sslctl.evaluate.finetune.goals import Classes, Columns
from sslctl.evaluate.targets import Table

LABELS = torch.tensor([2, 0])


def test_smoothed_classes_are_torchs_label_smoothing() -> None:
    out = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    goal = Classes(3, smoothing=0.1)
    assert goal.targets(LABELS).sum(1).tolist() == pytest.approx([1, 1])
    expected = F.cross_entropy(out, LABELS, label_smoothing=0.1)
    torch.testing.assert_close(goal.loss(out, goal.targets(LABELS)), expected)
    torch.testing.assert_close(Classes(3).loss(out, Classes(3).targets(LABELS)), F.cross_entropy(out, LABELS))


def table(values: list[list[float]]) -> Table:
    names = [f"{i}.png" for i in range(len(values))]
    return Table("values.csv", names, [f"c{i}" for i in range(len(values[0]))], torch.tensor(values))


def test_numbers_are_learnt_in_units_of_their_deviation_on_the_training_images() -> None:
    held = table([[1.0, 5.0], [3.0, 5.0], [100.0, 7.0]])
    goal = Columns.of(held, torch.tensor([0, 1]))
    assert goal.mean.tolist() == [2.0, 5.0] and goal.scale.tolist() == [1.0, 1.0], "a constant column is not divided"
    assert goal.outputs == 2 and goal.targets(torch.tensor([2])).tolist() == [[98.0, 2.0]]
    assert float(goal.loss(torch.zeros(1, 2), torch.tensor([[3.0, 1.0]]))) == 5.0


def test_labels_are_learnt_by_binary_cross_entropy() -> None:
    held = table([[1.0, 0.0], [0.0, 0.0]])
    goal = Columns.of(held, torch.tensor([0, 1]))
    out, target = torch.tensor([[2.0, -1.0]]), goal.targets(torch.tensor([0]))
    assert target.tolist() == [[1.0, 0.0]]
    expected = -(torch.sigmoid(torch.tensor(2.0)).log() + (1 - torch.sigmoid(torch.tensor(-1.0))).log()) / 2
    torch.testing.assert_close(goal.loss(out, target), expected)
