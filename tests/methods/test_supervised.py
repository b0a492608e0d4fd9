"""Supervised training: cross-entropy with the labels, which it needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sslctl.errors import DataError
from sslctl.methods.base import Context, Views
from sslctl.methods.supervised import Supervised, SupervisedParams
from sslctl.schedule import Step

Golden = Callable[[str], dict[str, Tensor]]


STEP = Step(3, 10, 5)


def test_supervised_is_cross_entropy_with_the_labels(
    net: Callable[[], Any], random_views: Callable[..., Views]
) -> None:
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    views = replace(random_views((1, 16), (1, 8)), labels=labels)
    method = Supervised(SupervisedParams(label_smoothing=0.1), net(), Context(100, 6, classes=3)).eval()
    each = [F.cross_entropy(method.student(x), labels, label_smoothing=0.1) for x in views.all]
    output = method(views, STEP)
    torch.testing.assert_close(output.loss, torch.stack(each).mean())
    right = torch.cat([method.student(x).argmax(1) == labels for x in views.all]).float().mean()
    torch.testing.assert_close(output.logs["accuracy"], right)


def test_without_labels_supervised_training_is_refused(
    net: Callable[[], Any], random_views: Callable[..., Views]
) -> None:
    with pytest.raises(DataError, match="no classes") as refused:
        Supervised(SupervisedParams(), net(), Context(100, 6))
    assert "--method simclr" in refused.value.hint
    method = Supervised(SupervisedParams(), net(), Context(100, 6, classes=3))
    with pytest.raises(DataError, match="no labels"):
        method(replace(random_views((1, 16)), labels=None), STEP)
