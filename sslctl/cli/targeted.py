"""The result of a command that scored an encoder on targets that are no classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import SpecError
from .scored import Result, circumstances, close, provenance, settle

if TYPE_CHECKING:
    from ..evaluate.targets import TargetScore
    from .evaluating import Experiment, Frozen, Labelled


def refuse_classes(given: Labelled) -> None:
    """SpecError where options were given that speak of classes."""
    names = ("labels", "draws", "baselines", "per_class", "confusion")
    asked = [f"--{name.replace('_', '-')}" for name in names if getattr(given, name, None)]
    if asked:
        raise SpecError(f"{' '.join(asked)}: speaks of classes, and --targets has none", "leave it out")


def target_result(task: str, experiment: Experiment, score: TargetScore) -> tuple[Result, list[str]]:
    """For JSON, and notes."""
    from ..evaluate.caveats import overlap

    facts, notes = overlap(experiment.train, experiment.test)
    result: Result = {"task": task, **score.as_dict()}
    result["protocol"] |= circumstances(experiment)
    return result | facts | provenance(experiment), [*score.notes, *notes]


def target_lines(task: str, experiment: Experiment, score: TargetScore) -> list[str]:
    """For people."""
    lines = [f"{task}: {score}"]
    for column in score.columns:
        words = (f"{key} {value:.3f}" for key, value in column.items() if isinstance(value, float))
        lines.append(f"  {column['name']}: {', '.join(words) or 'does not vary'}")
    train, test = experiment.train.name, experiment.test.name
    where = train if train == test else f"{train} and {test}"
    lines.append(f"  {score.n_train} training and {score.n_test} test images, {where}")
    return lines


def finish_targets(task: str, given: Frozen, experiment: Experiment, score: TargetScore) -> None:
    """Print the result; exit with code 7 where its value is under ``--fail-under``."""
    result, notes = target_result(task, experiment, score)
    settle(result, notes, "value", given.fail_under)
    close(result, target_lines(task, experiment, score), "value", given.as_json)
