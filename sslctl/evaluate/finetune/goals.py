"""What fine-tuning works towards: classes, or the columns of a table; as targets, loss and score."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..features.extract import FeatureSet
from ..score import Score, judge, score
from ..targets import Table, TargetScore, score_targets


@dataclass(frozen=True)
class Classes:
    """One class an image."""

    outputs: int
    smoothing: float = 0.0
    key = "top1"  # of the score, in curves and results

    def targets(self, labels: Tensor) -> Tensor:
        """Map labels (B,) to targets (B, C): smoothed labels (arXiv 1512.00567)."""
        return F.one_hot(labels, self.outputs).float() * (1 - self.smoothing) + self.smoothing / self.outputs

    def loss(self, out: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(out, target)

    def score(self, outputs: FeatureSet, n_train: int, protocol: Mapping[str, Any]) -> Score:
        return score(judge(outputs.x, outputs.labels), n_train, self.outputs, protocol)


@dataclass(frozen=True)
class Columns:
    """The columns of ``table``, in which labels are rows: cross-entropy of labels, squared error of numbers.

    Numbers are learnt in units of their deviation ``scale`` from the training set's ``mean``.
    """

    table: Table
    mean: Tensor  # (C,)
    scale: Tensor  # (C,)
    key = "value"

    @classmethod
    def of(cls, table: Table, rows: Tensor) -> Columns:
        """Return the goal for the training images with these ``rows``."""
        y = table.values[rows]
        if table.kind == "multilabel":
            return cls(table, torch.zeros(y.shape[1]), torch.ones(y.shape[1]))
        deviation = y.std(0, correction=0)
        return cls(table, y.mean(0), torch.where(deviation > 0, deviation, 1.0))

    @property
    def outputs(self) -> int:
        return self.table.values.shape[1]

    def targets(self, labels: Tensor) -> Tensor:
        """Map rows (B,) to targets (B, C)."""
        return ((self.table.values[labels.cpu()] - self.mean) / self.scale).to(labels.device)

    def loss(self, out: Tensor, target: Tensor) -> Tensor:
        if self.table.kind == "multilabel":
            return F.binary_cross_entropy_with_logits(out, target)
        return F.mse_loss(out.float(), target)

    def score(self, outputs: FeatureSet, n_train: int, protocol: Mapping[str, Any]) -> TargetScore:
        predicted, actual = outputs.x * self.scale + self.mean, self.table.values[outputs.labels]
        return score_targets(predicted, actual, self.table, n_train, dict(protocol) | {"targets": self.table.kind})


Goal = Classes | Columns
