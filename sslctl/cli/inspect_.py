"""``sslctl inspect``: what a file or folder is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..tasks.results import Inspection

SHOWN = 12  # groups of tensors


def inspect_(result: Inspection) -> str:
    """Say what a file or folder is: a run, a checkpoint, weights of another tool, images.

    Nothing in it is run. A checkpoint's sha256 is verified. With --json: the spec, and every tensor with its shape.

    Examples:

      sslctl inspect runs/swav-resnet18-demo-1a2b3c

      sslctl inspect moco_v2_800ep_pretrain.pth.tar --json
    """
    r, lines = result, [f"{result.kind}: {result.path}"]
    shown = [
        ("what", r.title and f"{r.title} ({r.layout}), names of {r.names}"),
        ("branch", r.branch),
        ("prefix", r.prefix),
        ("method", r.method),
        ("backbone", _plain(r.backbone)),
        ("images", _plain(r.image or r.images)),
        ("classes", len(r.classes) if isinstance(r.classes, list) else r.classes),
        ("step", r.step),
        ("data", _plain(r.data)),
        ("health", r.health),
        ("scores", _plain(r.scores)),
        ("loss", (r.last_line or {}).get("loss")),
        ("fine-tuned", None if r.finetuned is None else "yes"),
        ("imported", (r.imported or {}).get("title")),
        ("no encoder", r.reason),
        ("exported", _plain({k: v for k, v in (r.export or {}).items() if isinstance(v, str)})),
        ("changed", ", ".join(r.changed or [])),
        ("left over", _plain(r.left_over)),
        ("checkpoints", ", ".join(r.checkpoints or [])),
        ("unreadable", "; ".join(r.unreadable or [])),
        ("size", _size(r)),
        ("sha256", r.sha256),
        ("versions", _plain(r.versions)),
    ]
    lines += [f"  {word:12}{value}" for word, value in shown if value not in (None, "")]
    groups = sorted((r.groups or {}).items(), key=lambda item: -item[1])
    lines += [f"  {'tensors' if i == 0 else '':12}{name} ({count})" for i, (name, count) in enumerate(groups[:SHOWN])]
    more = [f"  {'':12}and {len(groups) - SHOWN} more groups"] if len(groups) > SHOWN else []
    return "\n".join(lines + more)


def _plain(value: Any) -> str | None:
    """``value`` on one line; None where there is nothing in it."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {inner}" for key, inner in value.items() if inner not in (None, {}, "")) or None
    return None if value is None else str(value)


def _size(r: Inspection) -> str:
    files = "" if r.files is None else f" in {r.files} files"
    numbers = "" if r.tensors is None else f", {len(r.tensors)} tensors of {r.numbers:,} numbers"
    return f"{r.bytes / 2**20:.1f} MiB{files}{numbers}"
