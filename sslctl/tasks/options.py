"""The options that tasks share, each declared once: type, help, limits. The command line is made from them."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec, TypedDict, TypeVar, cast, get_args, get_type_hints

from ..errors import SpecError, closest
from .feedback import Notes, Progress

if TYPE_CHECKING:
    from ..runs.encoder import LoadedEncoder

N = TypeVar("N", int, float)
P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Option:
    """What the command line needs to know of a parameter beside its type.

    ``names``: the flags, where they are not the parameter's own name. ``metavar``: of a positional argument, which it
    makes the parameter. ``type``: that of the command line's words, or a function that parses one, where Python takes
    more than a word can say. ``default``: in a group of options, which has no place for it.
    """

    help: str
    names: str = ""
    metavar: str = ""
    type: Any = None
    min: float | None = None
    max: float | None = None
    default: Any = None


def numbers(option: str, given: str | N | Sequence[N], kind: type[N]) -> list[N]:
    """The positive numbers that ``given`` lists, as text with commas or as they are; SpecError where it has others."""
    try:
        words = given.split(",") if isinstance(given, str) else given if isinstance(given, Sequence) else [given]
        found = [kind(word) for word in words]
    except (TypeError, ValueError):
        found = []
    if not found or not all(0 < number < 1e9 for number in found):
        raise SpecError(f"{option} '{given}': not positive numbers separated by commas", f"for example {option} 10,20")
    return list(dict.fromkeys(found))


def one_of(option: str, value: str, known: Sequence[str], what: str = "choice") -> str:
    """Return ``value``; SpecError where it is not one of ``known``."""
    if value in known:
        return value
    listed = f"{', '.join(known[:-1])} or {known[-1]}"
    raise SpecError(f"{option} '{value}': no such {what}{closest(value, list(known))}", f"{option} {listed}")


Encoder = Annotated[
    "str | Path | LoadedEncoder",
    Option("Run directory, checkpoint, weights of other tools, or timm:NAME.", metavar="RUN", type=Path),
]
Images = Annotated[str | Path, Option("An image, or what --data takes.", metavar="IMAGES", type=str)]
Set = Annotated[str | Path, Option("Images, as --data takes them.", metavar="DATA", type=str)]
Data = Annotated[str | Path | None, Option("Images; by default those of the run.", type=str)]
LabelledData = Annotated[str | Path | None, Option("Labelled images; by default those of the run.", type=str)]
Split = Annotated[str, Option("Part of a set that has several: train or val.")]
Download = Annotated[bool, Option("Fetch a public set that is not there yet.")]
Device = Annotated[str, Option("auto, cpu, cuda, cuda:N or mps.", default="auto")]
Precision = Annotated[str, Option("auto, fp32, bf16 or fp16.", default="fp32")]
Workers = Annotated[int | None, Option("Loader processes; by default as many as the machine allows.")]
Seed = Annotated[int, Option("Seed of everything random.", min=0, default=0)]
Size = Annotated[int | None, Option("Side in px of the area to resize to; by default as trained.", min=8, max=4096)]
Force = Annotated[bool, Option("Replace what is there already.")]
Targets = Annotated[
    str | None, Option("CSV of image names and 0/1 labels or numbers: predict these instead of classes.")
]


class Listeners(TypedDict, total=False):
    """Functions that hear of a task's progress and its notes."""

    progress: Progress | None
    notes: Notes | None


class MachineOptions(Listeners, total=False):
    """How passes over images run."""

    device: Device
    precision: Precision  # fp32: a score should not depend on what the CPU can do
    workers: Workers
    batch_size: Annotated[int, Option("Images in one forward pass.", min=1, default=256)]


class FeatureOptions(MachineOptions, total=False):
    """How features are computed, or read where they are stored."""

    no_cache: Annotated[bool, Option("Compute features again, and do not store them beside the run.")]


