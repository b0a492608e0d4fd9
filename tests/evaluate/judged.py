"""Scores of logits that a test writes down, for what is worked out from scores."""

from __future__ import annotations

import torch

from sslctl.evaluate.score import Score, judge, score


def scored(predicted: list[int], actual: list[int], classes: int = 3, **protocol: object) -> Score:
    """The score of one prediction an image."""
    logits = torch.nn.functional.one_hot(torch.tensor(predicted), classes).float()
    return score(judge(logits, torch.tensor(actual)), 10, classes, protocol)
