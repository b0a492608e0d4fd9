"""``sslctl inspect``: what a file or folder is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from . import output
from .options import Json

SHOWN = 12  # groups of tensors


def inspect_(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="Any file or folder.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Say what a file or folder is: a run, a checkpoint, weights of another tool, images.

    Nothing in it is run. A checkpoint's sha256 is verified. With --json: the spec, and every tensor with its shape.

    Examples:

      sslctl inspect runs/swav-resnet18-demo-1a2b3c

      sslctl inspect moco_v2_800ep_pretrain.pth.tar --json
    """
    from ..exchange.inspection import inspect

    found = inspect(path)
    for line in found.get("notes", []):
        output.warn(line)
    output.emit(found, as_json, "\n".join(describe(found)))


def describe(found: dict[str, Any]) -> list[str]:
    """``found`` for people: one line for each thing said, the largest groups of tensors, no tensors."""
    lines = [f"{found['kind']}: {found['path']}"]
    shown = [
        ("what", found.get("title") and f"{found['title']} ({found['layout']}), names of {found['names']}"),
        ("branch", found.get("branch")),
        ("prefix", found.get("prefix")),
        ("method", found.get("method")),
        ("backbone", _plain(found.get("backbone"))),
        ("images", _plain(found.get("image", found.get("images")))),
        ("classes", len(found["classes"]) if isinstance(found.get("classes"), list) else found.get("classes")),
        ("step", found.get("step")),
        ("data", _plain(found.get("data"))),
        ("health", _plain(found.get("health"))),
        ("scores", _plain(found.get("scores"))),
        ("loss", (found.get("last_line") or {}).get("loss")),
        ("fine-tuned", "yes" if "finetuned" in found else None),
        ("imported", (found.get("imported") or {}).get("title")),
        ("no encoder", found.get("reason")),
        ("exported", _plain({k: v for k, v in found.get("export", {}).items() if isinstance(v, str)})),
        ("changed", ", ".join(found.get("changed", []))),
        ("left over", _plain(found.get("left_over"))),
        ("checkpoints", ", ".join(found.get("checkpoints", []))),
        ("unreadable", "; ".join(found.get("unreadable", []))),
        ("size", _size(found)),
        ("sha256", found.get("sha256")),
        ("versions", _plain(found.get("versions"))),
    ]
    lines += [f"  {word:12}{value}" for word, value in shown if value not in (None, "")]
    groups = sorted(found.get("groups", {}).items(), key=lambda item: -item[1])
    lines += [f"  {'tensors' if i == 0 else '':12}{name} ({count})" for i, (name, count) in enumerate(groups[:SHOWN])]
    return lines + ([f"  {'':12}and {len(groups) - SHOWN} more groups"] if len(groups) > SHOWN else [])


def _plain(value: Any) -> str | None:
    """``value`` on one line; None where there is nothing in it."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {inner}" for key, inner in value.items() if inner not in (None, {}, "")) or None
    return None if value is None else str(value)


def _size(found: dict[str, Any]) -> str:
    files = f" in {found['files']} files" if "files" in found else ""
    numbers = f", {len(found['tensors'])} tensors of {found['numbers']:,} numbers" if "tensors" in found else ""
    return f"{found['bytes'] / 2**20:.1f} MiB{files}{numbers}"