class LabelOptions(TypedDict, total=False):
    """Labelled images to score an encoder on."""

    val_data: Annotated[str | Path | None, Option("Images to test on; by default a part of --data.", type=str)]
    labels: Annotated[str | None, Option("Labels to use: a share (0.01), 10-per-class, or a file that lists images.")]
    fail_under: Annotated[
        float | None, Option("Exit with code 7 if top-1 (with --targets, their score) is lower.", min=0, max=1)
    ]
    seed: Seed
    download: Download


class TrainingOptions(LabelOptions, Listeners, total=False):
    """Options of fine-tuning that evaluations have, too."""

    device: Device
    workers: Workers


class EvaluationOptions(LabelOptions, FeatureOptions, total=False):
    """Options of the evaluations of frozen features."""

    draws: Annotated[
        int | None,
        Option("Random draws of --labels to average; 5 by default, 1 with a paper's protocol.", min=1, max=1000),
    ]
    baselines: Annotated[bool, Option("Score raw pixels and random weights too.")]
    per_class: Annotated[bool, Option("Report top-1 of each class, with its interval.")]
    confusion: Annotated[bool, Option("Report which class is mistaken for which.")]


Group = TypeVar("Group", bound=Mapping[str, Any])


def with_defaults(kind: type[Group], options: Mapping[str, Any]) -> Group:
    """Return all options of ``kind``; those that are not in ``options`` with their defaults."""
    hints = get_type_hints(kind, include_extras=True)
    return cast("Group", {name: default_of(hint) for name, hint in hints.items()} | dict(options))


def default_of(annotation: Any) -> Any:
    """Return the default of an annotated option: what it says, False for a flag, else None."""
    option = option_of(annotation)
    return None if option is None else False if get_args(annotation)[0] is bool else option.default


def option_of(annotation: Any) -> Option | None:
    return next((part for part in get_args(annotation) if isinstance(part, Option)), None)


def flag(name: str, option: Option | None = None) -> str:
    return option.names if option and option.names else f"--{name.replace('_', '-')}"


def task(function: Callable[P, R]) -> Callable[P, R]:
    """Return a task whose arguments are checked: SpecError for an unknown name, and for a number outside its limits."""

    @functools.wraps(function)
    def checked(*args: P.args, **words: P.kwargs) -> R:
        known = {name: annotation for name, annotation, _ in list_options(function)}
        if unknown := [name for name in words if name not in known]:
            near = closest(unknown[0], list(known))
            raise SpecError(f"{unknown[0]}: no such option of {function.__name__}{near}", f"known: {', '.join(known)}")
        for name, value in [*zip(known, args, strict=False), *words.items()]:
            option = option_of(known[name])
            if option is None or not isinstance(value, int | float) or isinstance(value, bool):
                continue
            low, high = option.min, option.max
            if (low is not None and value < low) or (high is not None and value > high):
                limits = f"at least {low:g}" if high is None else f"between {low or 0:g} and {high:g}"
                raise SpecError(f"{flag(name, option)} {value}: outside its limits", limits)
        return function(*args, **words)

    return checked


class _Names(dict[str, Any]):
    """For annotations: what a module imports for type checkers alone is Any."""

    def __init__(self, known: dict[str, Any]) -> None:
        super().__init__()
        self.known = known

    def __missing__(self, name: str) -> Any:
        if name in self.known or name in self.known["__builtins__"]:
            raise KeyError(name)
        return Any


def list_options(function: Callable[..., Any]) -> list[tuple[str, Any, Any]]:
    """Name, annotation and default of everything that a task takes; the words of a spec come first."""
    module = sys.modules[function.__module__].__dict__
    found: list[tuple[str, Any, Any]] = []
    for p in inspect.signature(function, eval_str=True, locals=_Names(module)).parameters.values():
        if p.kind is p.VAR_KEYWORD:
            (group,) = get_args(p.annotation)  # of Unpack
            hints = get_type_hints(group, include_extras=True)
            words = [(name, annotation, default_of(annotation)) for name, annotation in hints.items()]
            found = [*words, *found] if group.__name__ == "SpecOptions" else [*found, *words]
        else:
            found.append((p.name, p.annotation, p.default))
    return found
