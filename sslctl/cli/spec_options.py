"""The spec from the command line: options that stand for its values, declared once for every command that takes one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..spec.parsing import merge, parse_set, read_spec_file
from ..spec.schema import Data, Spec
from . import output
from .options import Download, takes

if TYPE_CHECKING:
    from ..engine.setup import RunInputs


AUTO = "auto"


def option(help_: str, *names: str) -> Any:
    """An option that is not part of the spec unless it is given."""
    return typer.Option(*names, help=help_, show_default=False)


def spec_from(
    data: Annotated[str | None, option("Folder, list, array pack, public set, or demo.")] = None,
    val_data: Annotated[str | None, option("Images kept for evaluation.")] = None,
    method: Annotated[str | None, option("Objective; `sslctl methods` lists them.")] = None,
    recipe: Annotated[str | None, option("Values of a published run, or small: thousands of images.")] = None,
    multi_crop: Annotated[str | None, option("Views, as 2x160+4x96.")] = None,
    arch: Annotated[str | None, option("timm model name.")] = None,
    stem: Annotated[str | None, option("auto, imagenet or small.")] = None,
    epochs: Annotated[float | None, option("Length of the run.")] = None,
    steps: Annotated[int | None, option("Length in steps instead.")] = None,
    batch_size: Annotated[int | None, option("Images in a step, over all processes.")] = None,
    lr: Annotated[float | None, option("Peak learning rate at batch size 256.")] = None,
    precision: Annotated[str | None, option("auto, fp32, bf16 or fp16.")] = None,
    device: Annotated[str | None, option("auto, cpu, cuda, cuda:N or mps.")] = None,
    workers: Annotated[int | None, option("Loader processes.")] = None,
    seed: Annotated[int | None, option("Seed of everything drawn.")] = None,
    out: Annotated[str | None, option("Run directory; by default runs/METHOD-ARCH-DATA-ID.")] = None,
    max_time: Annotated[float | None, option("Minutes after which to save and stop (75).")] = None,
    checkpoint_every: Annotated[int | None, option("Steps; by default an epoch.")] = None,
    probe_data: Annotated[str | None, option("Labelled images on which to score the encoder as it trains.")] = None,
    probe_every: Annotated[int | None, option("Steps between probes; by default an epoch.")] = None,
    log_to: Annotated[str | None, option("tensorboard, wandb or trackio, or several with commas.")] = None,
    spec: Annotated[Path | None, option("YAML file, such as a run's spec.yaml.")] = None,
    set_: Annotated[list[str] | None, option("section.key=value; may be repeated.", "--set")] = None,
    download: Download = False,
) -> Spec:
    """The resolved spec: options, above ``--set``, above ``--spec``, above recipes."""
    flags = _layer(
        {
            "data": {"path": data, "val": val_data, "workers": workers, "download": download or None},
            "views": {"multi_crop": multi_crop},
            "backbone": {"arch": arch, "stem": stem},
            "method": {"name": method},
            "optim": {"lr": lr},
            "run": {
                "epochs": epochs,
                "steps": steps,
                "batch_size": batch_size if isinstance(batch_size, int) else None,  # AUTO is settled later
                "precision": precision,
                "device": device,
                "seed": seed,
                "out": out,
                "max_time": max_time,
                "checkpoint_every": checkpoint_every,
                "probe_data": probe_data,
                "probe_every": probe_every,
                "log_to": log_to,
            },
        }
    )
    user = merge(read_spec_file(spec) if spec else {}, *map(parse_set, set_ or []))
    if {"epochs", "steps"} & flags.get("run", {}).keys() and isinstance(user.get("run"), dict):
        user["run"] = {k: v for k, v in user["run"].items() if k not in ("epochs", "steps")}
    return _resolve(merge(user, flags), recipe)


def _layer(sections: Data) -> Data:
    """What was given on the command line, without what was not."""
    given = {name: {k: v for k, v in section.items() if v is not None} for name, section in sections.items()}
    return {name: section for name, section in given.items() if section}


def _resolve(user: Data, recipe: str | None) -> Spec:
    from ..methods.resolve import resolve

    return resolve(user, recipe)


takes_spec = takes("spec", spec_from)


def number_or_auto(word: str) -> int | str:
    try:
        return AUTO if word == AUTO else int(word)
    except ValueError as e:
        raise typer.BadParameter(f"'{word}' is neither a number nor {AUTO}") from e


BatchSizeOrAuto = Annotated[
    Any,
    typer.Option(
        "--batch-size",
        metavar="INTEGER|auto",
        parser=number_or_auto,
        help="Images in a step, over all processes; auto: the recipe's, or as many as fit into memory.",
        show_default=False,
    ),
]


def open_with_notes(spec: Spec, settle: Callable[[RunInputs], RunInputs] = lambda around: around) -> RunInputs:
    """The data and views that ``spec`` means; what was chosen, and what is known to fail, said on stderr.

    ``settle`` chooses what depends on the opened data.
    """
    from ..engine.setup import open_inputs
    from ..methods.advice import warnings

    around = open_inputs(spec)
    for line in around.notes:
        output.note(line)
    around = settle(around)
    for line in warnings(around.spec, len(around.train)):
        output.warn(line)
    return around
