"""The spec in a few words: options that stand for its values, the same for Python and the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypedDict, Unpack

from ..errors import SpecError
from ..spec.parsing import merge, parse_set, read_spec_file
from ..spec.schema import Data, Spec
from .feedback import Feedback
from .options import Option

if TYPE_CHECKING:
    from ..engine.setup import RunInputs

AUTO = "auto"


def number_or_auto(word: str) -> int | str:
    """Return a batch size. Raises SpecError for another word than ``auto``."""
    if word != AUTO and not word.isdecimal():
        raise SpecError(f"'{word}' is neither a number nor {AUTO}")
    return word if word == AUTO else int(word)


RUN = ("epochs", "steps")  # of which one alone may be given

SpecWord = str | Path | Mapping[str, Any] | Spec


class SpecOptions(TypedDict, total=False):
    """Options that choose a spec: these words, over ``set``, over ``spec``, over the recipe."""

    data: Annotated[str | Path, Option("Folder, list, array pack, public set, or demo.", type=str)]
    val_data: Annotated[str | Path, Option("Images kept for evaluation.", type=str)]
    method: Annotated[str, Option("Objective; `sslctl methods` lists them.")]
    recipe: Annotated[str, Option("Values of a published run, or small: thousands of images.")]
    multi_crop: Annotated[str, Option("Views, as 2x160+4x96.")]
    arch: Annotated[str, Option("timm model name.")]
    stem: Annotated[str, Option("auto, imagenet or small.")]
    epochs: Annotated[float, Option("Length of the run.")]
    steps: Annotated[int, Option("Length in steps instead.")]
    batch_size: Annotated[
        int | str,
        Option(
            "Images in a step, over all processes; auto: the recipe's, or as many as fit into memory.",
            type=number_or_auto,
        ),
    ]
    lr: Annotated[float, Option("Peak learning rate at batch size 256.")]
    precision: Annotated[str, Option("auto, fp32, bf16 or fp16.")]
    device: Annotated[str, Option("auto, cpu, cuda, cuda:N or mps.")]
    workers: Annotated[int, Option("Loader processes.")]
    seed: Annotated[int, Option("Seed of everything random.")]
    out: Annotated[str | Path, Option("Run directory; by default runs/METHOD-ARCH-DATA-ID.", type=str)]
    max_time: Annotated[float, Option("Minutes after which to save and stop (75).")]
    checkpoint_every: Annotated[int, Option("Steps; by default an epoch.")]
    probe_data: Annotated[str | Path, Option("Labelled images on which to score the encoder as it trains.", type=str)]
    probe_every: Annotated[int, Option("Steps between probes; by default an epoch.")]
    log_to: Annotated[str, Option("tensorboard, wandb or trackio, or several with commas.")]
    spec: Annotated[SpecWord, Option("YAML file, such as a run's spec.yaml.", type=Path)]
    set: Annotated[
        Mapping[str, Any] | Sequence[str], Option("section.key=value; may be repeated.", names="--set", type=list[str])
    ]
    download: Annotated[bool, Option("Fetch a public set that is not there yet.")]


FLAGS = {
    "data": ("data", "path"),
    "val_data": ("data", "val"),
    "workers": ("data", "workers"),
    "download": ("data", "download"),
    "multi_crop": ("views", "multi_crop"),
    "arch": ("backbone", "arch"),
    "stem": ("backbone", "stem"),
    "method": ("method", "name"),
    "lr": ("optim", "lr"),
    **{
        word: ("run", word)
        for word in (
            "epochs",
            "steps",
            "batch_size",
            "precision",
            "device",
            "seed",
            "out",
            "max_time",
            "checkpoint_every",
            "probe_data",
            "probe_every",
            "log_to",
        )
    },
}


def make_spec(**options: Unpack[SpecOptions]) -> Spec:
    """Return the resolved spec of ``options``; ``batch_size="auto"`` is left to ``batch_that_fits``.

    Raises SpecError with every error at once.
    """
    from ..methods.resolve import resolve

    words: dict[str, Any] = {key: value for key, value in options.items() if value is not None and value is not False}
    flags: Data = {}
    for word, (section, key) in FLAGS.items():
        value = words.get(word)
        if value is not None and not (word == "batch_size" and value == AUTO):
            flags.setdefault(section, {})[key] = str(value) if isinstance(value, Path) else value
    user = merge(_sections(words.get("spec")), *_layers(words.get("set")))
    if set(RUN) & flags.get("run", {}).keys() and isinstance(user.get("run"), dict):
        user["run"] = {k: v for k, v in user["run"].items() if k not in RUN}
    return resolve(merge(user, flags), words.get("recipe"))


def _sections(spec: SpecWord | None) -> Data:
    if spec is None:
        return {}
    if isinstance(spec, Spec):
        return spec.dump()
    return dict(spec) if isinstance(spec, Mapping) else read_spec_file(Path(spec))


def _layers(words: Mapping[str, Any] | Sequence[str] | None) -> list[Data]:
    """Return ``--set`` words, or a mapping of dotted keys, as sections."""
    if not isinstance(words, Mapping):
        return [parse_set(word) for word in words or []]
    layers = []
    for path, value in words.items():
        for key in reversed(path.split(".")):
            value = {key: value}
        layers.append(value)
    return layers


def open_spec(spec: Spec, feedback: Feedback) -> RunInputs:
    """Open the data of ``spec`` and choose the views that fit it, with notes."""
    from ..engine.setup import open_inputs

    opened = open_inputs(spec)
    for line in opened.notes:
        feedback.note(line)
    return opened


def warn_of(opened: RunInputs, feedback: Feedback) -> list[str]:
    """Warn of what is known to fail with this spec and these images."""
    from ..methods.advice import warnings

    found = warnings(opened.spec, len(opened.train))
    feedback.warn_all(found)
    return found
